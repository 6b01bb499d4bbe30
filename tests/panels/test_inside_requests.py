"""A request of the Inside tab, from its first answer to its last: its turn, Stop, a full queue, where it computes."""

import threading
from typing import Any

import gradio as gr
import pytest

from modeling import inspection
from modeling.generation import StoppedError
from panels.context import AppContext
from panels.models import LoadedModel, ModelLoader
from panels.request_queue import LatestRequest, RequestQueue
from panels.tabs.inside import tab as inside
from panels.tabs.inside.analysis import surprisal
from tests.panels.tiny_model import TEXT


def shown(context: AppContext, text: str, view: str) -> list[Any]:
    """Status and result in the end; the answers before it are words, and Stop can be pressed until it is over."""
    *before, last = inside.run_analysis(context, LatestRequest(), text, view)
    assert [answer[1] for answer in before] == [gr.skip()] * len(before)
    assert (before[0][2].interactive, last[2].interactive) == (True, False)
    return last[:2]


@pytest.fixture
def context(loaded: LoadedModel) -> AppContext:
    """A page with a queue of two, its model loaded."""
    loader = ModelLoader(loaded.source)
    loader.start().wait(60)
    return AppContext(loader=loader, queue=RequestQueue(workers=1, limit=2))


def test_an_answer_of_a_model_that_was_replaced_meanwhile_is_not_shown(
    context: AppContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def switched(*_: Any) -> str:
        context.version += 1
        return "what another model has said"

    monkeypatch.setattr(inside, "analyse", switched)
    status, result = shown(context, "The lamp", inside.LENS)
    assert "model was changed" in status
    assert result == ""
    assert len(context.queue) == 0


def test_a_request_waits_for_its_turn_and_shows_how_many_are_ahead(context: AppContext) -> None:
    with context.queue.join():
        answers = inside.run_analysis(context, LatestRequest(), "The lamp", inside.LENS)
        assert "Analysing" in next(answers)[0]
        assert "Waiting: 1 request is ahead of yours." in next(answers)[0]
    status, result, stop = list(answers)[-1]
    assert "Ready." in status
    assert 'class="lens' in result
    assert not stop.interactive


def test_stop_and_a_newer_request_leave_the_queue(context: AppContext) -> None:
    visitor = LatestRequest()

    def press_stop() -> list[Any]:
        return inside.ask_to_stop(visitor)

    with context.queue.join():
        for leave in (press_stop, lambda: next(inside.run_analysis(context, visitor, "x", inside.SURPRISE))):
            answers = inside.run_analysis(context, visitor, "The lamp", inside.SURPRISE)
            next(answers)
            assert "Waiting" in next(answers)[0]
            leave()
            (last,) = answers
            assert ("Stopped." in last[0]) == (leave is press_stop)
            assert len(context.queue) == 1
    assert last == [gr.skip()] * 3  # the newer request answers
    status, result, stop = inside.ask_to_stop(visitor)
    assert "Stopped." in status
    assert (result, stop.interactive) == (gr.skip(), False)


def test_a_full_queue_is_an_error_and_the_page_works_on(context: AppContext) -> None:
    with context.queue.join(), context.queue.join():
        status, result = shown(context, "The lamp", inside.SURPRISE)
        assert "The request queue is full" in status
        assert result == ""
        with pytest.raises(gr.Error, match="The request queue is full"):
            inside.endpoints(context)["surprise"]("The lamp")
    assert "got 100,000" in shown(context, "x" * 100_000, inside.SURPRISE)[0]  # the queue is left after an error
    assert 'class="surprisal' in shown(context, "The lamp", inside.SURPRISE)[1]
    assert len(context.queue) == 0


def test_the_api_takes_its_turn(context: AppContext) -> None:
    found: list[Any] = []
    asking = threading.Thread(target=lambda: found.append(inside.endpoints(context)["next_token"]("The lamp", 3)))
    with context.queue.join():
        asking.start()
        asking.join(0.3)
        assert found == []
    asking.join(20)
    assert len(found[0]) == 3
    assert len(context.queue) == 0


def test_stop_ends_a_long_request_between_two_passes(context: AppContext, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    with pytest.raises(StoppedError):
        surprisal(context.loader.wait(), TEXT * 3, should_stop=lambda: bool(asked) or bool(asked.append(1)))
    visitor = LatestRequest()
    scored = inspection._scored
    monkeypatch.setattr(inspection, "_scored", lambda *each: (visitor.stop(), scored(*each))[1])
    answers = inside.run_analysis(context, visitor, TEXT * 3, inside.SURPRISE)
    assert "Analysing" in next(answers)[0]
    assert "Stopped." in list(answers)[-1][0]
