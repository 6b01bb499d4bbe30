"""What the Learn tab shows of a run, and when it sends nothing."""

import json
import shutil
from pathlib import Path

import gradio as gr
import pytest

from panels.context import AppContext
from panels.models import ModelLoader, find_model
from panels.tabs.learn.tab import PARTS, TabState, describe_view, follow_run, show_run, write_timelapse
from panels.training.monitor import RunView, Status, known_runs, monitor_of
from tests.panels.tiny_model import save_checkpoint, save_run


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    """The page of a run in its home; every look at the run reads the disk."""
    run = save_run(tmp_path / "runs" / "lamp")
    (run / "metrics.jsonl").write_text(json.dumps({"step": 10, "train_loss": 2.0}) + "\n")
    context = AppContext(loader=ModelLoader(find_model(run)), home=tmp_path)
    monitor_of(known_runs(context)["lamp"]).interval = 0.0
    return context


def described(status: Status, *, last_error: str | None = None, stopping: bool = False, **values) -> str:
    view = RunView(name="lamp", status=status, **values)
    return describe_view(view, "runs/my lamp", last_error=last_error, stopping=stopping)


def is_nothing(update) -> bool:
    return update == gr.skip()


def test_nothing_is_sent_where_nothing_is_new(context: AppContext) -> None:
    state = TabState()
    first = follow_run(context, state, None)
    assert len(first) == len(PARTS)
    assert not any(map(is_nothing, first))
    assert all(map(is_nothing, follow_run(context, state, "lamp")))
    with (context.home / "runs" / "lamp" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 20, "train_')
        stream.flush()
        assert all(map(is_nothing, follow_run(context, state, "lamp")))
        stream.write('loss": 1.5}\n')
    changed = follow_run(context, state, "lamp")
    assert any("[20, 1.5, null, null" in str(update) for update in changed)


def test_a_late_look_at_another_run_does_not_come_between(context: AppContext) -> None:
    save_run(context.home / "runs" / "other")
    state = TabState()
    show_run(context, state, "other")
    assert all(map(is_nothing, follow_run(context, state, "lamp")))


def test_a_time_lapse_appears_under_its_own_run_alone(context: AppContext) -> None:
    save_run(context.home / "runs" / "other")
    save_checkpoint(context.home / "runs" / "lamp" / "checkpoints" / "step-000010")
    state = TabState()
    show_run(context, state, "lamp")
    answers = write_timelapse(context, state, "lamp", "The lamp", "5", 3)
    pages = [next(answers)[0], next(answers)[0]]
    assert "The lamp" in pages[-1]
    show_run(context, state, "other")
    later = [page for page, _ in answers]
    assert len(later) == 2
    assert all(map(is_nothing, later))
    assert "The lamp · yours" in str(show_run(context, state, "lamp"))  # it is there where one comes back


def test_a_run_that_vanished_is_named_and_what_was_shown_stays(context: AppContext) -> None:
    state = TabState()
    show_run(context, state, "lamp")
    (context.home / "runs" / "lamp").rename(context.home / "away")
    updates = follow_run(context, state, "lamp")
    assert len(updates) == len(PARTS)
    assert any("folder is missing" in str(update) for update in updates)
    assert sum(map(is_nothing, updates)) == 4


def test_runs_of_one_name_are_listed_with_their_folders(context: AppContext) -> None:
    state = TabState()
    show_run(context, state, "lamp")
    far = context.run = save_run(context.home / "far" / "lamp")  # the page's model is one of that run now
    listed, *_ = show_run(context, state, "lamp")
    assert [name for _, name in listed["choices"]] == ["far/lamp", "runs/lamp"]
    assert [label.partition(" · ")[0] for label, _ in listed["choices"]] == ["far/lamp", "runs/lamp"]
    assert (listed["value"], state.name) == ("runs/lamp", "runs/lamp")  # the same run is shown
    shutil.rmtree(far)
    listed, *_ = show_run(context, state, "runs/lamp")
    assert (listed["value"], [name for _, name in listed["choices"]]) == ("lamp", ["lamp"])


def test_a_model_without_a_run_names_what_is_missing(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model")
    for is_public, hint in ((False, "Train one below"), (True, "python app.py --model runs/NAME")):
        context = AppContext(loader=ModelLoader(find_model(folder)), home=tmp_path, is_public=is_public)
        shown = str(show_run(context, TabState(), None))
        assert "There is no run here to look at" in shown
        assert hint in shown


def test_the_status_line() -> None:
    running = described("running", step=1200, steps=5000, tokens_seen=2_500_000, seconds_left=125.0,
                        tokens_per_second=1234.5, model_flops_utilization=0.314)  # fmt: skip
    for fact in ("step 1,200 of 5,000", "2 min left", "2.5 M tokens seen", 'aria-valuenow="24"', "1,234 tokens/s"):
        assert fact in running
    assert "31.4\u00a0% of the processor&#39;s peak" in running
    assert "FLOP" not in described("running", tokens_per_second=1234.5)
    assert "Saving and stopping" in described("running", stopping=True)
    assert "6.0% above the floor" in described("finished", bits_per_byte=1.06, floor_bits_per_byte=1.0)
    short = described("finished", has_checkpoint=True, cut_short="Cut at 34 of 900 steps.", resume_command="make on")
    assert "Cut at 34 of 900 steps." in short
    assert "Continue its training: <code>make on</code>" in short
    assert "python app.py --model &#39;runs/my lamp&#39;" in described("stopped", has_checkpoint=True)
    assert "error: &lt;b&gt;" in described("failed", last_error="error: <b>")
    assert "Stopped before its first step" in described("failed", stopping=True)
    assert "trouble" not in described("failed", stopping=True)
    assert "trouble" in described("crashed")
