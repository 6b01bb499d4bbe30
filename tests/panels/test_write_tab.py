"""What the Write tab answers to its visitors' events, without a page."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from panels.context import AppContext
from panels.models import ModelLoader, find_model
from panels.sampling import DEFAULTS
from panels.tabs.write.editor import EditorState
from panels.tabs.write.memorization import render_note
from panels.tabs.write.tab import (
    ask_to_stop,
    begin,
    branch,
    insert_token,
    replace_text,
    retry_generation,
    settle,
    undo_last,
    write_at,
)
from tests.panels.tiny_model import save_run

SKIPPED = gr.skip()
SETTINGS = DEFAULTS | {"max_new_tokens": 12}


@pytest.fixture(scope="module")
def context(checkpoint: Path) -> AppContext:
    """The tiny model's lab, loaded."""
    loader = ModelLoader(find_model(checkpoint)).start()
    loader.wait()
    return AppContext(loader=loader)


def go(context: AppContext, editor: EditorState, seed: Any = 1) -> list[list[Any]]:
    """Write what the desk got ready for, and settle it; all answers."""
    return [*write_at(context, editor, seed, "", *SETTINGS.values()), settle(context, editor)]


def names(answer: list[Any]) -> list[tuple[Any, bool]]:
    """Label and whether it can be pressed, of each button."""
    return [(button.value, button.interactive) for button in answer[5:]]


def test_a_go_from_begin_to_settle(context):
    editor = EditorState()
    answer = begin(context, editor, "The lamp")
    assert answer[0] == "The lamp"
    assert [pressable for _, pressable in names(answer)] == [False, True, False, False, False]
    *drafts, last = go(context, editor)
    assert all(later[2].startswith(earlier[2]) for earlier, later in zip(drafts, drafts[1:], strict=False))
    assert last[0] == editor.document.text == drafts[-1][0]
    assert last[2].count('class="token') == len(editor.document.tokens) == 12
    assert "12 tokens" in drafts[-1][1]
    assert names(last)[0] == ("Continue", True)
    assert [pressable for _, pressable in names(last)] == [True, False, True, True, True]


def test_what_did_not_begin_leaves_the_text_alone(context):
    editor = EditorState()
    assert list(write_at(context, editor, 1, "", *SETTINGS.values())) == []
    assert settle(context, editor)[:5] == [SKIPPED] * 5
    assert ask_to_stop(context, editor)[:5] == [SKIPPED] * 5
    assert retry_generation(context, editor, "The lamp")[:5] == [SKIPPED] * 5
    assert undo_last(context, editor)[:5] == [SKIPPED] * 5


@pytest.mark.parametrize(("seed", "message"), [("dice", "seed: expected a whole number"), (-1, "seed: expected")])
def test_a_wrong_setting_is_told_and_the_text_and_its_tokens_stay(context, seed, message):
    editor = EditorState()
    begin(context, editor, "The lamp")
    go(context, editor)
    page = editor.document
    begin(context, editor, page.text + " by hand")
    last = go(context, editor, seed)[-1]
    assert message in last[1]
    assert last[0] == page.text + " by hand"
    assert editor.document.tokens == page.tokens
    assert len(editor.past) == 1


def test_retry_says_when_the_text_is_the_same(context):
    editor = EditorState()
    begin(context, editor, "The lamp")
    go(context, editor, seed=3)
    first = editor.document.text
    retry_generation(context, editor, first)
    assert "The same text again. Another seed" in go(context, editor, seed=3)[-2][1]
    assert editor.document.text == first
    retry_generation(context, editor, first)
    assert "The same text" not in go(context, editor, seed=4)[-2][1]
    assert editor.document.text != first


def test_a_branch_is_written_on_or_refused_with_a_reason(context):
    editor = EditorState()
    begin(context, editor, "The lamp")
    go(context, editor)
    text, before = editor.document.text, editor.document.before(1)
    for token, choice in ((99, 0), (0, 10), (-1, 0)):
        answer = branch(context, editor, text, SimpleNamespace(token=token, choice=choice))
        assert "These tokens are not the text&#39;s any more." in answer[1]
    answer = branch(context, editor, text, SimpleNamespace(token="x", choice=0))
    assert "token: expected a whole number, got &#39;x&#39;." in answer[1]
    texts = [branch(context, editor, "A" + text, SimpleNamespace(token=1, choice=choice))[1] for choice in range(10)]
    assert any("The text has changed in front of this token" in each for each in texts)
    assert editor.stage == "idle"
    answers = (branch(context, editor, text, SimpleNamespace(token=1, choice=choice)) for choice in range(10))
    begun = next(answer for answer in answers if editor.stage == "waiting")
    assert begun[0].startswith(before)
    assert begun[3] == ""
    assert "chosen" in go(context, editor)[-1][2]
    assert undo_last(context, editor)[0] == text


def test_a_token_by_hand_and_a_new_page_can_be_undone(context):
    editor = EditorState()
    answer = insert_token(
        context, editor, "The lamp", SimpleNamespace(token=context.loader.wait().tokenizer.encode_ordinary(" ")[0])
    )
    assert answer[0] == "The lamp "
    assert "no token" in insert_token(context, editor, "The lamp ", SimpleNamespace(token=10**6))[1]
    assert replace_text(context, editor, "The lamp ", "She")[0] == "She"
    assert replace_text(context, editor, "She")[0] == ""
    assert [undo_last(context, editor)[0] for _ in range(3)] == ["She", "The lamp ", "The lamp"]


def test_the_page_goes_on_writing_when_the_folder_of_its_model_is_gone(tmp_path):
    run = save_run(tmp_path / "run")
    loader = ModelLoader(find_model(run)).start()
    loader.wait()
    context, editor = AppContext(loader=loader, home=tmp_path), EditorState()
    shutil.rmtree(run)
    assert begin(context, editor, "The lamp")[0] == "The lamp"
    *_, draft, last = go(context, editor)
    assert "12 tokens" in draft[1]
    assert last[2].count('class="token') == 12
    assert last[3]
    assert render_note(context, editor.document) == ""
    first = editor.document.text
    retry_generation(context, editor, first)
    assert go(context, editor, seed=2)[-1][0] != first
    assert undo_last(context, editor)[0] == first
    space = context.loader.wait().tokenizer.encode_ordinary(" ")[0]
    assert insert_token(context, editor, first, SimpleNamespace(token=space))[0] == first + " "
    assert begin(context, editor, first + " ")[0] == first + " "
    longer = go(context, editor)[-1][0]
    assert longer.startswith(first + " ")
    assert len(longer) > len(first) + 1
