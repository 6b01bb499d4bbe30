"""Runs that the page starts: their processes, their folders, and what is refused. A real one trains in tests/page."""

import dataclasses
import datetime
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from panels.tabs.learn.estimate import SIZES
from panels.training.launcher import CHECKOUT, Launcher, slug
from storage.run_folder import RunFolder
from tests.panels.tiny_model import save_run
from train.__main__ import parse
from train.checks import check_same_run
from train.config import write_recipe

TEXT = "The lamp burned low. " * 200
TINY = SIZES["tiny"]
FLAGS = TINY.arguments(50)


class StubLauncher(Launcher):
    """A launcher whose process holds the lock, or fails, and trains nothing."""

    script = (
        "import sys, time; from filelock import FileLock; run = sys.argv[1]\n"
        "lock = FileLock(run + '/.lock'); lock.acquire(); print('ready', flush=True)\n"
        "try: time.sleep(60)\n"
        "except KeyboardInterrupt: pass\n"
    )

    def __init__(self, home: Path, checkout: Path = CHECKOUT) -> None:
        super().__init__(home, checkout)
        self.arguments: list[str] = []

    def command(self, run, arguments):
        self.arguments = [*arguments, "--run-dir", str(run.path)]
        return [sys.executable, "-c", self.script, str(run.path)]


@pytest.fixture
def launcher(tmp_path: Path):
    """A launcher of an empty home, and none of its processes left behind."""
    launcher = StubLauncher(tmp_path)
    yield launcher
    for process in launcher._ours.values():
        process.kill()
        process.wait()


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def log_of(run: RunFolder) -> str:
    return run.page_log.read_text()


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("My Café! run", "my-cafe-run"),
        ("../../etc/passwd", "etc-passwd"),
        ("--resume", "resume"),
        (" .hidden ", "hidden"),
        ("con", "run-con"),
        ("x" * 100, "x" * 40),
        ("北京", "run-2026-11-21-1405"),
        ("", "run-2026-11-21-1405"),
        ("\ud800\x00", "run-2026-11-21-1405"),
    ],
)
def test_names_are_harmless(title: str, name: str) -> None:
    assert slug(title, today=datetime.datetime(2026, 11, 21, 14, 5)) == name


def test_a_run_is_a_process_of_its_own_that_stop_ends(launcher: StubLauncher, tmp_path: Path) -> None:
    run = launcher.start(TEXT, title="Lamp", flags=FLAGS)
    assert run.path == (tmp_path / "runs" / "lamp").resolve()
    corpus = run.path / "lamp.txt"
    assert corpus.read_text() == TEXT
    assert launcher.arguments[:3] == ["modern", "--corpus", str(corpus)]
    assert launcher.arguments[-2:] == ["--run-dir", str(run.path)]
    since = launcher.since(run)
    assert since == pytest.approx(time.time(), abs=30)
    wait_for(lambda: "ready" in log_of(run))
    assert launcher.active() == run
    with pytest.raises(ValueError, match="One run at a time: lamp is running"):
        launcher.start(TEXT, title="Second", flags=FLAGS)
    assert not (tmp_path / "runs" / "second").exists()

    another = Launcher(tmp_path)  # the page was restarted: it knows the process by its note
    assert another.since(run) == since
    another.stop(run)
    wait_for(lambda: launcher.since(run) is None)
    assert launcher.active() is None
    with pytest.raises(ValueError, match="No process works on lamp any more"):
        launcher.stop(run)


def test_a_run_that_ends_as_it_is_stopped_has_ended(launcher: StubLauncher, monkeypatch: pytest.MonkeyPatch) -> None:
    run = launcher.start(TEXT, title="Lamp", flags=FLAGS)
    process = launcher._process(run)
    assert process is not None
    ours = launcher._ours[run.path.resolve()]
    ours.kill()
    ours.wait()
    monkeypatch.setattr(launcher, "_process", lambda run: process)  # it was there a moment ago
    with pytest.raises(ValueError, match="No process works on lamp any more"):
        launcher.stop(run)
    assert not launcher.is_stopping(run)


def test_a_name_is_never_taken_twice(launcher: StubLauncher) -> None:
    runs = []
    for _ in range(2):
        runs.append(launcher.start(TEXT, title="Lamp", flags=FLAGS))
        launcher._ours[runs[-1].path].kill()
        launcher._ours[runs[-1].path].wait()
    assert [run.path.name for run in runs] == ["lamp", "lamp-2"]


def test_a_refused_start_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="came without the training program"):
        StubLauncher(tmp_path, checkout=tmp_path).start(TEXT, title="Lamp", flags=FLAGS)
    assert not (tmp_path / "runs").exists()


def test_a_run_of_a_terminal_is_seen_and_not_stopped(launcher: StubLauncher, tmp_path: Path) -> None:
    run = RunFolder(save_run(tmp_path / "runs" / "terminal"))
    with run.lock():
        assert launcher.active() == run
        with pytest.raises(ValueError, match="terminal was not started from the page"):
            launcher.stop(run)
    assert launcher.active() is None


def test_a_process_that_took_over_a_number_is_left_alone(launcher: StubLauncher, tmp_path: Path) -> None:
    run = RunFolder(save_run(tmp_path / "runs" / "old"))
    innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        created = psutil.Process(innocent.pid).create_time()
        old = json.dumps({"pid": innocent.pid, "created": created - 100})
        for note in (old, "{", "[]", '{"pid": "x"}', '{"pid": null, "created": 1}', '{"pid": -5, "created": 1}'):
            run.started_by_page.write_text(note)
            assert launcher.since(run) is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_run_resumes_from_its_recipe(launcher: StubLauncher, tmp_path: Path) -> None:
    run = RunFolder(save_run(tmp_path / "runs" / "old"))
    launcher.resume(run)
    assert launcher.arguments == [str(run.recipe_file), "--resume", "--run-dir", str(run.path)]
    run.recipe_file.unlink()
    with pytest.raises(ValueError, match="old ended before it had a recipe: start it again"):
        launcher.resume(run)


def test_the_command_that_resumes_is_that_of_the_same_run(tmp_path: Path) -> None:
    run, text = tmp_path / "run", tmp_path / "text.txt"
    text.write_text(TEXT)
    run.mkdir()
    _, config = parse(["modern", "--corpus", str(text), *TINY.arguments(50), "--run-dir", str(run)])
    write_recipe(config, "modern", RunFolder(run))
    name, again = parse([str(run / "recipe.json"), "--resume", "--run-dir", str(run)])
    check_same_run(again, RunFolder(run))
    assert name == "modern"
    assert again == dataclasses.replace(config, run=dataclasses.replace(config.run, resume=True))


def test_the_last_error_of_a_process(launcher: StubLauncher, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert launcher.last_error(run) is None
    run.page_log.write_text("training\nerror: the corpus is too short\r 10%|# | error in a bar\n")
    assert launcher.last_error(run) == "error: the corpus is too short"
