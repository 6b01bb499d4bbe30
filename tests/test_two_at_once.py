"""Two commands on one run folder at the same time, each a real process."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.checksums import damaged_files
from storage.run_folder import RunFolder
from tests.faults.stages import TINY
from tests.test_architecture import ROOT

PATIENCE = 300.0
"""Seconds until something that has to happen counts as not happening: the machine may be busy."""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def words_of(run: Path, *flags: str) -> list[str]:
    """The command of a run that does not end by itself, whatever `flags` add."""
    return [sys.executable, "-m", "train", "debug", *TINY, "--run-dir", str(run), "--steps", "1000000", *flags]


def call(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < end, log.read_text()[-2000:]
        time.sleep(0.05)


@contextmanager
def training(run: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """A process that trains in the folder and has its first checkpoint; it is killed at the end of the block."""
    log = run.with_name(f"{run.name}.log")
    before = max(RunFolder(run).checkpoints(), default=0)
    with log.open("w") as output:
        process = subprocess.Popen(
            words_of(run, *flags), cwd=run.parent, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT, text=True
        )
    try:
        wait_for(lambda: max(RunFolder(run).checkpoints(), default=0) > before, process, log)
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_second_trainer_is_refused_and_a_killed_one_is_no_obstacle(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with training(run) as first:
        for flags in ((), ("--resume",)):
            refused = call(*words_of(run, *flags), folder=tmp_path)
            assert refused.returncode == 1
            assert refused.stdout == ""
            (line,) = refused.stderr.strip().splitlines()
            assert line == (
                f"error: {run}: expected a run folder that is free, got one that another process trains in; wait for "
                "it, stop it, or choose another --run-dir"
            )
        assert first.poll() is None
        at = max(RunFolder(run).checkpoints())
        wait_for(lambda: max(RunFolder(run).checkpoints()) > at, first, tmp_path / "run.log")  # it goes on
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert (run / ".lock").is_file()
        assert not RunFolder(run).is_locked
    with training(run, "--resume") as second:
        assert re.search(r"resuming from step \d+", (run / "train.log").read_text())
        second.send_signal(signal.SIGINT)
        assert second.wait(PATIENCE) == 0
    assert RunFolder(run).state["status"] == "stopped"
    assert not any(damaged_files(folder) for folder in RunFolder(run).checkpoints().values())


def bundle_while_training(folder: Path, times: int) -> list[subprocess.CompletedProcess[str]]:
    """Bundle a run that writes and prunes checkpoints many times a second."""
    run, command = folder / "run", [sys.executable, "-m", "hub_export", "bundle"]
    often = ("--run.checkpoint-every", "1", "--run.keep-checkpoints", "1", "--run.evaluate-every", "1")
    with training(run, *often) as process:
        done = []
        for number in range(times):
            which = ("latest", "best")[number % 2]
            out = folder / f"made-{number}"
            done.append(call(*command, str(run), "--checkpoint", which, "--out", str(out), folder=folder))
            assert process.poll() is None
    return done


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_is_bundled_while_it_trains(tmp_path: Path, times: int) -> None:
    for number, done in enumerate(bundle_while_training(tmp_path, times)):
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"made-{number}" / "proof.json").is_file()
        verified = call(
            sys.executable, "-c", f"from hub_export.bundle import check_record; from pathlib import Path; "
            f"check_record(Path({str(tmp_path / f'made-{number}')!r}))", folder=tmp_path,
        )  # fmt: skip
        assert verified.returncode == 0, verified.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
