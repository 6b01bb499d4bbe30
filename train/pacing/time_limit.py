"""How long a run takes at its present pace, and what its time limit does about it: it stretches, then it cuts short."""

import bisect
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from storage.text import duration

LATEST_STEPS, MOST_STEPS, LATEST_SHARE = 10, 50, 0.05
"""The present pace is that of as many steps as take this share of the limit, in this range."""
TIMES = ("step", "evaluation", "checkpoint")
"""The fields of `Costs` that are seconds."""
CHECK_STEPS, CHECK_SHARE = 10, 0.05
"""The limit is checked every so many steps, and sooner when this share of it has passed …"""
LEAST_STEPS, UNMEASURED_SHARE = 5, 0.25
"""… but not before so many steps were measured, or this share of it has passed."""
RESERVE = 1.1
"""A stretched limit is so many times what the present pace asks for, so that it need not be stretched again soon."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Seconds of each part of a run."""

    step: float
    evaluation: float
    checkpoint: float
    evaluate_every: int
    checkpoint_every: int

    def seconds(self, step: int, steps: int) -> float:
        """From the end of `step` to the end of a run of so many `steps`; the last one is evaluated and saved."""
        evaluations, checkpoints = (
            steps // every - step // every + (steps % every > 0)
            for every in (self.evaluate_every, self.checkpoint_every)
        )
        return (steps - step) * self.step + evaluations * self.evaluation + checkpoints * self.checkpoint

    def reachable(self, step: int, most: int, seconds: float) -> int:
        """How many steps, `most` at most and one more than `step` at least, a run can have that ends in `seconds`."""
        return step + max(1, bisect.bisect(range(step + 1, most + 1), seconds, key=lambda end: self.seconds(step, end)))


@dataclass(kw_only=True, slots=True)
class Pace:
    """What the parts of a run took lately.

    The first step of a process warms it up and does not count. Until an evaluation was measured, each of its forward
    passes is taken for a third of a step.
    """

    evaluate_every: int
    checkpoint_every: int
    evaluation_passes: int
    limit: float  # the time limit in seconds; 0: none
    evaluation: float | None = None
    checkpoint: float = 0.0
    _steps: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_STEPS))
    _is_warm: bool = False
    _began_at: float | None = None  # seconds of the run, as is …
    _checked_at: float = 0.0

    def step_took(self, seconds: float) -> None:
        """Count a step."""
        if self._is_warm:
            self._steps.append(seconds)
        self._is_warm = True

    def is_check_due(self, step: int, seconds: float, *, by_time: bool) -> bool:
        """Whether to check the limit after a step, `seconds` after the run's beginning.

        Args:
            by_time: whether time decides too; it may differ between processes.
        """
        if self._began_at is None:
            self._began_at = self._checked_at = seconds
        is_due = step % CHECK_STEPS == 0
        if by_time and (len(self._steps) >= LEAST_STEPS or seconds > self._began_at + UNMEASURED_SHARE * self.limit):
            is_due = is_due or seconds > self._checked_at + CHECK_SHARE * self.limit
        if is_due:
            self._checked_at = seconds
        return is_due

    @property
    def costs(self) -> Costs | None:
        """The present costs; None before the second step."""
        if not self._steps:
            return None
        total, count = 0.0, 0
        for seconds in reversed(self._steps):
            total, count = total + seconds, count + 1
            if count >= LATEST_STEPS and total >= LATEST_SHARE * self.limit:
                break
        step = total / count
        return Costs(
            step=step,
            evaluation=self.evaluation_passes * step / 3 if self.evaluation is None else self.evaluation,
            checkpoint=self.checkpoint,
            evaluate_every=self.evaluate_every,
            checkpoint_every=self.checkpoint_every,
        )


class TimeLimit:
    """The time limit of a run; all times are in seconds of its steps, over all sessions.

    Args:
        planned: the limit to begin with; 0: none.
        max_stretch: how many times as long it may become.
        steps: the planned steps.
    """

    def __init__(self, planned: float, max_stretch: float, steps: int) -> None:
        self.planned, self.max_stretch, self.steps = planned, max_stretch, steps
        self.begin = 0.0  # from when it counts
        self.end = planned  # the limit now; 0: none

    @property
    def last_end(self) -> float:
        """The latest end that it may have."""
        return self.begin + self.planned * self.max_stretch

    def fit(self, step: int, seconds: float, steps: int, costs: Costs) -> tuple[int, str | None]:
        """How many steps the run shall have, and a line for the log where that is news.

        The limit is stretched here.

        Args:
            step, seconds: done so far.
            steps: how many it shall have until now.
            costs: at the present pace.
        """
        if not self.end:
            return self.steps, None
        needed = seconds + costs.seconds(step, self.steps)
        rate = f"the planned {self.steps:,} steps at the present pace ({1 / max(costs.step, 1e-9):.3g} steps/s)"
        line, before, most = None, duration(self.end - self.begin), duration(self.last_end - self.begin)
        if self.end < needed and self.end < self.last_end:
            self.end = min(self.last_end, self.begin + RESERVE * (needed - self.begin))
            line = (
                f"{before} do not suffice for {rate}: the time limit is stretched to "
                f"{duration(self.end - self.begin)}, of at most {most} (--run.max-stretch)"
            )
        if needed <= self.end:
            if steps < self.steps:
                line = f"the time limit of {duration(self.end - self.begin)} suffices for {rate} after all"
            return self.steps, line
        reachable = costs.reachable(step, self.steps, self.end - seconds)
        if steps >= self.steps:
            line = (
                f"the time limit of {duration(self.end - self.begin)} does not suffice for {rate}: the schedule is "
                f"shortened, for now to {reachable:,} steps (--run.max-seconds 0: no limit)"
            )
        return reachable, line

    def describe_cut(self, progress: str) -> str:
        """One sentence on a run that the limit has ended after this progress."""
        return f"the time limit of {duration(self.end - self.begin)} ended the run after {progress}"

    def state_dict(self) -> dict[str, float]:
        """The state as JSON values."""
        return {"planned": self.planned, "begin": self.begin, "end": self.end}

    def resume(self, state: dict[str, Any] | None, *, renewed_at: float | None) -> None:
        """Continue from a state (None: of a version without one).

        Args:
            renewed_at: seconds of the run at which the limit begins again, which has cut the run short; None: it goes
                on.
        """
        self.begin = renewed_at if renewed_at is not None else (state or {}).get("begin", 0.0)
        self.end = self.begin + self.planned if self.planned else 0.0
        if state and renewed_at is None and state["planned"] == self.planned:
            self.end = min(state["end"], max(self.last_end, self.end))
