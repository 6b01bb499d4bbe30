"""A run as the page watches it: its state, its records as they are appended, and whether a process works on it."""

from __future__ import annotations

import itertools
import math
import sys
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from panels.context import AppContext
from storage.run_folder import RunFolder

Status = Literal["preparing", "running", "finished", "stopped", "failed", "crashed", "missing"]
"""`preparing`: a process makes tokenizer and tokens; `crashed`: run.json says running, but no process has the folder;
`missing`: there is no such folder any more."""
SPEED_RECORDS = 12
"""Records of metrics.jsonl that the present speed is measured on."""

_versions = itertools.count(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """The progress of a run."""

    name: str
    status: Status
    step: int = 0  # optimizer steps done
    steps: int | None = None  # planned
    tokens_seen: int = 0
    seconds: float = 0.0  # of training so far
    seconds_left: float | None = None  # at the present speed; None while it is unknown, and when nothing runs
    tokens_per_second: float | None = None  # at present
    model_flops_utilization: float | None = None  # 0 to 1, of the last record; old runs have none
    parameters: int | None = None
    bits_per_byte: float | None = None  # of the last evaluation
    floor_bits_per_byte: float | None = None  # entropy of the validation text, where it is known
    has_checkpoint: bool = False

    @property
    def is_active(self) -> bool:
        """Whether a process works on it."""
        return self.status in ("preparing", "running")


class RunMonitor:
    """One run, watched by any number of visitors at once.

    The disk is read every `interval` seconds at most; the lock of a run that says "running" is tested after `silence`
    seconds without news.
    """

    def __init__(self, run: RunFolder, *, interval: float = 0.4, silence: float = 4.0) -> None:
        self.run, self.interval, self.silence = run, interval, silence
        self.metrics, self.samples = run.follow_metrics(), run.follow_samples()
        self.version = next(_versions)
        """Another number after each change; no two runs share one."""
        self._view = RunView(name=run.path.name, status="preparing")
        self._state: dict[str, Any] = {}
        self._stamp: tuple[float, int, int] | None = None
        self._read_at = self._changed_at = -math.inf
        self._lock = threading.Lock()

    def view(self, *, since: float | None = None, refresh: bool = False) -> RunView:
        """The progress of the run, read from the disk when `interval` has passed, or at once to `refresh`.

        `since` is when the process was started (seconds since 1970) that works on it; None: none is known.
        """
        with self._lock:
            now = time.monotonic()
            if refresh or now - self._read_at >= self.interval or (since is not None and not self._view.is_active):
                self._read_at = now
                self._read(now, since)
            return self._view

    def _read(self, now: float, since: float | None) -> None:
        changed = self.metrics.read()
        stamp = self.run.state_stamp()
        if stamp != self._stamp:
            self._stamp, self._state, changed = stamp, self.run.peek_state(), True
            self.samples.read()  # they are written before run.json
        if changed:
            self._changed_at = now
        status = self._status(since, is_silent=now - self._changed_at > self.silence)
        if changed or status != self._view.status:
            self._view = self._describe(status)
            self.version = next(_versions)

    def _status(self, since: float | None, *, is_silent: bool) -> Status:
        status = self._state.get("status")
        if not self.run.path.is_dir():
            return "missing"
        if since is not None and (self._stamp is None or self._stamp[0] < since):
            return "preparing"  # run.json is older than this process
        if status == "running":
            was_running = self._view.status == "running" and not is_silent
            return "running" if since is not None or was_running or self.run.is_locked else "crashed"
        if status in ("finished", "stopped", "failed"):
            return status
        return "preparing" if since is not None or self.run.is_locked else "failed"

    def _describe(self, status: Status) -> RunView:
        state, records = self._state, self.metrics.records
        last = records[-1] if records else {}
        step = max(integer(state.get("step")) or 0, last.get("step", 0))
        steps, speed, left = integer(state.get("steps")), None, None
        recent = [record for record in records[-SPEED_RECORDS:] if number(record.get("seconds")) is not None]
        if len(recent) > 1:
            first, final = recent[0], recent[-1]
            seconds, new_steps = final["seconds"] - first["seconds"], final["step"] - first["step"]
            if seconds > 0 and new_steps > 0:
                seen = [integer(record.get("tokens_seen")) or 0 for record in (first, final)]
                speed = (seen[1] - seen[0]) / seconds
                if status == "running" and steps:
                    left = max(0, steps - step) * seconds / new_steps
        bits = (number(record.get("bits_per_byte")) for record in reversed(records))
        return RunView(
            name=self.run.path.name,
            status=status,
            step=step,
            steps=steps,
            tokens_seen=max(integer(each.get("tokens_seen")) or 0 for each in (state, last)),
            seconds=max(number(each.get("seconds")) or 0.0 for each in (state, last)),
            seconds_left=left,
            tokens_per_second=speed,
            model_flops_utilization=number(last.get("model_flops_utilization")),
            parameters=integer(state.get("parameters")),
            bits_per_byte=next(filter(None, bits), None),
            floor_bits_per_byte=number(state.get("floor_bits_per_byte")),
            has_checkpoint=bool(state.get("latest_checkpoint")),
        )


@lru_cache(maxsize=64)
def monitor_of(run: RunFolder) -> RunMonitor:
    """The one monitor of a run in this process."""
    return RunMonitor(run)


def known_runs(context: AppContext) -> dict[str, RunFolder]:
    """The runs that the page may show, by name: those of `context.home`/runs, and the one that the model came from.

    Active runs come first, then the model's own, then the newest.
    """
    runs = {RunFolder(run.path.resolve()) for run in RunFolder.all_in(context.home)}
    own = RunFolder(context.run.resolve()) if context.run and context.run.is_dir() else None
    if own is not None:
        runs.add(own)

    def order(run: RunFolder) -> tuple[Any, ...]:
        status = run.peek_state().get("status")
        is_active = status == "running" or (status is None and run.is_locked)
        return not is_active, run != own, -run.last_change(), run.path.name

    named: dict[str, RunFolder] = {}
    for run in sorted(runs, key=order):
        name = run.path.name
        others = (f"{name} ({count})" for count in itertools.count(2))
        named[next(free for free in itertools.chain([name], others) if free not in named)] = run
    return named


def number(value: Any) -> float | None:
    """`value` if it is a finite number."""
    return float(value) if type(value) in (int, float) and abs(value) <= sys.float_info.max else None


def integer(value: Any) -> int | None:
    """`value` if it is an integer."""
    return value if type(value) is int else None
