"""Runs that are started from the page: each is a process of its own, which the page may stop and go on with, and which
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
from corpus.clean import decode_bytes
from panels.tabs.learn.estimate import RunPlan, Size
from panels.tabs.learn.monitor import is_locked, known_folders, read_object
from storage.files import atomic_file
from storage.text import replace_surrogates

if TYPE_CHECKING:
    import psutil

CHECKOUT = Path(panels.__file__).parents[1]
"""The folder that holds `train/`, where there is one."""
NOTE, LOG = "page.json", "page.log"
"""What the page keeps in the folder of a run that it started: the process, and what that said."""
ENDING = 8.0
"""Seconds that a process may take to end after it has saved."""
NICENESS = 5
"""How far a run stands back behind the page."""
LARGEST_FILE = 20_000_000
"""Bytes of an uploaded text."""


class Launcher:
    """Starts, stops and goes on with the runs below `home`/runs, one at a time."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._ours: dict[Path, subprocess.Popen[bytes]] = {}
        self._stopping: set[Path] = set()
        self._lock = threading.Lock()

    def start(self, text: str, *, title: str, size: Size, steps: int) -> Path:
        """Train a new model on `text`; returns the run's folder, which no other run has or had.

        Raises:
            ValueError: another run is going, the text is too short, or there is no `train/` here.
            OSError: the folder cannot be written.
        """
        self._check_that_training_is_here()
        RunPlan.of(text_bytes=len(text.encode()), size=size, steps=steps)
        with self._lock:
            self._check_that_none_is_going()
            run = self._new_folder(slug(title))
            corpus = run / f"{run.name}.txt"
            with atomic_file(corpus) as stream:
                stream.write(text)
            self._spawn(run, ["modern", "--corpus", str(corpus), *size.arguments(steps)])
        return run

    def resume(self, run: Path) -> None:
        """Go on with a run that was stopped or broken off.

        Raises:
            ValueError: another run is going, this one has no recipe yet, or there is no `train/` here.
        """
        self._check_that_training_is_here()
        if not (run / "recipe.json").is_file():
            raise ValueError(f"{run.name} was ended before it had a recipe: start it anew.")
        with self._lock:
            self._let_it_end(run)
            self._check_that_none_is_going()
            self._spawn(run, [str(run / "recipe.json"), "--resume"])

    def stop(self, run: Path) -> None:
        """Tell a run that was started from a page to save and end; it does after its present step.

        Raises:
            ValueError: no process that a page started works on it.
        """
        process = self._process(run)
        if process is None:
            raise ValueError(
                f"{run.name} was not started from the page"
                if is_locked(run)
                else f"No process works on {run.name} any more."
            )
        process.send_signal(signal.SIGINT)
        self._stopping.add(run.resolve())

    def is_stopping(self, run: Path) -> bool:
        """Whether `stop` was called since the run was started or gone on with."""
        return run.resolve() in self._stopping

    def since(self, run: Path) -> float | None:
        """When the process began that a page started and that works on the run (seconds since 1970); None: there is
        none, or it has ended."""
        process = self._process(run)
        return None if process is None else process.create_time()

    def going(self) -> Path | None:
        """The run below `home`/runs that a process works on, whoever started it."""
        for run in known_folders(self.home):
            if self.since(run) is not None or is_locked(run):
                return run
        return None

    def last_words(self, run: Path) -> str | None:
        """What the process said when it failed; None: it did not."""
        try:
            with (run / LOG).open("rb") as stream:
                stream.seek(max(0, (run / LOG).stat().st_size - 20_000))
                said = stream.read().decode("utf-8", "replace")
        except OSError:
            return None
        lines = [line.strip() for line in re.split(r"[\r\n]+", said) if line.strip()]
        errors = [line for line in lines if re.match(r"(error|[\w.]*Error)\b", line)]
        return errors[-1] if errors else None

    def command(self, run: Path, arguments: Sequence[str]) -> list[str]:
        """What a run's process executes."""
        return [sys.executable, "-P", "-m", "train", *arguments, "--run-dir", str(run)]

    def _process(self, run: Path) -> psutil.Process | None:
        ours = self._ours.get(run.resolve())
        if ours is not None and ours.poll() is not None:
            del self._ours[run.resolve()]
        note = read_object(run / NOTE)
        if not note:
            return None
        import psutil

        try:
            process = psutil.Process(int(note["pid"]))
            same = abs(process.create_time() - float(note["created"])) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (KeyError, TypeError, ValueError, psutil.Error):
            return None

    def _spawn(self, run: Path, arguments: Sequence[str]) -> None:
        """Start `python -m train` in a session of its own, so that a Ctrl-C that ends the page does not reach it."""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(_search_path()), "PYTHONUNBUFFERED": "1"}
        with (run / LOG).open("ab") as log:
            process = subprocess.Popen(
                self.command(run, arguments),
                cwd=self.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._ours[run.resolve()] = process
        self._stopping.discard(run.resolve())
        import psutil

        with contextlib.suppress(psutil.Error):  # it ended at once
            started = psutil.Process(process.pid)
            if os.name == "posix":
                started.nice(NICENESS)
            created = started.create_time()
            with atomic_file(run / NOTE) as stream:
                stream.write(f'{{"pid": {process.pid}, "created": {created}}}\n')

    def _new_folder(self, name: str) -> Path:
        runs = (self.home / "runs").resolve()
        runs.mkdir(parents=True, exist_ok=True)
        for count in range(1, 1000):
            folder = runs / (name if count == 1 else f"{name}-{count}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
        raise ValueError(f"runs/{name}: expected a name that is free, got one that is taken 999 times; choose another.")

    def _let_it_end(self, run: Path) -> None:
        """Wait a little for a process that has saved, and is about to end."""
        deadline = time.monotonic() + ENDING
        while (
            self.since(run) is not None
            and read_object(run / "run.json").get("status") == "stopped"
            and time.monotonic() < deadline
        ):
            time.sleep(0.1)

    def _check_that_training_is_here(self) -> None:
        if (reason := why_not_here()) is not None:
            raise ValueError(reason)

    def _check_that_none_is_going(self) -> None:
        if (going := self.going()) is not None:
            raise ValueError(f"One run at a time: {going.name} is going. Stop it, or wait until it is finished.")


@cache
def launcher_of(home: Path) -> Launcher:
    """The one launcher of a folder in this process."""
    return Launcher(home)


def why_not_here() -> str | None:
    """Why no run can be started from this installation; None: it can."""
    if (CHECKOUT / "train" / "__main__.py").is_file():
        return None
    return "This page came without the training program; in a checkout of ScratchGPT a run can be started here."


def slug(title: str, *, today: datetime.datetime | None = None) -> str:
    """A folder's name from a title, small letters, digits and hyphens; from the time where nothing is left of it."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-")
    reserved = re.fullmatch(r"con|prn|aux|nul|com\d|lpt\d", name)
    now = today or datetime.datetime.now().astimezone()
    return f"{now:run-%Y-%m-%d-%H%M}" if not name else f"run-{name}" if reserved else name


def read_text(pasted: str, upload: str | Path | None) -> str:
    """The text to train on: that of the uploaded file where there is one, else the pasted one.

    Raises:
        ValueError: there is none, or the file is too large or no text.
    """
    if upload is None:
        text = replace_surrogates(pasted or "")
        if not text.strip():
            raise ValueError("Expected a text to train on, got none: paste one, or choose a .txt file.")
        return text
    path = Path(upload)
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= LARGEST_FILE else b""
    except OSError as error:
        raise ValueError(f"{path.name} could not be read ({error.strerror}); choose it again.") from error
    if size > LARGEST_FILE:
        raise ValueError(
            f"{path.name}: expected at most {LARGEST_FILE // 10**6} MB, got {size / 1e6:.0f} MB. Train on it with "
            f"`python -m train modern --corpus {path.name}`."
        )
    text = decode_bytes(raw, path.name).replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise ValueError(f"{path.name}: expected a text, got an empty file.")
    return text


def _search_path() -> list[str]:
    given = os.environ.get("PYTHONPATH")
    return [str(CHECKOUT), *([given] if given else [])]
