"""The token view and the editor: what is shown of generated tokens, and what becomes of them when the text changes."""

import dataclasses
import json
import math
import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling.generation import Alternative
from panels.generate import Draft, Token, generate
from panels.sampling import settings_from
from panels.tabs.write.editor import HISTORY, LIMIT, TOKEN_HISTORY, Document, EditorState
from panels.tabs.write.view import (
    ALTERNATIVES,
    STEPS,
    Texts,
    render_head,
    render_token_view,
    render_tokens,
    shown_text,
    step_of,
    take,
    token_data,
)
from tests.panels.tiny_model import CONTEXT


def token(text: str = "a", **values) -> Token:
    """A token of which only the text matters."""
    values = {"token_id": 1, "model_probability": 0.5, "probability": 0.5, "kept": 3, "alternatives": ()} | values
    return Token(text=text, **values)


def written(loaded, prompt: str, **values) -> Document:
    """The page that a writing leaves."""
    editor = EditorState()
    assert editor.begin(prompt)
    for draft in generate(
        loaded, editor.document.text, settings_from(**values), alternatives=ALTERNATIVES, interval=0.0
    ):
        editor.show(draft)
    editor.settle()
    return editor.document


@pytest.mark.parametrize("prompt", ["The lamp", "", "é", "\ud800 x"])
def test_the_tokens_of_a_page_are_its_text(loaded, prompt):
    page = written(loaded, prompt, seed=2, max_new_tokens=3 * CONTEXT, temperature=2)
    assert len(page.tokens) == 3 * CONTEXT
    assert page.written == page.text
    assert any(each.is_inside for each in page.tokens)
    assert page.origin == page.head == prompt.replace("\ud800", "\ufffd")


def test_alternatives_do_not_change_the_text(loaded):
    options = settings_from(seed=4, max_new_tokens=40)
    with_tokens = list(generate(loaded, "The", options, alternatives=3, interval=0.0))
    without = list(generate(loaded, "The", options, interval=0.0))
    assert [draft.text for draft in with_tokens] == [draft.text for draft in without]
    assert not any(token.alternatives for draft in without for token in draft.tokens)
    tokens = [each for draft in with_tokens for each in draft.tokens]
    assert [len(each.alternatives) for each in tokens] == [3] * 40
    for each in tokens:
        assert each.alternatives == tuple(sorted(each.alternatives, key=lambda one: -one.model_probability))
        itself = [one.probability for one in each.alternatives if one.token_id == each.token_id]
        assert itself == pytest.approx([each.probability] * len(itself))


@pytest.mark.parametrize("stop", ["e", " the", "qu", "zzz", "\n"])
def test_a_stop_text_cuts_the_tokens_where_it_cuts_the_text(loaded, stop):
    options = settings_from(seed=11, max_new_tokens=60, temperature=1.5)
    editor = EditorState()
    editor.begin("The lamp")
    for draft in generate(loaded, "The lamp", options, alternatives=2, stop=stop, interval=0.0):
        editor.show(draft)
        assert editor.document.text.startswith(editor.document.written)
    assert editor.document.written == editor.document.text
    assert stop not in editor.document.text[len("The lamp") :]


def test_the_token_view_only_grows_by_appending(loaded):
    page = written(loaded, "She <b>", seed=1, max_new_tokens=30)
    whole = render_token_view(page.head, page.tokens)
    parts = [render_head(page.head), *(render_tokens([each]) for each in page.tokens)]
    assert "".join(parts) == whole
    assert render_token_view(page.head, ()) == ""
    shown = re.findall(r'<span class="token s\d"[^>]*>(.*?)</span>', whole, flags=re.DOTALL)
    assert [unescape(text) for text in shown] == [shown_text(each) for each in page.tokens]
    assert [shown_text(token(text)) for text in ("", " ", "\n\n", " a\n", "\t ")] == [
        "⟨⟩",
        "␣",
        "↵\n↵\n",
        " a↵\n",
        "⇥␣",
    ]


