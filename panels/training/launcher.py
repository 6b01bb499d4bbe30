"""Training runs that the page starts: each is a process of its own, which the page may stop and resume, and which
outlives the page."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import panels
from storage.files import atomic_file, explain_write_errors
from storage.records import read_json_object_or_empty, write_json
from storage.run_folder import RunFolder

if TYPE_CHECKING:
    import psutil

CHECKOUT = Path(panels.__file__).parents[1]
"""The folder that holds `train/`, where there is one."""
ENDING = 8.0
"""Seconds that a process may take to end after it has saved."""
NICENESS = 5
"""The nice value of the processes of visitors' runs, so that the page stays quick."""


class Launcher:
    """Starts, stops and resumes the runs of `home`/runs, one at a time, with the train/ of `checkout`."""

    def __init__(self, home: Path, checkout: Path = CHECKOUT) -> None:
        self.home, self.checkout = home, checkout
        self._ours: dict[Path, subprocess.Popen[bytes]] = {}
        self._stopping: set[Path] = set()
        self._lock = threading.Lock()

    @property
    def unavailable(self) -> str | None:
        """Why no run can be started from this installation; None: it can."""
        if (self.checkout / "train" / "__main__.py").is_file():
            return None
        return "This page came without the training program; in a checkout of ScratchGPT a run can be started here."

    def start(self, text: str, *, title: str, flags: Sequence[str]) -> RunFolder:
        """Train a new model on `text` by the recipe `modern` with `flags`, in a new folder named after `title`.

        ValueError: another run is active, or there is no `train/` here.
        """
        with self._lock:
            self._check_idle()
            run = self._new_folder(slug(title))
            corpus = run.path / f"{run.path.name}.txt"
            with atomic_file(corpus) as stream:
                stream.write(text)
            self._spawn(run, ["modern", "--corpus", str(corpus), *flags])
        return run

    def train(self, run: RunFolder, arguments: Sequence[str]) -> None:
        """Run `python -m train` with `arguments` in the folder of `run`, which need not exist, at the usual priority.

        ValueError: another run is active, or there is no `train/` here. OSError: the folder cannot be written.
        """
        with self._lock:
            self._check_idle()
            with explain_write_errors(run.path):
                run.path.mkdir(parents=True, exist_ok=True)
            self._spawn(run, arguments, nice=0)

    def resume(self, run: RunFolder) -> None:
        """Resume a run; ValueError where another one is active, or it has no recipe yet."""
        if not run.recipe_file.is_file():
            raise ValueError(f"{run.path.name} ended before it had a recipe: start it again.")
        with self._lock:
            deadline = time.monotonic() + ENDING
            while self.since(run) and run.peek_state().get("status") == "stopped" and time.monotonic() < deadline:
                time.sleep(0.1)  # it has saved, and is about to end
            self._check_idle()
            self._spawn(run, [str(run.recipe_file.resolve()), "--resume"])

    def stop(self, run: RunFolder) -> None:
        """Ask a run to save and end after its present step; ValueError where no process of a page works on it."""
        process = self._process(run)
        name = run.path.name
        ended = f"No process works on {name} any more."
        if process is None:
            raise ValueError(f"{name} was not started from the page." if run.is_locked else ended)
        import psutil

        try:
            process.send_signal(signal.SIGINT)
        except psutil.NoSuchProcess as error:  # it ended just now
            raise ValueError(ended) from error
        self._stopping.add(run.path.resolve())

    def wait(self, run: RunFolder, seconds: float) -> bool:
        """Wait, at most so many seconds, until no process of a page works on the run; whether there is none."""
        deadline = time.monotonic() + seconds
        while self.since(run) is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def is_stopping(self, run: RunFolder) -> bool:
        """Whether `stop` was called since the run was started or resumed."""
        return run.path.resolve() in self._stopping

    def since(self, run: RunFolder) -> float | None:
        """When the process that a page started on the run began, in seconds since 1970; None: there is none."""
        process = self._process(run)
        return None if process is None else process.create_time()

    def active(self) -> RunFolder | None:
        """The run of `home`/runs that a process works on, whoever started it."""
        runs = RunFolder.all_in(self.home)
        return next((run for run in runs if self.since(run) is not None or run.is_locked), None)

    def last_error(self, run: RunFolder) -> str | None:
        """The last error in the output of the run's latest process, if there is one."""
        began = read_json_object_or_empty(run.started_by_page).get("log")
        try:
            with run.page_log.open("rb") as stream:
                stream.seek(max(began if type(began) is int else 0, run.page_log.stat().st_size - 20_000))
                output = stream.read().decode("utf-8", "replace")
        except OSError:
            return None
        lines = [line.strip() for line in re.split(r"[\r\n]+", output)]
        return next((line for line in reversed(lines) if re.match(r"(error|[\w.]*Error)\b", line)), None)

    def command(self, run: RunFolder, arguments: Sequence[str]) -> list[str]:
        """What a run's process executes."""
        return [sys.executable, "-m", "train", *arguments, "--run-dir", str(run.path.resolve())]

    def _process(self, run: RunFolder) -> psutil.Process | None:
        ours = self._ours.get(run.path.resolve())
        if ours is not None and ours.poll() is not None:
            self._ours.pop(run.path.resolve(), None)  # another thread may have seen it too
        note = read_json_object_or_empty(run.started_by_page)
        if not note:
            return None
        import psutil

        try:
            process = psutil.Process(int(note["pid"]))
            is_same = abs(process.create_time() - float(note["created"])) < 1.0  # a later process may have the number
            return process if is_same and process.status() != psutil.STATUS_ZOMBIE else None
        except (KeyError, TypeError, ValueError, psutil.Error):
            return None

    def _spawn(self, run: RunFolder, arguments: Sequence[str], *, nice: int = NICENESS) -> None:
        """Start `python -m train` in a session of its own, so that a Ctrl-C that ends the page does not reach it."""
        # train/ is found installed or not, and relative paths of a corpus are those of the folder of the page.
        places = os.pathsep.join(filter(None, (str(self.checkout), os.environ.get("PYTHONPATH"))))
        with explain_write_errors(run.page_log), run.page_log.open("ab") as log:
            began = log.tell()
            process = subprocess.Popen(
                self.command(run, arguments),
                cwd=self.home,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": places},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._ours[run.path.resolve()] = process
        self._stopping.discard(run.path.resolve())
        import psutil

        with contextlib.suppress(psutil.Error):  # it ended at once
            started = psutil.Process(process.pid)
            if os.name == "posix" and nice:
                started.nice(nice)
            try:
                write_json(run.started_by_page, {"pid": process.pid, "created": started.create_time(), "log": began})
            except OSError:  # nobody could stop it
                process.kill()
                raise

    def _new_folder(self, name: str) -> RunFolder:
        runs = (self.home / "runs").resolve()
        with explain_write_errors(runs):
            runs.mkdir(parents=True, exist_ok=True)
        for count in range(1, 1000):
            folder = runs / (name if count == 1 else f"{name}-{count}")
            with contextlib.suppress(FileExistsError), explain_write_errors(folder):
                folder.mkdir()
                return RunFolder(folder)
        raise ValueError(f"runs/{name}: expected a name that is free, got one that is taken 999 times; choose another.")

    def _check_idle(self) -> None:
        if self.unavailable is not None:
            raise ValueError(self.unavailable)
        if (active := self.active()) is not None:
            name = active.path.name
            raise ValueError(f"One run at a time: {name} is running. Stop it, or wait until it is finished.")


@cache
def launcher_of(home: Path) -> Launcher:
    """The one launcher of a folder in this process."""
    return Launcher(home)


def slug(title: str, *, today: datetime.datetime | None = None) -> str:
    """A folder's name from a title, small letters, digits and hyphens; from the time where none of these are left."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-")
    reserved = re.fullmatch(r"con|prn|aux|nul|com\d|lpt\d", name)  # on Windows
    now = today or datetime.datetime.now().astimezone()
    return f"{now:run-%Y-%m-%d-%H%M}" if not name else f"run-{name}" if reserved else name
