"""How a comparison waits for its turn and its models, and what it says when they cannot be had."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from panels.context import Lab
from panels.model_cache import OWN, Shelf
from panels.models import ModelLoader, find_model
from panels.request_queue import Line
from panels.sampling import settings_from
from panels.tabs.compare import tab as compare
from panels.tabs.compare.comparison import Comparison, Side
from panels.tabs.compare.tab import Bench, SideTroubleError, comparisons
from tests.panels.tiny_model import PROMPTS, save_checkpoint

BOTH = (settings_from(seed=1, max_new_tokens=10), settings_from(seed=1, max_new_tokens=10, temperature=1.5))


@pytest.fixture
def lab(checkpoint: Path, tmp_path: Path) -> Lab:
    """A page of the tiny model, and a bundle beside it."""
    loader = ModelLoader(find_model(checkpoint)).start()
    loader.wait()
    save_checkpoint(tmp_path / "bundle")
    return Lab(loader=loader, home=tmp_path, is_public=False, line=Line(width=1, limit=2))


@pytest.fixture
def line() -> Line:
    """The line of those who compare."""
    return Line(width=1, limit=2)


def run(lab: Lab, line: Line, choices: tuple[str, str] = (OWN, "bundle"), **options: Any) -> Iterator[Any]:
    """What the page is told."""
    should_stop = options.get("should_stop", lambda: False)
    return comparisons(lab, Shelf(lab), line, PROMPTS[0], choices, BOTH, should_stop)


def test_the_models_are_loaded_and_compared(lab, line):
    *said, last = run(lab, line)
    assert said[:2] == ["Loading model A …", "Loading model B …"]
    other = Shelf(lab).take("bundle")
    sides = (Side(loaded=lab.loader.wait(), settings=BOTH[0]), Side(loaded=other, settings=BOTH[1]))
    assert isinstance(last, Comparison)
    assert last == list(compare.compare(*sides, PROMPTS[0]))[-1]
    assert lab.line.enter().wait(0) == 0  # both lines are free again
    assert line.enter().wait(0) == 0


@pytest.mark.parametrize("which", ["those who compare", "all who write"])
def test_it_waits_in_both_lines_and_stop_leaves_them(lab, line, which):
    place = (line if which == "those who compare" else lab.line).enter()
    stop: list[bool] = []
    said = run(lab, line, should_stop=lambda: bool(stop))
    assert next(said) == "Waiting: 1 person is before you."
    stop.append(True)
    began = time.monotonic()
    assert list(said) == []
    assert time.monotonic() - began < 0.2
    place.__exit__(None, None, None)
    assert isinstance(list(run(lab, line))[-1], Comparison)


def test_a_full_line_is_told(lab, line):
    line.enter(), line.enter()
    with pytest.raises(ValueError, match="Too many people at once"):
        next(run(lab, line))


def test_a_side_without_a_model_is_named_and_the_line_is_left(lab, line):
    shutil.rmtree(lab.home / "bundle")
    with pytest.raises(SideTroubleError, match="there is no folder bundle") as caught:
        list(run(lab, line))
    assert caught.value.side == 1
    with pytest.raises(SideTroubleError, match="No model is chosen") as caught:
        list(run(lab, line, choices=("", OWN)))
    assert caught.value.side == 0
    assert isinstance(list(run(lab, line, choices=(OWN, OWN)))[-1], Comparison)


def test_stop_does_not_wait_for_a_model_that_is_loading(lab, line, monkeypatch):
    may_end = threading.Event()
    monkeypatch.setattr(Shelf, "take", lambda shelf, choice: may_end.wait(10))
    stop: list[bool] = []
    said = run(lab, line, should_stop=lambda: bool(stop))
    assert next(said) == "Loading model A …"
    timer = threading.Timer(0.1, lambda: stop.append(True))
    timer.start()
    began = time.monotonic()
    assert list(said) == []
    assert time.monotonic() - began < 1.0
    may_end.set()
    timer.join()


def test_on_zerogpu_the_model_is_called_where_the_gpu_is(lab, line, monkeypatch):
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    *said, last = run(lab, line, choices=(OWN, OWN))
    assert said[-1] == "Writing both; they come when they are done …"
    own = lab.loader.wait()
    assert last == list(compare.compare(*(Side(loaded=own, settings=each) for each in BOTH), PROMPTS[0]))[-1]


def test_the_buttons_follow(lab):
    bench = Bench(stop=True)
    status, go, stop = compare.begin(bench, lab)
    assert "Getting ready" in status
    assert (bench.stop, go.interactive, stop.interactive) == (False, False, True)
    compare.ask_to_stop(bench)
    assert bench.stop
    go, stop, *fields = compare.settle(bench, Shelf(lab))
    assert [field["choices"] for field in fields] == [Shelf(lab).choices()] * 2
    assert (go.interactive, stop.interactive) == (True, False)


def test_what_is_known_of_a_choice(lab):
    shelf = Shelf(lab)
    assert "context 48 tokens" in compare.describe(shelf, "bundle")
    assert "Looked up on the Hub" in compare.describe(shelf, "someone/model")
    trouble = compare.describe(shelf, "<img src=x>/y/z")
    assert 'role="alert"' in trouble
    assert "<img" not in trouble
    assert compare.earliest(shelf) == "bundle"
