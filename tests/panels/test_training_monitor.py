"""A run while another process writes it."""

import json
import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from panels.context import AppContext
from panels.models import ModelLoader, ModelSource, find_model
from panels.training.monitor import RunMonitor, known_runs
from storage.run_folder import RunFolder
from tests.panels.tiny_model import save_run


def line(step: int, **values: object) -> str:
    return json.dumps({"step": step, "tokens_seen": 10 * step, "seconds": step / 2} | values) + "\n"


def context_of(home: Path, folder: Path | None = None) -> AppContext:
    source = find_model(folder) if folder else ModelSource(given="somebody/else", name="else")
    return AppContext(loader=ModelLoader(source), home=home)


def monitor_at(run: Path) -> RunMonitor:
    """A monitor that reads the disk, and tests the lock, each time that it is asked."""
    return RunMonitor(RunFolder(run), interval=0.0, silence=-1.0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose run.json says that it is running."""
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": "running", "step": 0, "steps": 100}))
    (folder / "recipe.json").write_text("{}")
    return folder


def test_a_run_is_running_only_while_its_lock_is_held(run: Path) -> None:
    (run / "metrics.jsonl").write_text(line(10) + line(20, model_flops_utilization=0.25))
    monitor = monitor_at(run)
    with FileLock(run / ".lock"):
        view = monitor.view()
        assert (view.status, view.step, view.steps, view.tokens_seen) == ("running", 20, 100, 200)
        assert view.seconds_left == pytest.approx(40.0)  # half a second a step
        assert view.tokens_per_second == pytest.approx(20.0)
        assert view.model_flops_utilization == 0.25
    version = monitor.version
    killed = monitor.view()
    assert killed.status == "crashed"
    assert not killed.is_active
    assert killed.seconds_left is None
    assert monitor.version != version


def test_no_news_is_no_new_version(run: Path) -> None:
    monitor = monitor_at(run)
    with FileLock(run / ".lock"):
        (run / "metrics.jsonl").write_text(line(10))
        assert monitor.view().model_flops_utilization is None
        version = monitor.version
        monitor.view()
        with (run / "metrics.jsonl").open("a") as stream:
            stream.write('{"step": 2')  # unfinished: no news either
        monitor.view()
        assert monitor.version == version


def test_a_state_that_is_older_than_the_process_does_not_count(run: Path) -> None:
    (run / "run.json").write_text(json.dumps({"status": "stopped", "step": 30, "steps": 100}))
    monitor = monitor_at(run)
    written = (run / "run.json").stat().st_mtime
    assert monitor.view().status == "stopped"
    assert monitor.view(since=written + 5).status == "preparing"
    assert monitor.view(since=written - 5).status == "stopped"


def test_a_run_that_is_resumed_prepares_nothing_again(run: Path) -> None:
    monitor, state = monitor_at(run), {"status": "stopped", "step": 30, "steps": 100}
    for latest, words in ((None, "Preparing: tokenizer"), ("checkpoints/step-000030", "Resuming: its last checkpoint")):
        (run / "run.json").write_text(json.dumps(state | {"latest_checkpoint": latest}))
        written = (run / "run.json").stat().st_mtime
        view = monitor.view(since=written + 5)
        assert view.status == "preparing"
        assert view.status_text.startswith(words)
    assert monitor.view().status_text == "Stopped, saved"


def test_the_best_checkpoint_has_its_own_figure(run: Path) -> None:
    evaluated = [line(10, bits_per_byte=1.5), line(20, bits_per_byte=1.25), line(30, bits_per_byte=1.75)]
    (run / "metrics.jsonl").write_text("".join(evaluated))
    for best, expected in (("checkpoints/step-000020", 1.25), (None, None), (7, None), ("elsewhere", None)):
        (run / "run.json").write_text(
            json.dumps({"status": "finished", "step": 30, "steps": 100, "best_checkpoint": best})
        )
        view = monitor_at(run).view()
        assert (view.bits_per_byte, view.best_bits_per_byte) == (1.75, expected)


@pytest.mark.parametrize("state", [None, '{"status": "runn'])
def test_a_run_without_a_readable_state_is_preparing_or_has_failed(run: Path, state: str | None) -> None:
    (run / "run.json").write_text(state) if state else (run / "run.json").unlink()
    assert monitor_at(run).view().status == "failed"
    with FileLock(run / ".lock"):
        assert monitor_at(run).view().status == "preparing"
    assert monitor_at(run).view(since=1.0).status == "preparing"


def test_a_folder_that_vanishes_is_missing(run: Path) -> None:
    (run / "metrics.jsonl").write_text(line(10))
    monitor = monitor_at(run)
    monitor.view()
    run.rename(run.with_name("elsewhere"))
    assert monitor.view().status == "missing"


def test_active_runs_come_first_then_the_models_own_then_the_newest(tmp_path: Path) -> None:
    for age, name in enumerate(["active", "own", "newest", "older"]):
        folder = save_run(tmp_path / "runs" / name)
        state = json.loads((folder / "run.json").read_text())
        state["status"] = "running" if name == "active" else "finished"
        (folder / "run.json").write_text(json.dumps(state))
        os.utime(folder / "run.json", (0, 1_000_000 - 100 * (age if name != "active" else 50)))
    (tmp_path / "runs" / "no run").mkdir()
    (tmp_path / "runs" / ".hidden").mkdir()
    context = context_of(tmp_path, tmp_path / "runs" / "own")
    assert list(known_runs(context)) == ["active", "own", "newest", "older"]
    assert not known_runs(context_of(tmp_path / "elsewhere"))


def test_a_run_outside_the_runs_folder_is_listed_when_the_model_came_from_it(tmp_path: Path) -> None:
    own = save_run(tmp_path / "far" / "lab")
    save_run(tmp_path / "home" / "runs" / "lab")
    (own / "run.json").write_text(json.dumps({"status": "finished"}))
    context = context_of(tmp_path / "home", own)
    near, far = (tmp_path / "home" / "runs" / "lab").resolve(), own.resolve()
    assert {name: run.path for name, run in known_runs(context).items()} == {"runs/lab": near, str(far): far}
    (near / "run.json").write_text(json.dumps({"status": "running"}))  # the order is another, the names are not
    assert [*known_runs(context)] == ["runs/lab", str(far)]
    shutil.rmtree(near)
    assert [*known_runs(context)] == ["lab"]
