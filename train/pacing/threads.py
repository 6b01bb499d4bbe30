"""How many CPU threads a run computes with: as many as were asked for, or as trying finds, again when the pace changes.

The number changes the last bits of a result, since each thread sums up the gradients of its windows (`data_parallel`).
So a run records each number with the step from which it holds (`TrainState.threads`; run.json has it too), and a
resumed run takes the numbers over, also those of steps that it repeats. `--run.threads N` fixes it.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from train.data.batches import Batch
from train.objective import forward_backward

AVAILABLE = torch.get_num_threads()
"""What torch takes by itself: one for each core that the process may use, or OMP_NUM_THREADS."""
TRIAL_SECONDS, TRIAL_ROUNDS, PASS_SECONDS = 3.0, 5, 0.3
"""A trial ends after so many seconds, or so many rounds of a pass with each number of threads, of about so long."""
SMALLEST_RUN = 20.0
"""Seconds of a run, estimated, below which nothing is tried when it begins."""
WORTH_IT, WORTH_CHANGING = 0.95, 0.85
"""More threads are taken where a pass takes at most this share of the time, and others than the present ones."""
CHANGED_PACE = 0.6
"""The threads are tried again when the pace is below this share of the best one, or the first one is of it."""
BLOCK_STEPS, BLOCK_SECONDS = 10, 5.0
"""The pace is that of at least so many steps and so many seconds."""
PAUSE, RETRY = 30.0, 300.0
"""Seconds from one trial to the next: at least; and at most, while some threads are not used."""


def candidates(most: int) -> list[int]:
    """Numbers of threads to try: powers of two, and `most`."""
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power < most)})


def try_threads(run_pass: Callable[[], object], numbers: Sequence[int]) -> dict[int, float]:
    """Median seconds of `run_pass` with each number of threads; they take turns, and the first round does not count.

    The number of threads is what it was before.
    """
    before = torch.get_num_threads()
    seconds: dict[int, list[float]] = {number: [] for number in numbers}
    started = time.perf_counter()
    for turn in range(TRIAL_ROUNDS + 1):
        for number in numbers:
            torch.set_num_threads(number)
            begun = time.perf_counter()
            run_pass()
            if turn:
                seconds[number].append(time.perf_counter() - begun)
        if turn and time.perf_counter() - started > TRIAL_SECONDS:
            break
    torch.set_num_threads(before)
    return {number: statistics.median(each) for number, each in seconds.items()}


def fastest(seconds: dict[int, float], present: int | None = None) -> int:
    """The number of threads to take, by their seconds a pass: the fewest that are about as fast as the fastest.

    The `present` number is kept where no other is clearly faster.
    """
    best = min(seconds.values())
    if present in seconds and best > WORTH_CHANGING * seconds[present]:
        return present
    return min(number for number, each in seconds.items() if WORTH_IT * each <= best)


class ThreadCount:
    """The number of threads of a run.

    Args:
        given: the number that was asked for; 0: what trying finds.
        may_try: whether this run can try.
    """

    def __init__(self, given: int, *, may_try: bool) -> None:
        self.given = given
        self.may_try = may_try and not given and AVAILABLE > 1
        self.history: list[list[int]] = []  # the numbers so far as [step, number]: from the step after that one on
        self.repeated: list[list[int]] = []  # those of steps that an earlier session did after the checkpoint
        self._looked_at = time.monotonic()
        self._forget_pace()

    @property
    def record(self) -> list[list[int]]:
        """The numbers for run.json."""
        return [*self.history, *self.repeated]

    def begin(self, history: list[list[int]], step: int, *, recorded: object, seconds: float) -> str | None:
        """Take the number to begin or to resume with, except where it is to be found by trying: then none is there yet.

        Args:
            history: of the checkpoint; new numbers are appended to it.
            recorded: `record` in run.json, which may know more than the checkpoint.
            seconds: a guess of what the run will take; a short one does not begin with a trial.

        Returns:
            A line for the log where the number is not the one before.
        """
        self.history = history
        before = history[-1][1] if history else None
        if self.given:
            self._take(self.given, step)
            change = f"{self.given} CPU threads from here on, {before} until now"
            return None if before in (None, self.given) else change
        if before is None:
            if not self.may_try or seconds < SMALLEST_RUN:
                self._take(AVAILABLE, step)
            return None
        if isinstance(recorded, list) and recorded[: len(history)] == history:
            self.repeated = [[int(at), int(number)] for at, number in recorded[len(history) :]]
        most = max(number for _, number in [*history[-1:], *self.repeated])
        if most > AVAILABLE:
            self.repeated = []
            self._take(min(before, AVAILABLE), step)
            return f"the run had up to {most} CPU threads, here are {AVAILABLE}: {history[-1][1]} from here on"
        torch.set_num_threads(before)
        return None

    def keep(self) -> None:
        """Try no other number from now on: a compiled step is made for the present one."""
        self.may_try = False

    def repeat(self, step: int) -> None:
        """Change the number where the earlier session did."""
        while self.repeated and self.repeated[0][0] <= step:
            self._take(self.repeated.pop(0)[1], step)

    def step_took(self, seconds: float) -> str | None:
        """Count a step; a reason to try again where there is one."""
        if not self.may_try or self.repeated:
            return None
        self._steps, self._seconds = self._steps + 1, self._seconds + seconds
        if self._steps < BLOCK_STEPS or self._seconds < BLOCK_SECONDS:
            return None
        pace = self._steps / self._seconds
        self._steps, self._seconds = 0, 0.0
        self._first, self._best = self._first or pace, max(self._best, pace)
        waited = time.monotonic() - self._looked_at
        if waited < PAUSE:
            return None
        if pace < CHANGED_PACE * self._best:
            return f"the pace fell to {pace / self._best:.0%}"
        if self._first < CHANGED_PACE * pace:
            return f"the pace rose to {pace / self._first:.0%}"
        return "looked again" if waited > RETRY and self.history[-1][1] < AVAILABLE else None

    def look(self, run_pass: Callable[[], object], step: int, reason: str | None = None) -> str | None:
        """Try the numbers and take the best; a line for the log where it is the first trial or changes the number."""
        seconds = try_threads(run_pass, candidates(AVAILABLE))
        before = self.history[-1][1] if self.history else None
        number = fastest(seconds, before)
        self._take(number, step)
        self._looked_at = time.monotonic()
        self._forget_pace()
        paces = ", ".join(f"{count}: {1 / each:.3g}" for count, each in seconds.items())
        tried = f"passes a second by threads: {paces}; --run.threads N fixes the number"
        threads = f"{number} CPU thread{'s' if number > 1 else ''}"
        if reason is None:
            return f"{threads}, found by trying ({tried})"
        if number == before:
            return None
        return f"step {step}: {reason}: {threads} from here on, {before} until now ({tried})"

    def _take(self, number: int, step: int) -> None:
        """Compute with so many threads from the step after `step` on."""
        torch.set_num_threads(number)
        if not self.history or self.history[-1][1] != number:
            self.history.append([step, number])

    def _forget_pace(self) -> None:
        self._first = self._best = 0.0  # steps a second of the first block since the last trial, and of the best
        self._steps, self._seconds = 0, 0.0


def training_pass(accelerator: Any, model: Any, batch: Batch, rows: int) -> Callable[[], None]:
    """A forward and backward pass, to be timed, which leaves weights and random states as they are.

    Args:
        model: a `ModelWithLoss` that `accelerator` has prepared, in training mode.
        batch: on the CPU; its first `rows` windows are taken, again and again where it has fewer: as many as a step has
            can be shared among as many threads.
    """
    device, batch = accelerator.device, batch.repeated(rows)

    def run_pass() -> None:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            forward_backward(accelerator, model, batch, rows)
        model.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run_pass
