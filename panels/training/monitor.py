"""A run as the page watches it: its state, its records as they are appended, and whether a process works on it."""

from __future__ import annotations

import itertools
import math
import shlex
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from panels.context import AppContext
from storage.run_folder import RunFolder, step_of

Status = Literal["preparing", "running", "finished", "stopped", "failed", "crashed", "missing"]
"""`preparing`: a process makes tokenizer and tokens; `crashed`: run.json says running, but no process has the folder;
`missing`: there is no such folder any more."""
STATUS_TEXTS: dict[Status, str] = {
    "preparing": "Preparing: tokenizer and tokens are being made …",
    "running": "Running",
    "finished": "Finished",
    "stopped": "Stopped, saved",
    "failed": "Failed",
    "crashed": "Crashed: its process ended without saving; Resume continues from the last checkpoint",
    "missing": "This run's folder is missing",
}
RESUMING = "Resuming: its last checkpoint is being loaded …"
STARTING = 1.0
"""Seconds that a process takes at least until it writes run.json: it imports torch first. The clock of processes is not
quite that of files."""
SPEED_RECORDS = 12
"""Records of metrics.jsonl that the present speed is measured on."""

_versions = itertools.count(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveSample:
    """What the model wrote on the way."""

    step: int
    prompt: str
    text: str  # with the prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """The progress of a run."""

    name: str
    status: Status
    step: int = 0  # optimizer steps done
    steps: int | None = None  # planned; where there is a time limit, as far as it lets the run come
    tokens_seen: int = 0
    seconds: float = 0.0  # of training so far
    seconds_left: float | None = None  # at the present speed, within the time limit; None: unknown, or nothing runs
    tokens_per_second: float | None = None  # at present
    model_flops_utilization: float | None = None  # 0 to 1, of the last record; old runs have none
    parameters: int | None = None
    loss: float | None = None  # in training, of the last record that has one
    bits_per_byte: float | None = None  # of the last evaluation
    best_bits_per_byte: float | None = None  # of the best checkpoint
    floor_bits_per_byte: float | None = None  # entropy of the validation text, where it is known
    has_checkpoint: bool = False
    cut_short: str | None = None  # why it ended before its planned tokens; None: it did not
    resume_command: str | None = None  # the command that goes on with it, where one does
    sample: LiveSample | None = None  # the latest

    @property
    def can_resume(self) -> bool:
        """Whether its process may be started again, if it came as far as to have a recipe."""
        return self.status in ("stopped", "crashed", "failed") or (
            self.status == "finished" and self.cut_short is not None
        )

    @property
    def status_text(self) -> str:
        """The status in a few words."""
        is_again = self.status == "preparing" and self.has_checkpoint
        return RESUMING if is_again else STATUS_TEXTS[self.status]

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
        changed = self.samples.read() or changed
        stamp = self.run.state_stamp()
        if stamp != self._stamp:
            self._stamp, self._state, changed = stamp, self.run.peek_state(), True
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
        if since is not None and (self._stamp is None or self._stamp[0] < since + STARTING):
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
        spent = max(number(each.get("seconds")) or 0.0 for each in (state, last))
        if left is not None and (limit := number(state.get("max_seconds"))):
            left = min(left, max(0.0, limit - spent))
        return RunView(
            name=self.run.path.name,
            status=status,
            step=step,
            steps=steps,
            tokens_seen=max(integer(each.get("tokens_seen")) or 0 for each in (state, last)),
            seconds=spent,
            seconds_left=left,
            tokens_per_second=speed,
            model_flops_utilization=number(last.get("model_flops_utilization")),
            parameters=integer(state.get("parameters")),
            loss=_latest(records, "train_loss"),
            bits_per_byte=_latest(records, "bits_per_byte"),
            best_bits_per_byte=_of_best(records, state, "bits_per_byte"),
            floor_bits_per_byte=number(state.get("floor_bits_per_byte")),
            has_checkpoint=bool(state.get("latest_checkpoint")),
            cut_short=sentence(state.get("cut_short")),
            resume_command=self._resume_command(status),
            sample=_live_sample(self.samples.records),
        )

    def _resume_command(self, status: Status) -> str | None:
        """What run.json says; for a run whose process could not, or did not in older versions, write it, the same."""
        command = sentence(self._state.get("resume_command"))
        if command is None and status in ("stopped", "crashed", "failed") and self.run.recipe_file.is_file():
            words = ("python", "-m", "train", str(self.run.recipe_file), "--run-dir", str(self.run.path), "--resume")
            command = shlex.join(words)
        # A run that the page has started knows its folder by its whole path.
        return command and command.replace(f"{Path.cwd()}/", "")


@lru_cache(maxsize=64)
def monitor_of(run: RunFolder) -> RunMonitor:
    """The one monitor of a run in this process."""
    return RunMonitor(run)


def known_runs(context: AppContext) -> dict[str, RunFolder]:
    """The runs that the page may show, by name: those of `context.home`/runs, and the one that the model came from.

    Active runs come first, then the model's own, then the newest. Runs of one name in several folders go by their
    paths, which stay theirs whatever the order is.
    """
    runs = {RunFolder(run.path.resolve()) for run in RunFolder.all_in(context.home)}
    own = RunFolder(context.run.resolve()) if context.run and context.run.is_dir() else None
    if own is not None:
        runs.add(own)

    def order(run: RunFolder) -> tuple[Any, ...]:
        status = run.peek_state().get("status")
        is_active = status == "running" or (status is None and run.is_locked)
        return not is_active, run != own, -run.last_change(), run.path.name

    counts, home = Counter(run.path.name for run in runs), context.home.resolve()

    def name(run: RunFolder) -> str:
        if counts[run.path.name] == 1:
            return run.path.name
        # Below a folder of the home, else whole: a path has a slash and a name has none, so no two are the same.
        return str(run.path.relative_to(home) if home in run.path.parents[1:] else run.path)

    return {name(run): run for run in sorted(runs, key=order)}


def _latest(records: list[dict[str, Any]], name: str) -> float | None:
    """The last number that a record has under this name."""
    return next((found for record in reversed(records) if (found := number(record.get(name))) is not None), None)


def _of_best(records: list[dict[str, Any]], state: dict[str, Any], name: str) -> float | None:
    """The number that the best checkpoint's record has under this name."""
    best = sentence(state.get("best_checkpoint"))
    step = step_of(Path(best)) if best else None
    return _latest([record for record in records if record["step"] == step], name)


def _live_sample(records: list[dict[str, Any]]) -> LiveSample | None:
    """The first prompt's sample of the last step that has one."""
    if not records:
        return None
    step = records[-1]["step"]
    of_step = [record for record in records[-100:] if record["step"] == step]
    first = next((each for each in of_step if each.get("prompt") == records[0].get("prompt")), of_step[0])
    return LiveSample(step=step, prompt=str(first.get("prompt") or ""), text=str(first.get("text") or ""))


def sentence(value: Any) -> str | None:
    """`value` if it is a text that says something."""
    return value if isinstance(value, str) and value.strip() else None


def number(value: Any) -> float | None:
    """`value` if it is a finite number."""
    return float(value) if type(value) in (int, float) and abs(value) <= sys.float_info.max else None


def integer(value: Any) -> int | None:
    """`value` if it is an integer."""
    return value if type(value) is int else None
