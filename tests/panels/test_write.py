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
from panels.tabs.write.editor import Desk
from panels.tabs.write.memorization import render_note
from panels.tabs.write.tab import (
    ask_to_stop,
    begin,
    branch,
    go_back,
    put_down,
    settle,
    turn_page,
    write_again,
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


def go(context: AppContext, desk: Desk, seed: Any = 1) -> list[list[Any]]:
    """Write what the desk got ready for, and settle it; all answers."""
    return [*write_at(context, desk, seed, "", SETTINGS), settle(context, desk)]


def names(answer: list[Any]) -> list[tuple[Any, bool]]:
    """Label and whether it can be pressed, of each button."""
    return [(button.value, button.interactive) for button in answer[5:]]


def test_a_go_from_begin_to_settle(context):
    desk = Desk()
    answer = begin(context, desk, "The lamp")
    assert answer[0] == "The lamp"
    assert [pressable for _, pressable in names(answer)] == [False, True, False, False, False]
    *drafts, last = go(context, desk)
    assert all(later[2].startswith(earlier[2]) for earlier, later in zip(drafts, drafts[1:], strict=False))
    assert last[0] == desk.page.text == drafts[-1][0]
    assert last[2].count('class="token') == len(desk.page.tokens) == 12
    assert "12 tokens" in drafts[-1][1]
    assert names(last)[0] == ("Continue", True)
    assert [pressable for _, pressable in names(last)] == [True, False, True, True, True]


def test_what_did_not_begin_leaves_the_text_alone(context):
    desk = Desk()
    assert list(write_at(context, desk, 1, "", SETTINGS)) == []
    assert settle(context, desk)[:5] == [SKIPPED] * 5
    assert ask_to_stop(context, desk)[:5] == [SKIPPED] * 5
    assert write_again(context, desk, "The lamp")[:5] == [SKIPPED] * 5
    assert go_back(context, desk)[:5] == [SKIPPED] * 5


@pytest.mark.parametrize(("seed", "message"), [("dice", "seed: expected a whole number"), (-1, "seed: expected")])
def test_a_wrong_setting_is_told_and_the_text_and_its_canvas_stay(context, seed, message):
    desk = Desk()
    begin(context, desk, "The lamp")
    go(context, desk)
    page = desk.page
    begin(context, desk, page.text + " by hand")
    last = go(context, desk, seed)[-1]
    assert message in last[1]
    assert last[0] == page.text + " by hand"
    assert desk.page.tokens == page.tokens
    assert len(desk.past) == 1


def test_retry_says_when_the_text_is_the_same(context):
    desk = Desk()
    begin(context, desk, "The lamp")
    go(context, desk, seed=3)
    first = desk.page.text
    write_again(context, desk, first)
    assert "The same text again. Another seed" in go(context, desk, seed=3)[-2][1]
    assert desk.page.text == first
    write_again(context, desk, first)
    assert "The same text" not in go(context, desk, seed=4)[-2][1]
    assert desk.page.text != first


def test_a_branch_is_written_on_or_refused_with_a_reason(context):
    desk = Desk()
    begin(context, desk, "The lamp")
    go(context, desk)
    text, before = desk.page.text, desk.page.before(1)
    for token, choice in ((99, 0), (0, 10), (-1, 0)):
        answer = branch(context, desk, text, SimpleNamespace(token=token, choice=choice))
        assert "These tokens are not the text&#39;s any more." in answer[1]
    answer = branch(context, desk, text, SimpleNamespace(token="x", choice=0))
    assert "token: expected a whole number, got &#39;x&#39;." in answer[1]
    texts = [branch(context, desk, "A" + text, SimpleNamespace(token=1, choice=choice))[1] for choice in range(10)]
    assert any("The text has changed in front of this token" in each for each in texts)
    assert desk.stage == "idle"
    answers = (branch(context, desk, text, SimpleNamespace(token=1, choice=choice)) for choice in range(10))
    begun = next(answer for answer in answers if desk.stage == "waiting")
    assert begun[0].startswith(before)
    assert begun[3] == ""
    assert "chosen" in go(context, desk)[-1][2]
    assert go_back(context, desk)[0] == text


def test_a_token_by_hand_and_a_new_page_can_be_undone(context):
    desk = Desk()
    answer = put_down(
        context, desk, "The lamp", SimpleNamespace(token=context.loader.wait().tokenizer.encode_ordinary(" ")[0])
    )
    assert answer[0] == "The lamp "
    assert "no token" in put_down(context, desk, "The lamp ", SimpleNamespace(token=10**6))[1]
    assert turn_page(context, desk, "The lamp ", "She")[0] == "She"
    assert turn_page(context, desk, "She")[0] == ""
    assert [go_back(context, desk)[0] for _ in range(3)] == ["She", "The lamp ", "The lamp"]


def test_the_page_goes_on_writing_when_the_folder_of_its_model_is_gone(tmp_path):
    run = save_run(tmp_path / "run")
    loader = ModelLoader(find_model(run)).start()
    loader.wait()
    context, desk = AppContext(loader=loader, home=tmp_path), Desk()
    shutil.rmtree(run)
    assert begin(context, desk, "The lamp")[0] == "The lamp"
    *_, draft, last = go(context, desk)
    assert "12 tokens" in draft[1]
    assert last[2].count('class="token') == 12
    assert last[3]
    assert render_note(context, desk.page) == ""
    first = desk.page.text
    write_again(context, desk, first)
    assert go(context, desk, seed=2)[-1][0] != first
    assert go_back(context, desk)[0] == first
    space = context.loader.wait().tokenizer.encode_ordinary(" ")[0]
    assert put_down(context, desk, first, SimpleNamespace(token=space))[0] == first + " "
    assert begin(context, desk, first + " ")[0] == first + " "
    longer = go(context, desk)[-1][0]
    assert longer.startswith(first + " ")
    assert len(longer) > len(first) + 1
