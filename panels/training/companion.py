"""The run that `python app.py --train RECIPE …` starts beside the page, from its start to the bundle of its model."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from panels.models import pretrained
from panels.training.launcher import NICENESS, Launcher
from panels.training.monitor import RunMonitor, RunView, integer
from storage.run_folder import RunFolder
from storage.text import duration

INTERVAL = 0.5
"""Seconds between two looks at the run."""
SAVING = 120.0
"""Seconds that a run may take to save when the page ends: a step, a checkpoint and its samples."""

say = partial(print, flush=True)


class CompanionRun:
    """A run that begins with the page, or goes on where it stopped, and stops with the page.

    One that is finished is not trained again, unless it was cut short. Its model is exported when it is finished.

    Args:
        launcher: of the page's folder.
        words: a recipe and the flags of `python -m train`; `--resume` is added.
        bundle: the folder that the model is exported to; None: it is not.
        tell: called with each line for the terminal.

    Raises:
        ValueError: for a recipe file without `--run-dir`.
    """

    def __init__(
        self, launcher: Launcher, words: Sequence[str], *, bundle: Path | None = None, tell: Callable[[str], None] = say
    ) -> None:
        self.launcher, self.tell = launcher, tell
        folder, self.words = _split_run_dir(words)
        self.name = folder.as_posix()
        self.run = RunFolder(launcher.home / folder)
        self.bundle = launcher.home / bundle if bundle else None
        self.bundle_name = bundle.as_posix() if bundle else ""  # as it was given, for messages
        self.trouble: str | None = None
        """What went wrong beside the training itself, for the page."""
        self._monitor = RunMonitor(self.run, interval=0.0)
        self._began, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._accompany, name="companion-run", daemon=True)
        self._export: subprocess.Popen[str] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing to train: the run is finished, with all its steps."""
        state = self.run.peek_state()
        wanted = _value_of("--steps", self.words) or "0"
        more = wanted.isdecimal() and int(wanted) > (integer(state.get("step")) or 0)
        return state.get("status") == "finished" and not state.get("cut_short") and not more

    @property
    def is_needed(self) -> bool:
        """Whether there is something to train: not where the run is complete, or only its bundle was kept."""
        return not self.is_complete and (self.run.has_state or not self.has_bundle)

    @property
    def has_bundle(self) -> bool:
        """Whether the bundle is there."""
        return self.bundle is not None and (self.bundle / "config.json").is_file()

    def model(self) -> str | None:
        """What the page opens on: the bundle, the finished run, or the model in the box; None where none is."""
        if self.bundle is not None and self.has_bundle:
            return str(self.bundle)
        if self.is_complete and self.run.checkpoints():
            return str(self.run.path)
        box = pretrained(self.launcher.home)
        return None if box is None else str(box)

    def view(self, *, refresh: bool = False) -> RunView:
        """The progress of the run."""
        return self._monitor.view(since=self.launcher.since(self.run), refresh=refresh)

    def start(self) -> None:
        """Begin, once; returns at once."""
        if self._thread.ident is None:
            self._thread.start()

    def wait_for_model(self) -> str:
        """Begin, and wait until the run has its first checkpoint; return its folder.

        Raises ValueError where it ends without one."""
        self.start()
        self._began.wait()
        while not self.run.checkpoints():
            if self.trouble or not self.view().is_active:
                raise ValueError(f"{self.name}: {self.trouble or self._reason()}")
            time.sleep(INTERVAL)
        return str(self.run.path)

    def stop(self) -> None:
        """End with the page: ask the run to save and stop, and wait for it."""
        self._ending.set()
        if self._export is not None and self._export.poll() is None:
            self._export.send_signal(signal.SIGINT)
        if self._thread.ident is not None:
            self._thread.join(timeout=5.0)  # it tells nothing from here on
        if self.launcher.since(self.run) is None:
            return
        self.tell(f"{self.name}: saving the training …")
        try:
            with contextlib.suppress(ValueError):  # it ended just now
                self.launcher.stop(self.run)
            if not self.launcher.wait(self.run, SAVING):
                self.tell(f"{self.name}: still saving; it stops by itself, and the same command goes on from there")
                return
        except KeyboardInterrupt:
            self.tell(f"{self.name}: it saves and stops by itself")
            return
        self._report(self.view(refresh=True))

    def _accompany(self) -> None:
        try:
            was_active = self._begin()
        except (ValueError, OSError) as error:
            self.trouble, was_active = str(error), False
            self.tell(f"{self.name}: not trained: {error}")
        finally:
            self._began.set()
        exported = self.has_bundle
        while not self._ending.wait(INTERVAL):
            view = self.view()
            if view.is_active:
                was_active = True
                continue
            if was_active:
                was_active = False
                self._report(view)
            if not exported and self.is_complete and self.bundle is not None:
                exported = True
                self._make_bundle(self.bundle)

    def _begin(self) -> bool:
        """Start the training, unless there is nothing to do or somebody does it already; whether it is trained now."""
        if self.is_complete:
            self._check_corpus()
            return False
        if not self.is_needed:
            there = self.bundle_name
            self.tell(f"{self.name}: not trained: the model in {there} is taken for its; to train one, remove {there}")
            return False
        if self.launcher.since(self.run) is not None or self.run.is_locked:
            self.tell(f"{self.name}: another process trains it already; the page shows it")
            return True
        self.launcher.train(self.run, [*self.words, "--resume"])
        log = f"{self.name}/{self.run.page_log.name}"
        self.tell(f"{self.name}: training beside the page, which shows how it goes (output: {log})")
        return True

    def _report(self, view: RunView) -> None:
        """One line on how the training ended."""
        step = f"step {view.step:,} of {view.steps:,}" if view.steps else ""
        bits = f", {view.bits_per_byte:.3f} bits per byte" if view.bits_per_byte is not None else ""
        if view.status == "finished":
            done = f"trained: {view.step:,} steps, {duration(view.seconds)}{bits}"
            self.tell(f"{self.name}: {done}. The page writes with it at a click, and from the next start on")
            if view.cut_short:
                again = f". Go on: {view.resume_command}" if view.resume_command else ""
                self.tell(f"{self.name}: {view.cut_short.rstrip('.')}{again}")
        elif view.status == "stopped":
            self.tell(f"{self.name}: stopped after {step}{bits}; saved, and the same command goes on from there")
        elif view.status == "crashed":
            self.tell(f"{self.name}: crashed after {step}; the same command goes on from its last checkpoint")
        elif view.status == "failed" and view.step:
            reason = f"{self._reason()}; the same command goes on from its last checkpoint"
            self.tell(f"{self.name}: failed after {step}: {reason}")
        elif self.launcher.is_stopping(self.run):
            self.tell(f"{self.name}: stopped before its first step; nothing is lost, the same command begins again")
        else:
            self.tell(f"{self.name}: not trained: {self._reason()}")

    def _reason(self) -> str:
        error = self.launcher.last_error(self.run)
        return (error or f"its process ended; {self.run.page_log} may show why").removeprefix("error: ")

    def _check_corpus(self) -> None:
        """Say it where the text of a finished run has changed since."""
        if self.run.corpus_config.get("source") != "local":
            return
        keep = [word for word in self.words if word == "--keep-tokens"]
        checked = self._python("train.data.sources", str(self.run.path), *keep)
        _, said = checked.communicate()
        if checked.returncode:
            self.trouble = said.strip().removeprefix("error: ")
            self.tell(f"{self.name}: {self.trouble}")

    def _make_bundle(self, bundle: Path) -> None:
        """Export the model, checked, while the page goes on."""
        began, name = time.monotonic(), self.bundle_name
        self._export = self._python("hub_export", "bundle", str(self.run.path), "--out", str(bundle))
        _, said = self._export.communicate()
        if self._ending.is_set():
            return
        if self._export.returncode == 0:
            self.tell(f"{name}: exported and checked in {duration(time.monotonic() - began)}")
            return
        reason = (said.strip().splitlines() or ["its process ended"])[-1].removeprefix("error: ").rstrip(".")
        command = f"python -m hub_export bundle {self.name} --out {name}"
        self.trouble = f"{name} was not exported: {reason}. Once that is fixed: {command}"
        self.tell(f"{self.name}: {self.trouble}")

    def _python(self, *words: str) -> subprocess.Popen[str]:
        """`python -m` of this checkout, in a session of its own and behind the page."""
        places = os.pathsep.join(filter(None, (str(self.launcher.checkout), os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=self.launcher.home,
            env=os.environ | {"PYTHONPATH": places},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if os.name == "posix":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        return process


@contextlib.contextmanager
def ending_together(companion: CompanionRun | None) -> Iterator[None]:
    """In the block the page is served: however it ends, `companion` ends with it, after it has saved.

    SIGTERM and the end of the terminal count as Ctrl-C. A shell that starts the page in the background lets it ignore
    Ctrl-C, and so would every process that the page starts: here it counts."""
    if companion is None:
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        companion.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def _split_run_dir(words: Sequence[str]) -> tuple[Path, list[str]]:
    """The run folder that `python -m train` with these words uses, and the words without it."""
    recipe = words[0]
    given = _value_of("--run-dir", words)
    if given is None:
        if recipe.endswith(".json"):
            raise ValueError(f"--train {recipe}: expected the folder of its run, got none: add --run-dir DIR")
        return Path("runs") / recipe, [*words]
    rest, skip = [], False
    for word in words:
        if not skip and word != "--run-dir" and not word.startswith("--run-dir="):
            rest.append(word)
        skip = word == "--run-dir"
    return Path(given), rest


def _value_of(flag: str, words: Sequence[str]) -> str | None:
    """The value of a flag among the words of a command."""
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None
