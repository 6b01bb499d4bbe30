"""A run folder as the page watches it: its state, its lines as they are appended, and whether anybody works on it."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from panels.context import AppContext

Status = Literal["preparing", "running", "finished", "stopped", "failed", "broken off", "gone"]
"""`preparing`: a process makes tokenizer and tokens; `broken off`: the folder says running, but no process has it;
`gone`: there is no such folder any more."""
GOING = ("preparing", "running")
RECENT = 12
"""Lines of metrics.jsonl that the present speed is taken from."""
APART = 0.4
"""Seconds between two looks at the disk, however many people watch."""
SILENCE = 4.0
"""Seconds without news after which a run that says it is running is asked for its lock."""

_versions = itertools.count(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """Where a run stands."""

    name: str
    status: Status
    step: int = 0  # optimizer steps done
    steps: int | None = None  # planned
    tokens_seen: int = 0
    seconds: float = 0.0  # of training so far
    seconds_left: float | None = None  # at the speed of the last lines; None when it is not going, or not known yet
    tokens_per_second: float | None = None  # of the last lines
    parameters: int | None = None
    bits_per_byte: float | None = None  # of the last evaluation
    floor_bits_per_byte: float | None = None  # entropy of the validation text, where it is known
    has_checkpoint: bool = False

    @property
    def is_going(self) -> bool:
        """Whether a process works on it."""
        return self.status in GOING


class Tail:
    """The objects of a .jsonl file that another process appends to, read as they come.

    Each `read` reads only what was appended since the one before. A last line without its end waits for it, a broken
    line is left out and counted, and a file that was replaced or cut is read from its beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        """The objects, each with an integer `step`."""
        self.broken = 0
        """Lines that are none."""
        self.offset = 0
        """Bytes read."""
        self._file: tuple[int, int] | None = None

    def read(self) -> bool:
        """Read what is new; whether anything changed."""
        try:
            with self.path.open("rb") as stream:
                found = os.fstat(stream.fileno())
                again = self._file is not None and (
                    self._file != (found.st_dev, found.st_ino) or found.st_size < self.offset
                )
                if again:
                    self._forget()
                self._file = (found.st_dev, found.st_ino)
                stream.seek(self.offset)
                *whole, _ = stream.read().split(b"\n")
        except OSError:
            had = self._file is not None
            self._forget()
            return had
        self.offset += sum(len(line) + 1 for line in whole)
        for line in whole:
            self._take(line)
        return again or bool(whole)

    def _take(self, line: bytes) -> None:
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict) and type(value.get("step")) is int:
            self.lines.append(value)
        elif line.strip():
            self.broken += 1

    def _forget(self) -> None:
        self.lines, self.broken, self.offset, self._file = [], 0, 0, None


