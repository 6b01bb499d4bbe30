"""Whether the steps of a run go through torch.compile: as asked for, or as trying finds.

Compiling takes a minute or two, and made steps 1.06 to 1.11 times as fast on a CPU (docs/log.md), so only a run with a
time limit of at least `SHORTEST_RUN` tries it. A compiled step may differ in its last bits: the run records what it
does (`TrainState.compiled`), and a resumed run does the same. Evaluations are never compiled.
"""

import statistics
import time
from collections.abc import Callable
from textwrap import shorten
from typing import Any

import torch

SHORTEST_RUN = 1800.0
"""Seconds of a run, estimated, from which on it is tried."""
ROUNDS = 3
WORTH_IT = 0.95
"""A compiled pass is taken where it needs at most this share of the time."""


class Compilation:
    """The model of a run's steps, compiled or not.

    Args:
        given: "yes" or "no"; "try": as trying finds.
        model: a `ModelWithLoss` that accelerate has prepared.
        may_try: whether this run can try.
        backend: of torch.compile.
    """

    def __init__(self, given: str, model: Any, *, may_try: bool, backend: str = "inductor") -> None:
        self.given, self.may_try, self.backend = given, may_try, backend
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

    def tries(self, seconds: float) -> bool:
        """Whether a run that begins, and takes about so long, tries it."""
        return self.given == "try" and self.may_try and seconds >= SHORTEST_RUN

    def look(self, make_pass: Callable[[Any], Callable[[], object]]) -> str:
        """Compile, let passes with and without take turns, and keep what is faster; a line for the log.

        Args:
            make_pass: given a model, a forward and backward pass with a whole micro-batch.
        """
        begun = time.perf_counter()
        self._turn(True)
        passes = {True: make_pass(self.model), False: make_pass(self.plain)}
        seconds: dict[bool, list[float]] = {True: [], False: []}
        try:
            for turn in range(ROUNDS + 1):
                for is_compiled, run_pass in passes.items():
                    start = time.perf_counter()
                    run_pass()
                    if turn:
                        seconds[is_compiled].append(time.perf_counter() - start)
        except RuntimeError as error:  # what torch.compile raises, for one where the compiler is broken
            self._turn(False)
            self.plain.zero_grad()
            return f"torch.compile was tried and failed, the run goes on without: {shorten(str(error), 200)}"
        compiled, plain = statistics.median(seconds[True]), statistics.median(seconds[False])
        if compiled > WORTH_IT * plain:
            self._turn(False)
        return (
            f"steps {'with' if self.is_on else 'without'} torch.compile, found by trying (with it a pass is "
            f"{plain / compiled:.2f} times as fast; tried for {time.perf_counter() - begun:.0f} s); "
            "--run.compile yes or no decides"
        )

    def _turn(self, on: bool) -> None:
        self.model = torch.compile(self.plain, backend=self.backend) if on else self.plain
