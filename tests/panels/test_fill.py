"""The Fill in tab without a page: what each button returns."""

import re
from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest

from modeling.generation import StoppedError
from modeling.infilling import Blank
from panels.context import AppContext
from panels.models import LoadedModel, ModelLoader, ModelSource
from panels.request_queue import RequestQueue
from panels.tabs.fill.filling import BLANKS_LIMIT, fill
from panels.tabs.fill.tab import (
    FillState,
    ask_to_stop,
    endpoint,
    examples,
    excerpt,
    go_back,
    go_forward,
    put_in,
    render_candidates,
    replace,
    show,
    shown,
)


@pytest.fixture(scope="module")
def context(masked: LoadedModel) -> AppContext:
    """The page of the masked model, with a queue of two places."""
    loader = ModelLoader(masked.source)
    loader.start().wait(60)
    return AppContext(loader=loader, queue=RequestQueue(workers=1, limit=2))


def last(answers: Iterator[list[Any]]) -> list[Any]:
    """What stands there in the end: document (gr.skip(): what was typed), status, candidates, Undo."""
    *before, end = answers
    document, undo = next((answer[0], answer[3]) for answer in (*before, end))
    assert not end[5].interactive
    return [document, end[1], end[2], undo]


def test_a_masked_model_is_known_before_it_is_loaded(masked: LoadedModel) -> None:
    assert masked.source.masked
    assert masked.stop_token_ids == (masked.tokenizer.eos_token_id,)


def test_words_go_in_one_after_the_other_and_come_out_again(context: AppContext) -> None:
    state = FillState()
    first = "The ____ burned ____."
    document, status, candidates, _ = last(show(context, state, first))
    assert document == gr.skip()  # the field may have more of it by now
    assert "2 blanks." in status
    assert candidates.count("<button") == 2 * len(state.blanks[0].candidates)
    chosen = state.blanks[1].candidates[2].text
    second, status, _, undo = last(put_in(context, state, first, 1, 2))
    assert second == f"The ____ burned{chosen}."
    assert "1 blank." in status
    assert undo.interactive
    third, status, candidates, _ = last(put_in(context, state, second, 0, 0))
    assert "____" not in third
    assert "No blank is left." in status
    assert candidates == ""
    assert [go_back(state, third)[0], go_back(state, second)[0]] == [second, first]
    assert not go_back(state, first)[3].interactive
    assert [go_forward(state, first)[0], go_forward(state, second)[0]] == [second, third]
    assert not go_forward(state, third)[4].interactive


def test_undo_and_redo_lose_nothing_that_was_typed(context: AppContext) -> None:
    state = FillState()
    first = "The ____ burned"
    last(show(context, state, first))
    filled, *_ = last(put_in(context, state, first, 0, 0))
    back = go_back(state, f"{filled}, and the sea")
    assert (back[0], back[3].interactive, back[4].interactive) == (filled, True, True)
    assert go_back(state, filled)[0] == first
    assert go_forward(state, f"{first} low")[0] == filled
    assert go_forward(state, filled)[0] == f"{filled}, and the sea"
    assert [go_back(state, f"{filled}, and the sea")[0], go_back(state, filled)[0]] == [filled, f"{first} low"]


def test_a_text_that_was_changed_is_guessed_again(context: AppContext) -> None:
    state = FillState()
    last(show(context, state, "The ____ burned"))
    assert last(put_in(context, state, "A ____ burned", 0, 0))[0] == gr.skip()
    assert state.text == "A ____ burned"


def test_undo_brings_back_what_an_example_took_the_place_of(context: AppContext) -> None:
    state = FillState()
    assert not last(replace(context, state, " ", "The ____ burned"))[3].interactive
    assert not last(replace(context, state, "The ____ burned", "The ____ burned"))[3].interactive
    assert last(replace(context, state, "My own ____", "The ____ burned"))[3].interactive
    assert go_back(state, "The ____ burned")[0] == "My own ____"


def test_trouble_is_told_and_nothing_is_lost(context: AppContext, loaded: LoadedModel) -> None:
    document, status, candidates, _ = last(show(context, FillState(), "no blank <b>"))
    assert document == gr.skip()
    assert 'class="status trouble"' in status
    assert "got one without" in status
    assert not candidates.strip()
    with pytest.raises(ValueError, match=f"expected at most {BLANKS_LIMIT} blanks at a time, got {BLANKS_LIMIT + 1}"):
        fill(context.loader.wait(), "____ " * (BLANKS_LIMIT + 1), 3)
    with pytest.raises(ValueError, match="writes and does not fill blanks: give it a beginning"):
        fill(loaded, "a ____", 3)
    assert len(context.queue) == 0


def test_words_of_a_model_that_was_replaced_meanwhile_are_not_shown(
    context: AppContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def switched(*_: Any, **__: Any) -> list[Any]:
        context.version += 1
        return [Blank(start=3, end=8, candidates=())]

    state = FillState()
    monkeypatch.setattr(context.loader, "call", switched)
    _, status, candidates, _ = last(show(context, state, "The ____ burned"))
    assert "model was changed" in status
    assert (candidates.strip(), state.blanks) == ("", [])


def test_who_waits_is_told_and_stop_and_undo_leave_the_queue(context: AppContext) -> None:
    state = FillState()
    last(show(context, state, "The ____ and ____ burned"))
    for undoes in (False, True):
        with context.queue.join():
            answers = put_in(context, state, state.text, 0, 0)
            filled, status, *_, stop = next(answers)
            assert filled.count("____") == 1
            assert "Guessing" in status
            assert stop.interactive
            assert "Waiting: 1 request is ahead of yours." in next(answers)[1]
            left = go_back(state, filled) if undoes else ask_to_stop(state)
            assert not left[5].interactive
            (over,) = answers
            assert ("Stopped." in over[1]) == (not undoes)
            assert len(context.queue) == 1
        assert last(put_in(context, state, filled, 0, 0))[0] == gr.skip()  # these blanks are guessed first
        last(show(context, state, "The ____ and ____ burned"))
    with context.queue.join(), context.queue.join():
        assert "The request queue is full" in last(show(context, state, "The ____"))[1]
    assert len(context.queue) == 0


def test_stop_ends_the_guessing_between_two_blanks(context: AppContext) -> None:
    asked: list[int] = []
    with pytest.raises(StoppedError):
        fill(context.loader.wait(), "____ or ____", 3, should_stop=lambda: len(asked) == 1 or bool(asked.append(1)))


def test_markup_in_the_text_stays_text(context: AppContext) -> None:
    state = FillState()
    last(show(context, state, "<img onerror=x> ____ </script>"))
    html = render_candidates(state.text, state.blanks)
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
def test_candidates_as_they_are_displayed(text: str, joins: bool, word: str) -> None:
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


def test_the_endpoint_takes_a_count_as_forms_send_it(context: AppContext) -> None:
    (blank,) = endpoint(context)("The ____ burned low", "3")
    assert [candidate.keys() for candidate in blank["candidates"]] == [{"token_id", "text", "probability"}] * 3


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ("x", "top: expected a whole number, got 'x'."),
        (None, "top: expected a whole number, got None."),
        (0, "top: expected a whole number from 1 to 1,000, got 0."),
        (1001, "top: expected a whole number from 1 to 1,000, got 1001."),
    ],
)
def test_the_endpoint_says_what_is_wrong(context: AppContext, top: Any, message: str) -> None:
    with pytest.raises(gr.Error, match=re.escape(message)):
        endpoint(context)("The ____ burned low", top)
