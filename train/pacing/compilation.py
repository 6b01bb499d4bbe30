"""Whether the steps of a run go through torch.compile: as asked for, or as trying finds.

Compiling takes a minute or two, and made steps 1.06 to 1.11 times as fast on a CPU (docs/log.md), so only a run of at
least `SHORTEST_RUN` tries it. A compiled step may differ in its last bits: the run records what it does
(`TrainState.compiled`), and a resumed run does the same. Evaluations are never compiled.

On a CPU a run without a time limit tries nothing: the same command gives the same bits, and what trying finds depends
on what else the machine does. On CUDA the same bits are not promised anyway (the gradients of torch's fused attention
are added in the order in which thread blocks end), so long runs try it with a time limit and without.
"""

import statistics
import subprocess
import time
from collections.abc import Callable
from textwrap import shorten
from typing import Any

import torch

SHORTEST_RUN = {"cpu": 1800.0, "cuda": 600.0}
"""Seconds of a run, estimated, from which on it is tried. On CUDA two minutes are repaid in ten where a step is 1.25
times as fast; nanoGPT's README has 250 ms without and 135 ms with it. We have not measured it."""
ROUNDS = 3
WORTH_IT = 0.95
"""A compiled pass is taken where it needs at most this share of the time."""


def may_try(device_type: str, *, processes: int, max_seconds: float, objective: str) -> bool:
    """Whether a run can try torch.compile.

    Several processes could find different things. A masked run on CUDA does not try: it has another number of hidden
    tokens in each step, for which it would be compiled again and again.

    Args:
        device_type: "cpu", "cuda" or "mps".
        processes: that share the run.
        max_seconds: its time limit; 0: none.
        objective: `data.objective`.
    """
    if processes > 1:
        return False
    return objective != "masked" if device_type == "cuda" else max_seconds > 0


class Compilation:
    """The model of a run's steps, compiled or not.

    Args:
        given: "yes" or "no"; "try": as trying finds.
        model: a `ModelWithLoss` that accelerate has prepared.
        may_try: whether this run can try.
        device_type: that the model is on.
        backend: of torch.compile.
    """

    def __init__(
        self, given: str, model: Any, *, may_try: bool, device_type: str = "cpu", backend: Any = "inductor"
    ) -> None:
        self.given, self.may_try, self.device_type, self.backend = given, may_try, device_type, backend
        self.plain = self.model = model

    @property
    def is_on(self) -> bool:
        """Whether the steps are compiled."""
        return self.model is not self.plain

    def begin(self, before: bool | None) -> str | None:
        """Begin as asked for, or resume as before; "try" begins without.

        Args:
            before: whether the run was compiled until now; None: it has not begun.

        Returns:
            A line for the log where it changes.
        """
        asked = {"yes": True, "no": False}.get(self.given, bool(before))
        self._turn(asked)
        if before is None or before == asked:
            return None
        return (
            f"{'with' if asked else 'without'} torch.compile from here on, {'with' if before else 'without'} until now"
        )

    def tries(self, estimate: Callable[[], float]) -> bool:
        """Whether a run that begins tries it.

        Args:
            estimate: seconds that the run will take; called where that decides.
        """
        return self.given == "try" and self.may_try and estimate() >= SHORTEST_RUN[self.device_type]

    def pass_seconds(self, make_pass: Callable[[Any], Callable[[], object]]) -> float:
        """Median seconds of a pass without; `make_pass` is that of `look`."""
        return statistics.median(_take_turns([make_pass(self.plain)])[0])

    def look(self, make_pass: Callable[[Any], Callable[[], object]]) -> str:
        """Compile, let passes with and without take turns, and keep what is faster; a line for the log.

        Args:
            make_pass: given a model, a forward and backward pass with a whole micro-batch.
        """
        begun = time.perf_counter()
        self._turn(True)
        try:
            times = _take_turns([make_pass(self.model), make_pass(self.plain)])
        # What torch.compile raises for one where its compiler, or the one that it calls, is broken or missing.
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            self._turn(False)
            self.plain.zero_grad()
            return f"torch.compile was tried and failed, the run goes on without: {shorten(str(error), 200)}"
        compiled, plain = map(statistics.median, times)
        if compiled > WORTH_IT * plain:
            self._turn(False)
        return (
            f"steps {'with' if self.is_on else 'without'} torch.compile, found by trying (with it a pass is "
            f"{plain / compiled:.2f} times as fast; tried for {time.perf_counter() - begun:.0f} s); "
            "--run.compile yes or no decides"
        )

    def _turn(self, on: bool) -> None:
        self.model = torch.compile(self.plain, backend=self.backend) if on else self.plain


def _take_turns(passes: list[Callable[[], object]]) -> list[list[float]]:
    """Seconds of each pass in `ROUNDS` rounds, after one that does not count."""
    seconds: list[list[float]] = [[] for _ in passes]
    for turn in range(ROUNDS + 1):
        for times, run_pass in zip(seconds, passes, strict=True):
            start = time.perf_counter()
            run_pass()
            if turn:
                times.append(time.perf_counter() - start)
    return seconds
