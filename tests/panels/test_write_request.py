"""What the server answers to the Write tab's page: lines that only grow, and which stand for one text."""

import contextlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from panels.context import AppContext
from panels.generate import generate
from panels.models import ModelLoader, find_model
from panels.sampling import DEFAULTS, settings_from
from panels.tabs.write.request import Request, answer
from panels.tabs.write.tab import Visitor, ask_to_stop, continue_text, note_of
from tests.panels.tiny_model import save_run

SETTINGS = DEFAULTS | {"max_new_tokens": 12}


@pytest.fixture(scope="module")
def context(checkpoint: Path) -> AppContext:
    """The tiny model's page, loaded."""
    loader = ModelLoader(find_model(checkpoint)).start()
    loader.wait()
    return AppContext(loader=loader)


def ask(text: str, rejected: str | None = None, number: int = 7) -> Request:
    return Request(number=number, text=text, rejected=rejected)


def answers(context: AppContext, request: Request, seed: Any = 1, stop: str = "") -> list[tuple[str, str]]:
    return list(answer(context, request, seed, stop, *SETTINGS.values()))


def lines(answered: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answered[-1][0].splitlines()]


@pytest.mark.parametrize("text", ["The lamp", "", "é\ud800", "The lamp " * 30])
def test_the_lines_only_grow_and_stand_for_the_text(context, text):
    answered = answers(context, ask(text))
    for (earlier, _), (later, _) in zip(answered, answered[1:], strict=False):
        assert later.startswith(earlier)
        assert earlier.endswith("\n")
    first, *drafts, last = lines(answered)
    assert first == {"number": 7}
    assert last == {"end": "length"}
    *_, expected = generate(context.loader.wait(), text, settings_from(**SETTINGS, seed=1))
    assert text.replace("\ud800", "\ufffd") + "".join(draft["text"] for draft in drafts) == expected.text
    assert sum(len(draft["tokens"]) for draft in drafts) == 12
    assert (drafts[0]["vocabulary"], drafts[0]["model"], drafts[0]["seed"]) == (320, "tiny", 1)
    assert all("vocabulary" not in draft for draft in drafts[1:])
    assert "12 tokens" in answered[-1][1]


def test_the_text_of_a_stopped_request_is_cut_and_ends(context):
    request = ask("The lamp")
    running = answer(context, request, 1, "", *(SETTINGS | {"max_new_tokens": 5000}).values())
    visitor = Visitor(request=request)
    next(running)
    next(running)
    ask_to_stop(visitor)
    assert lines(list(running))[-1] == {"end": "stopped"}
    ask_to_stop(Visitor())


def test_a_request_that_is_stopped_before_its_turn_writes_nothing(context):
    request = ask("The lamp")
    request.stop = True
    answered = answers(context, request)
    assert lines(answered) == [{"number": 7}, {"end": "nothing"}]
    assert "Nothing was written." in answered[-1][1]


def test_a_request_that_is_stopped_in_the_queue_says_so(context):
    queue = context.writing
    with contextlib.ExitStack() as others:
        for _ in range(queue.workers):
            others.enter_context(queue.join())
        request = ask("The lamp")
        running = answer(context, request, 1, "", *SETTINGS.values())
        next(running)
        assert "Waiting: 1 request is ahead of yours." in next(running)[1]
        request.stop = True
        answered = list(running)
    assert lines(answered)[-1] == {"end": "nothing"}
    assert "Nothing was written." in answered[-1][1]


@pytest.mark.parametrize(("seed", "message"), [("dice", "seed: expected a whole number"), (-1, "seed: expected")])
def test_a_wrong_setting_is_told_and_writes_nothing(context, seed, message):
    answered = answers(context, ask("The lamp"), seed)
    assert lines(answered) == [{"number": 7}, {"end": "trouble"}]
    assert message in answered[-1][1]


def test_a_retry_says_when_the_text_is_the_same(context):
    drafts = lines(answers(context, ask("The lamp"), 3))[1:-1]
    text = "The lamp" + "".join(draft["text"] for draft in drafts)
    assert "The same text again. Another seed" in answers(context, ask("The lamp", text), 3)[-1][1]
    assert "The same text" not in answers(context, ask("The lamp", text), 4)[-1][1]


def test_one_request_of_a_visitor_ends_the_other(context):
    visitor, event = Visitor(), SimpleNamespace(number=1, text="The lamp", rejected=None)
    running = continue_text(context, visitor, event, 1, "", *(SETTINGS | {"max_new_tokens": 5000}).values())
    next(running)
    next(running)
    other = continue_text(context, visitor, SimpleNamespace(number=2, text="She"), 1, "", *SETTINGS.values())
    assert next(other)[0] == '{"number":2}\n'
    assert lines(list(running))[-1] == {"end": "stopped"}
    assert lines(list(other))[-1] == {"end": "length"}


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"number": "x", "text": "a"}, "number: expected a whole number, got 'x'."),
        ({"number": 1, "text": 5}, "text: expected text, got int."),
        ({"number": 1, "text": "a", "rejected": []}, "rejected: expected text, got list."),
    ],
)
def test_a_request_that_no_page_sends_is_refused(context, event, message):
    with pytest.raises(gr.Error, match=message.replace(".", r"\.")):
        next(continue_text(context, Visitor(), SimpleNamespace(**event), 1, "", *SETTINGS.values()))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ("abc", "tokens: expected at most 10,000 pairs"),
        ([1, 2], "tokens: expected pairs of id and text."),
        ([[1]], "tokens: expected pairs of id and text."),
        ([["x", "a"]], "token: expected a whole number"),
        ([[1, 2]], "text: expected text, got int."),
        ([[1, "a"]] * 10_001, "tokens: expected at most 10,000 pairs"),
    ],
)
def test_tokens_that_are_none_are_told(context, tokens, message):
    assert message in note_of(context, SimpleNamespace(tokens=tokens)).replace("&#39;", "'")


def test_the_page_goes_on_writing_when_the_folder_of_its_model_is_gone(tmp_path):
    run = save_run(tmp_path / "run")
    loader = ModelLoader(find_model(run)).start()
    loader.wait()
    context = AppContext(loader=loader, home=tmp_path)
    shutil.rmtree(run)
    *_, (last, status) = answers(context, ask("The lamp"))
    assert "12 tokens" in status
    tokens = [row for line in last.splitlines()[1:-1] for row in json.loads(line)["tokens"]]
    assert len(tokens) == 12
    assert note_of(context, SimpleNamespace(tokens=[[1, "a"]] * 100)) == ""
