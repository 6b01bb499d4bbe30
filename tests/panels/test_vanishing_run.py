"""A page that watches a run whose folder is deleted, renamed, emptied or replaced meanwhile."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from panels.context import AppContext
from panels.model_cache import ModelCache
from panels.models import ModelLoader, find_model
from panels.tabs.learn.tab import PARTS, TabState, follow_run, show_run, write_timelapse
from panels.training.launcher import launcher_of
from panels.training.monitor import known_runs, monitor_of
from panels.training.strip import TrainingStrip, render_strip
from tests.panels.disturbed import DisturbedAt, numbers
from tests.panels.tiny_model import save_run

LINE = json.dumps({"step": 10, "tokens_seen": 100, "train_loss": 2.0, "seconds": 1.0}) + "\n"
SAMPLE = json.dumps({"step": 10, "prompt": "The", "text": "The lamp", "seed": 0}) + "\n"


def write_run(folder: Path) -> Path:
    save_run(folder)
    (folder / "metrics.jsonl").write_text(LINE * 2)
    (folder / "samples.jsonl").write_text(SAMPLE)
    return folder


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    """The page of a model, and beside it a run that it does not come from."""
    own, run = write_run(tmp_path / "runs" / "own"), write_run(tmp_path / "runs" / "lamp")
    (run / "run.json").write_text(json.dumps(json.loads((run / "run.json").read_text()) | {"status": "running"}))
    context = AppContext(loader=ModelLoader(find_model(own)), home=tmp_path)
    monitor = monitor_of(known_runs(context)["lamp"])
    monitor.interval, monitor.silence = 0.0, -1.0
    return context


def delete(run: Path) -> None:
    shutil.rmtree(run)


def rename(run: Path) -> None:
    run.rename(run.with_name("elsewhere"))


def empty(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


def make_a_file(run: Path) -> None:
    shutil.rmtree(run)
    run.write_text("a file now")


def dangle(run: Path) -> None:
    shutil.rmtree(run)
    run.symlink_to(run.with_name("nowhere"))


def replace_files_by_folders(run: Path) -> None:
    for name in ("run.json", "recipe.json", "metrics.jsonl", "samples.jsonl"):
        (run / name).unlink()
        (run / name).mkdir()


CHANGES = [delete, rename, empty, make_a_file, dangle, replace_files_by_folders]


def look_everywhere(context: AppContext, state: TabState) -> str:
    """Everything that the page asks about its runs; what it shows."""
    shown = [follow_run(context, state, "lamp"), show_run(context, state, "lamp"), show_run(context, TabState(), None)]
    assert all(len(updates) == len(PARTS) for updates in shown)
    lapse = list(write_timelapse(context, state, "lamp", "The", "1", 10))
    strip = TrainingStrip(context).refresh()
    cache = ModelCache(context)
    for _, choice in cache.choices():
        try:
            cache.find(choice)
        except ValueError as error:
            shown.append([str(error)])
    launcher = launcher_of(context.home)
    assert launcher.active() is None
    return f"{shown} {lapse[-1]} {render_strip(strip)}"


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_run_that_is_gone_between_two_looks_is_named(context: AppContext, change: Callable[[Path], None]) -> None:
    state, run = TabState(), context.home / "runs" / "lamp"
    assert "lamp" in str(show_run(context, state, "lamp"))
    change(run)
    shown = look_everywhere(context, state)
    assert "folder is missing" in shown
    assert "Traceback" not in shown
    if run.exists() or run.is_symlink():
        shutil.rmtree(run) if run.is_dir() and not run.is_symlink() else run.unlink()
    write_run(run)  # another run of that name
    assert "folder is missing" not in look_everywhere(context, state)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_may_be_gone_at_any_call_to_the_file_system(
    context: AppContext, change: Callable[[Path], None], every: int
) -> None:
    run, ready = context.home / "runs" / "lamp", context.home / "ready"
    shutil.copytree(run, ready)

    def look(number: int) -> int:
        with pytest.MonkeyPatch.context() as patch:
            disturbed = DisturbedAt(patch, run, number, lambda: change(run))
            look_everywhere(context, TabState())
        return disturbed.count

    calls = look(0)  # none is disturbed
    assert calls > 200, "a look asks less than was thought"
    for number in numbers(calls, every):
        look(number)
        shutil.rmtree(run.with_name("elsewhere"), ignore_errors=True)
        if run.is_dir() and not run.is_symlink():
            shutil.rmtree(run)
        else:
            run.unlink(missing_ok=True)
        shutil.copytree(ready, run)


@pytest.mark.slow
def test_a_run_that_comes_and_goes_while_it_is_read_breaks_nothing(
    context: AppContext, caplog: pytest.LogCaptureFixture
) -> None:
    run, ready, over = context.home / "runs" / "lamp", context.home / "ready", threading.Event()
    shutil.copytree(run, ready)

    def disturb() -> None:
        number = 0
        while not over.is_set():
            number += 1
            if number % 3 == 0:
                run.rename(run.with_name("elsewhere"))
                shutil.rmtree(run.with_name("elsewhere"))
            else:
                shutil.rmtree(run)
            shutil.copytree(ready, run)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        state = TabState()
        for _ in range(150):
            look_everywhere(context, state)
    finally:
        over.set()
        thread.join()
    assert "lamp" in look_everywhere(context, TabState())
    assert not [record for record in caplog.records if record.exc_info]