class Watch:
    """One run, looked at by any number of people at once."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.metrics, self.samples = Tail(run / "metrics.jsonl"), Tail(run / "samples.jsonl")
        self.version = next(_versions)
        """Another number after each change; no two runs share one."""
        self._view = RunView(name=run.name, status="preparing")
        self._state: dict[str, Any] = {}
        self._stamp: tuple[float, int, int] | None = None
        self._looked = self._changed = -math.inf
        self._lock = threading.Lock()

    def look(self, *, since: float | None = None, at_once: bool = False) -> RunView:
        """Where the run stands.

        `since`: when the process began (seconds since 1970) that is alive and works on it; None: none is known.
        `at_once`: look at the disk even if somebody did a moment ago."""
        with self._lock:
            now = time.monotonic()
            if at_once or now - self._looked >= APART or (since is not None and not self._view.is_going):
                self._looked = now
                self._look(now, since)
            return self._view

    def _look(self, now: float, since: float | None) -> None:
        news = self.metrics.read()
        stamp = _stamp(self.run / "run.json")
        if stamp != self._stamp:
            self._stamp, self._state, news = stamp, read_object(self.run / "run.json"), True
            self.samples.read()  # they are written before run.json
        if news:
            self._changed = now
        status = self._status(since, quiet=now - self._changed > SILENCE)
        if news or status != self._view.status:
            self._view = self._describe(status)
            self.version = next(_versions)

    def _status(self, since: float | None, *, quiet: bool) -> Status:
        said = self._state.get("status")
        if not self.run.is_dir():
            return "gone"
        if since is not None and (self._stamp is None or self._stamp[0] < since):
            return "preparing"  # what the folder says was said before this process
        if said == "running":
            alive = since is not None or (self._view.status == "running" and not quiet) or is_locked(self.run)
            return "running" if alive else "broken off"
        if said in ("finished", "stopped", "failed"):
            return said
        return "preparing" if since is not None or is_locked(self.run) else "failed"

    def _describe(self, status: Status) -> RunView:
        state, lines = self._state, self.metrics.lines
        last = lines[-1] if lines else {}
        step = max(whole(state.get("step")) or 0, whole(last.get("step")) or 0)
        steps, speed, left = whole(state.get("steps")), None, None
        recent = [line for line in lines[-RECENT:] if number(line.get("seconds")) is not None]
        if len(recent) > 1:
            first, final = recent[0], recent[-1]
            seconds = final["seconds"] - first["seconds"]
            if seconds > 0 and final["step"] > first["step"]:
                speed = ((whole(final.get("tokens_seen")) or 0) - (whole(first.get("tokens_seen")) or 0)) / seconds
                if status == "running" and steps:
                    left = max(0, steps - step) * seconds / (final["step"] - first["step"])
        return RunView(
            name=self.run.name,
            status=status,
            step=step,
            steps=steps,
            tokens_seen=max(whole(state.get("tokens_seen")) or 0, whole(last.get("tokens_seen")) or 0),
            seconds=max(number(state.get("seconds")) or 0.0, number(last.get("seconds")) or 0.0),
            seconds_left=left,
            tokens_per_second=speed,
            parameters=whole(state.get("parameters")),
            bits_per_byte=next((bits for line in reversed(lines) if (bits := number(line.get("bits_per_byte")))), None),
            floor_bits_per_byte=number(state.get("floor_bits_per_byte")),
            has_checkpoint=bool(state.get("latest_checkpoint")),
        )


@lru_cache(maxsize=64)
def watch(run: Path) -> Watch:
    """The one watch of a run in this process."""
    return Watch(run)


def is_locked(run: Path) -> bool:
    """Whether a process trains in the folder: it holds the lock, which is looked at for an instant only."""
    lock = run / ".lock"
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # it vanished meanwhile, or belongs to somebody else
        return False


def known_runs(context: AppContext) -> dict[str, Path]:
    """The runs that the page may show, by name: those of `context.home`/runs, and the one that the model came from.
    Those that are going come first, then the model's own, then the newest."""
    folders = set(known_folders(context.home))
    own = context.run.resolve() if context.run and context.run.is_dir() else None
    if own is not None:
        folders.add(own)
    ordered = sorted(
        folders,
        key=lambda folder: (not _says_running(folder), folder != own, -_last_change(folder), folder.name),
    )
    runs: dict[str, Path] = {}
    for folder in ordered:
        names = itertools.chain([folder.name], (f"{folder.name} ({count})" for count in itertools.count(2)))
        runs[next(name for name in names if name not in runs)] = folder
    return runs


def known_folders(home: Path) -> list[Path]:
    """The run folders of `home`/runs."""
    return [folder.resolve() for folder in home.glob("runs/*") if _is_run(folder)]


def kept_checkpoints(run: Path) -> dict[int, Path]:
    """The checkpoints of a run that are whole, by step, in order."""
    names = ((re.fullmatch(r"step-(\d+)", folder.name), folder) for folder in run.glob("checkpoints/step-*"))
    found = {int(match[1]): folder for match, folder in names if match and (folder / "config.json").is_file()}
    return dict(sorted(found.items()))


def read_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty for one that is missing or broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def number(value: object) -> float | None:
    """`value` if it is a finite number."""
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None  # type: ignore[arg-type]


def whole(value: object) -> int | None:
    """`value` if it is a whole number."""
    return value if type(value) is int else None  # type: ignore[return-value]


def _is_run(folder: Path) -> bool:
    return not folder.name.startswith(".") and any(
        (folder / name).is_file() for name in ("run.json", "recipe.json", ".lock", "page.json")
    )


def _says_running(folder: Path) -> bool:
    said = read_object(folder / "run.json").get("status")
    return said == "running" or (said is None and is_locked(folder))


def _last_change(folder: Path) -> float:
    for name in ("run.json", "recipe.json", "."):
        if (stamp := _stamp(folder / name)) is not None:
            return stamp[0]
    return 0.0


def _stamp(path: Path) -> tuple[float, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime, found.st_size, found.st_ino
