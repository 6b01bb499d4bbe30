"""What the Learn tab says of a run, and when it says nothing."""

import json
from pathlib import Path

import gradio as gr
import pytest

from panels.context import AppContext
from panels.models import ModelLoader, find_model
from panels.tabs.learn import monitor as runs
from panels.tabs.learn.monitor import RunView
from panels.tabs.learn.tab import VIEW, Bench, describe_view, follow_run, show_run
from tests.panels.tiny_model import save_checkpoint, save_run


@pytest.fixture(autouse=True)
def _every_look_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "APART", 0.0)


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    """The page of a run in its home."""
    run = save_run(tmp_path / "runs" / "lamp")
    (run / "metrics.jsonl").write_text(json.dumps({"step": 10, "train_loss": 2.0}) + "\n")
    return AppContext(loader=ModelLoader(find_model(run)), home=tmp_path)


def described(status: runs.Status, **values) -> str:
    home, run = Path("/home/me"), Path("/home/me/runs/my lamp")
    words = {name: values.pop(name) for name in ("last_words", "stopping") if name in values}
    return describe_view(RunView(name="lamp", status=status, **values), home=home, run=run, **words)


def is_nothing(update) -> bool:
    return update == gr.skip()


def test_nothing_is_sent_where_nothing_is_new(context: AppContext) -> None:
    bench = Bench()
    first = follow_run(context, bench, None)
    assert len(first) == VIEW
    assert not any(map(is_nothing, first))
    assert all(map(is_nothing, follow_run(context, bench, "lamp")))
    with (context.home / "runs" / "lamp" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 20, "train_')
        stream.flush()
        assert all(map(is_nothing, follow_run(context, bench, "lamp")))
        stream.write('loss": 1.5}\n')
    changed = follow_run(context, bench, "lamp")
    assert any("[20, null, 1.5" in str(update) for update in changed)


def test_a_late_look_at_another_run_does_not_come_between(context: AppContext) -> None:
    save_run(context.home / "runs" / "other")
    bench = Bench()
    show_run(context, bench, "other")
    assert all(map(is_nothing, follow_run(context, bench, "lamp")))


def test_a_run_that_vanished_is_named_and_what_was_shown_stays(context: AppContext) -> None:
    bench = Bench()
    show_run(context, bench, "lamp")
    (context.home / "runs" / "lamp").rename(context.home / "away")
    updates = follow_run(context, bench, "lamp")
    assert len(updates) == VIEW
    assert any("folder is gone" in str(update) for update in updates)
    assert sum(map(is_nothing, updates)) == 4


def test_a_model_without_a_run_is_told_what_is_missing(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model")
    for is_public, hint in ((False, "Train one below"), (True, "python app.py --model runs/NAME")):
        context = AppContext(loader=ModelLoader(find_model(folder)), home=tmp_path, is_public=is_public)
        shown = str(show_run(context, Bench(), None))
        assert "There is no run here to look at" in shown
        assert hint in shown


def test_a_run_in_words() -> None:
    going = described("running", step=1200, steps=5000, tokens_seen=2_500_000, seconds_left=125.0)
    assert "step 1,200 of 5,000" in going
    assert "2 min left" in going
    assert "2.5 M tokens seen" in going
    assert 'aria-valuenow="24"' in going
    assert "Saving and stopping" in described("running", stopping=True)
    assert "6.0% above the floor" in described("finished", bits_per_byte=1.06, floor_bits_per_byte=1.0)
    assert "python app.py --model &#39;runs/my lamp&#39;" in described("stopped", has_checkpoint=True)
    assert "error: &lt;b&gt;" in described("failed", last_words="error: <b>")
    assert "Stopped before its first step" in described("failed", stopping=True)
    assert "trouble" not in described("failed", stopping=True)
