"""A look of the Inside tab, from its first answer to its last: its turn, Stop, a full line, and where it computes."""

import threading
import time
from typing import Any

import gradio as gr
import pytest

from modeling import inspection
from modeling.generation import StoppedError
from panels.context import Lab
from panels.models import LoadedModel, ModelLoader
from panels.request_queue import Line, Visitor
from panels.tabs.inside import analysis as looking
from panels.tabs.inside import tab as inside
from tests.panels.tiny_model import TEXT


def shown(lab: Lab, text: str, view: str) -> list[Any]:
    """Status and result in the end; the answers before it are words, and Stop can be pressed until it is over."""
    *before, last = inside.show(lab, Visitor(), text, view)
    assert [answer[1] for answer in before] == [gr.skip()] * len(before)
    assert (before[0][2].interactive, last[2].interactive) == (True, False)
    return last[:2]


@pytest.fixture
def lab(loaded: LoadedModel) -> Lab:
    """A page with a line of two places, its model loaded."""
    loader = ModelLoader(loaded.source)
    loader.start().wait(60)
    return Lab(loader=loader, line=Line(width=1, limit=2))


def test_a_look_waits_for_its_turn_and_says_how_many_are_before(lab: Lab) -> None:
    other = lab.line.enter()
    answers = inside.show(lab, Visitor(), "The lamp", inside.LENS)
    assert "Looking" in next(answers)[0]
    assert "Waiting: 1 person is before you." in next(answers)[0]
    other.__exit__(None, None, None)
    status, result, stop = list(answers)[-1]
    assert "Ready." in status
    assert 'class="lens' in result
    assert not stop.interactive


def test_stop_and_a_newer_look_leave_the_line(lab: Lab) -> None:
    visitor = Visitor()

    def press_stop() -> list[Any]:
        return inside.ask_to_stop(visitor)

    with lab.line.enter():
        for leave in (press_stop, lambda: next(inside.show(lab, visitor, "x", inside.SURPRISE))):
            answers = inside.show(lab, visitor, "The lamp", inside.SURPRISE)
            next(answers)
            assert "Waiting" in next(answers)[0]
            leave()
            began = time.monotonic()
            (last,) = answers
            assert ("Stopped." in last[0]) == (leave is press_stop)
            assert time.monotonic() - began < 0.2
            assert len(lab.line._places) == 1
    assert last == [gr.skip()] * 3  # the newer look speaks
    status, result, stop = inside.ask_to_stop(visitor)
    assert "Stopped." in status
    assert (result, stop.interactive) == (gr.skip(), False)


def test_a_full_line_is_told_and_the_page_goes_on(lab: Lab) -> None:
    with lab.line.enter(), lab.line.enter():
        status, result = shown(lab, "The lamp", inside.SURPRISE)
        assert "Too many people at once" in status
        assert result == ""
        with pytest.raises(gr.Error, match="Too many people at once"):
            inside.endpoints(lab)["surprise"]("The lamp")
    assert "got 100,000" in shown(lab, "x" * 100_000, inside.SURPRISE)[0]  # the line is left after an error
    assert 'class="reading' in shown(lab, "The lamp", inside.SURPRISE)[1]
    assert lab.line._places == []


def test_the_api_takes_its_turn(lab: Lab) -> None:
    other = lab.line.enter()
    found: list[Any] = []
    asking = threading.Thread(target=lambda: found.append(inside.endpoints(lab)["next_token"]("The lamp", 3)))
    asking.start()
    asking.join(0.3)
    assert found == []
    other.__exit__(None, None, None)
    asking.join(20)
    assert len(found[0]) == 3
    assert lab.line._places == []


def test_stop_ends_a_long_look_between_two_passes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    with pytest.raises(StoppedError):
        looking.surprise(lab.loader.wait(), TEXT * 3, should_stop=lambda: bool(asked) or asked.append(1))
    visitor = Visitor()
    scored = inspection._scored
    monkeypatch.setattr(inspection, "_scored", lambda *each: (visitor.stop(), scored(*each))[1])
    answers = inside.show(lab, visitor, TEXT * 3, inside.SURPRISE)
    assert "Looking" in next(answers)[0]
    assert "Stopped." in list(answers)[-1][0]


def test_on_zerogpu_nothing_goes_along_that_cannot_travel(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    named: list[dict[str, Any]] = []
    call = lab.loader._call
    monkeypatch.setattr(lab.loader, "_call_on_gpu", lambda *each, **more: (named.append(more), call(*each, **more))[1])
    assert "reading" in shown(lab, "The lamp", inside.SURPRISE)[1]
    assert named == [{}]
