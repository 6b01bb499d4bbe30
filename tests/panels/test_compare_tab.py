"""How a comparison waits for its turn and its models, and what it says when they cannot be had."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from panels.context import AppContext
from panels.model_cache import OWN, ModelCache
from panels.models import ModelLoader, find_model
from panels.request_queue import RequestQueue
from panels.sampling import CAREFUL, WILD, settings_from
from panels.tabs.compare import tab as compare
from panels.tabs.compare.comparison import Comparison, Side
from panels.tabs.compare.tab import CompareState, Names, SideTroubleError, comparisons
from tests.panels.tiny_model import PROMPTS, save_checkpoint, save_run

BOTH = (settings_from(seed=1, max_new_tokens=10), settings_from(seed=1, max_new_tokens=10, temperature=1.5))


@pytest.fixture
def context(checkpoint: Path, tmp_path: Path) -> AppContext:
    """A page of the tiny model, and a bundle beside it."""
    loader = ModelLoader(find_model(checkpoint)).start()
    loader.wait()
    save_checkpoint(tmp_path / "bundle")
    return AppContext(loader=loader, home=tmp_path, is_public=False, queue=RequestQueue(workers=1, limit=2))


@pytest.fixture
def line() -> RequestQueue:
    """The line of those who compare."""
    return RequestQueue(workers=1, limit=2)


def run(
    context: AppContext, line: RequestQueue, choices: tuple[str, str] = (OWN, "bundle"), **options: Any
) -> Iterator[Any]:
    """What the page is told."""
    should_stop = options.get("should_stop", lambda: False)
    return comparisons(context, ModelCache(context), line, PROMPTS[0], choices, BOTH, should_stop)


def test_the_models_are_loaded_and_compared(context, line):
    *said, last = run(context, line)
    assert said[:3] == ["Loading model A …", "Loading model B …", Names(context.source.name, "Bundle bundle")]
    other = ModelCache(context).get("bundle")
    sides = (Side(loaded=context.loader.wait(), settings=BOTH[0]), Side(loaded=other, settings=BOTH[1]))
    assert isinstance(last, Comparison)
    assert last == list(compare.compare(*sides, PROMPTS[0]))[-1]
    assert len(context.queue) == len(line) == 0


@pytest.mark.parametrize("which", ["those who compare", "all who write"])
def test_it_waits_in_both_lines_and_stop_leaves_them(context, line, which):
    place = (line if which == "those who compare" else context.queue).join()
    place.__enter__()
    stop: list[bool] = []
    said = run(context, line, should_stop=lambda: bool(stop))
    assert next(said) == "Waiting: 1 request is ahead of yours."
    stop.append(True)
    assert list(said) == []
    place.__exit__(None, None, None)
    assert isinstance(list(run(context, line))[-1], Comparison)


def test_the_models_are_named_when_they_are_taken(context, line):
    said, before = run(context, line, choices=(OWN, "bundle")), context.source.name
    with line.join():
        assert next(said) == "Waiting: 1 request is ahead of yours."
        context.switch(find_model(save_checkpoint(context.home / "other")))
    assert context.source.name != before
    assert Names(context.source.name, "Bundle bundle") in list(said)


def test_a_full_line_is_told(context, line):
    with line.join(), line.join(), pytest.raises(ValueError, match="The request queue is full"):
        next(run(context, line))


def test_a_side_without_a_model_is_named_and_the_line_is_left(context, line):
    shutil.rmtree(context.home / "bundle")
    with pytest.raises(SideTroubleError, match="there is no folder bundle") as caught:
        list(run(context, line))
    assert caught.value.side == 1
    with pytest.raises(SideTroubleError, match="No model is chosen") as caught:
        list(run(context, line, choices=("", OWN)))
    assert caught.value.side == 0
    assert isinstance(list(run(context, line, choices=(OWN, OWN)))[-1], Comparison)


def test_stop_does_not_wait_for_a_model_that_is_loading(context, line, monkeypatch):
    may_end = threading.Event()
    monkeypatch.setattr(ModelCache, "get", lambda cache, choice: may_end.wait(120))
    stop: list[bool] = []
    said = run(context, line, should_stop=lambda: bool(stop))
    assert next(said) == "Loading model A …"
    timer = threading.Timer(0.1, lambda: stop.append(True))
    timer.start()
    assert list(said) == []
    assert not may_end.is_set()
    may_end.set()
    timer.join()


def test_on_zerogpu_the_model_is_called_where_the_gpu_is(context, line, monkeypatch):
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    *said, last = run(context, line, choices=(OWN, OWN))
    assert said[-1] == "Writing both; they come when they are done …"
    own = context.loader.wait()
    one, other = (Side(loaded=own, settings=each) for each in BOTH)
    assert last == list(compare.compare(one, other, PROMPTS[0]))[-1]


def test_the_buttons_follow(context):
    state = CompareState(stop=True)
    status, go, stop = compare.begin(state, context)
    assert "Getting ready" in status
    assert (state.stop, go.interactive, stop.interactive) == (False, False, True)
    compare.ask_to_stop(state)
    assert state.stop
    go, stop, *fields = compare.settle(ModelCache(context))
    assert [field["choices"] for field in fields] == [ModelCache(context).choices()] * 2
    assert (go.interactive, stop.interactive) == (True, False)


def test_what_is_known_of_a_choice(context):
    cache = ModelCache(context)
    assert "context 48 tokens" in compare.describe(cache, "bundle")
    assert "Looked up on the Hub" in compare.describe(cache, "someone/model")
    trouble = compare.describe(cache, "<img src=x>/y/z")
    assert 'role="alert"' in trouble
    assert "<img" not in trouble
    assert "Looked up" not in compare.describe(cache, OWN)


def test_the_page_begins_with_two_models_that_are_not_the_same(context):
    cache, bundle = ModelCache(context), context.home / "bundle"
    assert cache.another() is None  # the bundle holds the weights of the page's model
    save_checkpoint(context.home / "bundles" / "small", layers=1)
    assert cache.another() == "bundles/small"
    context.run = save_run(context.home / "runs" / "lamp")
    assert cache.another() == "bundles/small"  # the run's only checkpoint is the page's model
    save_checkpoint(context.run / "checkpoints" / "step-000010", layers=3)
    assert cache.another() == "runs/lamp/checkpoints/step-000010"
    shutil.rmtree(bundle)
    for extra in (context.run / "checkpoints" / "step-000010", context.home / "bundles"):
        suggested, a, b, another = compare.prepare(context, cache)
        assert json.loads(suggested)["choices"][:3] == [cache.another(), OWN, True]
        assert a["choices"] == b["choices"] == cache.choices()
        assert another["visible"]
        shutil.rmtree(extra)
    suggested, *_, another = compare.prepare(context, cache)
    found = json.loads(suggested)
    a, b, same, *values = found["choices"]
    count = len(compare.SETTINGS)
    assert (found["prompt"], a, b, same) == (next(iter(context.source.prompts), ""), OWN, OWN, False)
    assert not another["visible"]
    assert values[:count] == [*CAREFUL.values.values()]
    assert values[count : 2 * count] == [*WILD.values.values()]