def test_markup_in_tokens_stays_text():
    canvas = render_token_view("<img src=x>", [token("<script>alert(1)</script>"), token('"><img onerror=x>')])
    assert set(re.findall(r"<(\w+)", canvas)) == {"div", "h3", "p", "span"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in canvas


@given(st.floats(1e-30, 1.0))
def test_the_shade_grows_with_the_surprise(probability):
    surprise = -math.log2(probability)
    assert step_of(token(model_probability=probability)) == sum(surprise >= step for step in STEPS)


def test_the_data_of_the_token_view_is_what_the_decoder_said(loaded):
    page = written(loaded, "👩 The lamp", seed=3, max_new_tokens=50, temperature=2)
    data = json.loads(token_data(loaded, page.head, page.tokens))
    assert (data["start"], data["vocabulary"]) == (len("👩 The lamp") + 1, len(loaded.tokenizer))
    assert "".join(entry[0] for entry in data["tokens"]) == page.text[len(page.head) :]
    for (_, _, before, after, kept, rows), each in zip(data["tokens"], page.tokens, strict=True):
        assert (before, after) == pytest.approx((each.model_probability, each.probability), rel=1e-3)
        assert kept == each.kept
        assert [row[1:3] for row in rows] == [pytest.approx(one[1:], rel=1e-3) for one in each.alternatives]
        assert [row[4] for row in rows] == [one.token_id == each.token_id for one in each.alternatives]


def test_an_alternative_puts_in_the_text_that_the_tokenizer_writes(loaded):
    page = written(loaded, "The lamp", seed=5, max_new_tokens=40, temperature=2)
    texts = Texts(loaded, page.head)
    obstacles = set()
    for index, each in enumerate(page.tokens):
        for one, (text, why) in zip(each.alternatives, texts.of(page.tokens, index), strict=True):
            obstacles.add(why)
            decoded = loaded.tokenizer.decode([one.token_id])
            assert why or text == decoded
            assert not (each.is_inside and not why)
            assert bool(why) == (each.is_inside or "\ufffd" in decoded or one.token_id in loaded.stop_token_ids)
    assert {"", "part of a character"} <= obstacles


def test_special_tokens_and_ids_that_are_none_cannot_be_chosen(loaded):
    end = Alternative(loaded.tokenizer.eos_token_id, 0.5, 0.5)
    none = Alternative(10**6, 0.5, 0.5)
    page = Document(text="a", head="a", tokens=(token("", alternatives=(end, none)),))
    with pytest.raises(ValueError, match=r"^This token cannot be chosen: ends the text\.$"):
        take(loaded, page.head, page.tokens, 0, 0)
    with pytest.raises(ValueError, match=r"^This token cannot be chosen: no text\.$"):
        take(loaded, page.head, page.tokens, 0, 1)
    for index, choice in ((1, 0), (-1, 0), (0, 2), (0, -1)):
        with pytest.raises(ValueError, match="These tokens are not the text's any more"):
            take(loaded, page.head, page.tokens, index, choice)


def test_a_branch_goes_on_from_the_alternative_and_undo_brings_text_and_tokens_back(loaded):
    page = written(loaded, "The lamp", seed=5, max_new_tokens=20)
    editor = EditorState(document=page)
    texts = Texts(loaded, page.head).of(page.tokens, 7)
    choice = next(number for number, (_, why) in enumerate(texts) if not why)
    chosen = take(loaded, page.head, page.tokens, 7, choice)
    assert editor.branch(page.text, 7, chosen)
    assert editor.document.text == page.before(7) + texts[choice][0]
    assert editor.document.tokens == (*page.tokens[:7], chosen)
    assert editor.document.tokens[-1].is_chosen
    for draft in generate(loaded, editor.document.text, settings_from(seed=1, max_new_tokens=5), alternatives=10):
        editor.show(draft)
    editor.settle()
    assert editor.document.written == editor.document.text
    assert len(editor.document.tokens) == 8 + 5
    assert editor.back()
    assert editor.document == page


def test_no_branch_where_the_text_in_front_has_changed():
    page = Document(text="The lamp", head="The", tokens=(token(" l"), token("amp")), origin="The")
    assert not EditorState(document=page).branch("A lamp", 1, token("og"))
    assert not EditorState(document=page).branch("The lamp", 2, token("og"))
    editor = EditorState(document=page)
    assert editor.branch("The lamb", 1, token("og"))
    assert editor.document.text == "The log"
    assert [each.text for each in editor.past] == ["The lamb"]


@given(st.text("ab", max_size=8), st.lists(st.text("ab", max_size=3), max_size=6), st.text("ab", max_size=20))
def test_tokens_stay_as_far_as_they_match_the_text(head, texts, changed):
    page = Document(text=head + "".join(texts), head=head, tokens=tuple(map(token, texts)), origin=head)
    cut = page.cut(changed)
    assert cut.text == changed
    assert changed.startswith(cut.written)
    assert cut.tokens == page.tokens[: len(cut.tokens)]
    if cut.tokens and len(cut.tokens) < len(texts):
        assert not changed.startswith(page.before(len(cut.tokens) + 1))
    assert (cut.origin is None) == (not changed.startswith(head))


def test_a_cut_never_stands_inside_a_character():
    half, rest = token(""), token("é", is_inside=True)
    page = Document(text="café!", head="caf", tokens=(half, rest, token("!")), origin="caf")
    assert page.cut("caf").tokens == ()
    assert page.cut("café").tokens == (half, rest)


def test_retry_goes_back_to_where_the_last_go_began():
    editor = EditorState()
    assert not editor.retry("The")
    editor.begin("The")
    editor.show(Draft(text="The lamp", tokens=(token(" lamp"),)))
    editor.settle()
    editor.begin("The lamp")
    editor.show(Draft(text="The lamp burned", tokens=(token(" burned"),)))
    editor.settle()
    assert editor.retry("The lamp burned")
    assert (editor.document.text, editor.document.written, editor.rejected) == (
        "The lamp",
        "The lamp",
        "The lamp burned",
    )
    editor.settle()
    assert editor.document.text == "The lamp burned"
    assert editor.retry("The lamp burned, by hand")
    assert editor.document.text == "The lamp"
    editor.show(Draft(text="The lamp fell", tokens=(token(" fell"),)))
    editor.settle()
    assert editor.back()
    assert (editor.document.text, editor.document.written) == ("The lamp burned, by hand", "The lamp burned")
    assert [page.text for page in editor.past] == ["", "The", "The lamp"][1:]


def test_one_go_at_a_time():
    editor = EditorState()
    assert editor.begin("a")
    assert not editor.begin("a")
    assert not editor.retry("a")
    assert not editor.back()
    assert not editor.turn("a", "")
    assert len(editor.past) == 1
    assert not editor.settle()
    assert editor.past == []


def test_what_a_visitor_costs_is_bounded():
    editor = EditorState()
    for number in range(2 * HISTORY):
        editor.begin("a" * number)
        editor.show(Draft(text="a" * number + "b" * 600, tokens=(token("b"),) * 600))
        editor.settle()
        editor.begin(editor.document.text)
        editor.show(Draft(text=editor.document.text + "b" * 600, tokens=(token("b"),) * 600))
        editor.settle()
        assert editor.document.written == editor.document.text
    assert len(editor.past) == HISTORY
    assert sum(bool(page.tokens) for page in editor.past) <= TOKEN_HISTORY
    assert max(len(page.tokens) for page in editor.past) <= LIMIT + 600
    assert editor.document.begin_generation().written == editor.document.text
    assert len(editor.document.begin_generation().tokens) == LIMIT


def test_a_rest_of_a_character_belongs_to_the_last_token():
    editor = EditorState()
    editor.begin("a")
    editor.show(Draft(text="a", tokens=(token(""),)))
    editor.show(Draft(text="a\ufffd", rest="\ufffd", ending="length"))
    assert [each.text for each in editor.document.tokens] == ["\ufffd"]
    assert dataclasses.replace(editor.document, tokens=()).written == "a"
