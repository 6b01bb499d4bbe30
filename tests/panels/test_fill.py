"""The Fill in tab without a page: what each button returns."""

import pytest

from modeling.infilling import Blank
from panels.fill import Sheet, examples, excerpt, go_back, put_in, render_candidates, show, shown
from panels.filling import BLANKS_LIMIT, fill
from panels.models import LoadedModel, ModelLoader, ModelSource


@pytest.fixture(scope="module")
def loader(masked: LoadedModel) -> ModelLoader:
    loader = ModelLoader(masked.source)
    loader.start().wait(60)
    return loader


def test_a_masked_model_is_known_before_it_is_loaded(masked: LoadedModel) -> None:
    assert masked.source.masked
    assert masked.stop_token_ids == (masked.tokenizer.eos_token_id,)


def test_words_go_in_one_after_the_other_and_come_out_again(loader: ModelLoader) -> None:
    sheet = Sheet()
    first = "The ____ burned ____."
    document, status, candidates, _ = show(sheet, first, loader)
    assert document == first
    assert "2 blanks." in status
    assert candidates.count("<button") == 2 * len(sheet.blanks[0].candidates)
    chosen = sheet.blanks[1].candidates[2].text
    second, status, _, undo = put_in(sheet, first, 1, 2, loader)
    assert second == f"The ____ burned{chosen}."
    assert "1 blank." in status
    assert undo.interactive
    third, status, candidates, _ = put_in(sheet, second, 0, 0, loader)
    assert "____" not in third
    assert "No blank is left." in status
    assert candidates == ""
    assert [go_back(sheet)[0], go_back(sheet)[0]] == [second, first]
    assert not go_back(sheet)[3].interactive


def test_a_text_that_was_changed_is_guessed_again(loader: ModelLoader) -> None:
    sheet = Sheet()
    show(sheet, "The ____ burned", loader)
    assert put_in(sheet, "A ____ burned", 0, 0, loader)[0] == "A ____ burned"
    assert sheet.text == "A ____ burned"


def test_trouble_is_told_and_nothing_is_lost(loader: ModelLoader, loaded: LoadedModel) -> None:
    document, status, candidates, _ = show(Sheet(), "no blank <b>", loader)
    assert document == "no blank <b>"
    assert 'class="status trouble"' in status
    assert "got one without" in status
    assert not candidates.strip()
    with pytest.raises(ValueError, match=f"expected at most {BLANKS_LIMIT} blanks at a time, got {BLANKS_LIMIT + 1}"):
        fill(loader.wait(), "____ " * (BLANKS_LIMIT + 1), 3)
    with pytest.raises(ValueError, match="writes and does not fill blanks: give it a beginning"):
        fill(loaded, "a ____", 3)


def test_markup_in_the_text_stays_text(loader: ModelLoader) -> None:
    sheet = Sheet()
    show(sheet, "<img onerror=x> ____ </script>", loader)
    html = render_candidates(sheet.text, sheet.blanks)
    assert "<img" not in html
    assert "</script" not in html
    assert "&lt;img" in html


@pytest.mark.parametrize(
    ("text", "joins", "word"),
    [
        (" lamp", True, "lamp"),
        ("s", True, "…s"),
        ("s", False, "s"),  # after "lamp____" and with tokens that are letters
        (" ", True, ""),
        ("\n", False, "↵"),
        ("  ", False, "␣␣"),
        ("", True, "(nothing)"),
        (" \x1b[2J", True, "␛[2J"),
    ],
)
def test_words_for_the_eye(text: str, joins: bool, word: str) -> None:
    assert shown(text, joins=joins) == (word or "␣")


def test_an_excerpt_is_cut_at_words() -> None:
    text = "The captain drew a line on the map ____ Zürich to the stars that nobody had ever seen."
    blank = Blank(start=text.index(" ____"), end=text.index("____") + 4, candidates=())
    assert excerpt(text, blank) == {
        "before": "… captain drew a line on the map ",
        "after": " Zürich to the stars that …",
    }
    assert excerpt("a ____.", Blank(start=1, end=6, candidates=())) == {"before": "a ", "after": "."}


def test_examples_have_a_blank() -> None:
    prompts = ("The lamp burned low", "too short", "The lamp shone low")
    source = ModelSource(given="x", name="x", prompts=prompts)
    assert examples(source) == {"samples": [["The lamp ____ low"]], "visible": True}
