"""Whether a run may go on with the numbers of a step: the loss and the norm of the gradient, by those before them.

Training diverges when a learning rate is far too high, a batch is broken or a number overflows. A step whose numbers
say so must not reach the weights: a checkpoint of them would be worthless, and the one before it soon deleted.
"""

import math
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Any

WINDOW = 100
"""Steps whose numbers a new one is compared with."""
LEAST_NORMS = 20
"""Steps before the norm of a gradient is compared at all: the first ones differ by orders of magnitude."""
LOSS_RATIO = 5.0
"""A loss that is so many times both that of the first step and that of guessing has diverged. With a learning rate of a
hundred times the recipe's it reached 1.7 and came back; with a thousand times, 36 and 54 and did not (docs/log.md)."""
MOST_OVERFLOWS = 40
"""Steps in a row that fp16's gradient scaler may skip; it halves its scale at each, from 65,536."""


class DivergedError(ValueError):
    """The loss, the gradient or a weight is not finite, or far above what it was.

    Args:
        message: what happened, where, and what to do.
        reason: one short phrase without a path of the machine.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(kw_only=True, slots=True)
class Guard:
    """The recent numbers of a run, and the verdict on new ones.

    Args:
        spike_factor: a norm of more than so many times the largest of the window is refused; 0: only what is not
            finite.
        guess_loss: loss in nats of guessing each token of the vocabulary alike.
        clipping: the norm to which gradients are clipped; 0: they are not. A smaller one is never refused.
    """

    spike_factor: float
    guess_loss: float
    clipping: float = 0.0
    first_loss: float | None = None
    norms: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    overflows: int = 0  # steps in a row that the gradient scaler has skipped

    @property
    def loss_limit(self) -> float:
        """The largest loss, in nats, that a run may go on with."""
        is_known = self.spike_factor and self.first_loss is not None
        return LOSS_RATIO * max(self.first_loss or 0.0, self.guess_loss) if is_known else sys.float_info.max

    @property
    def norm_limit(self) -> float:
        """The largest norm of a gradient that a step may go on with."""
        is_known = self.spike_factor and len(self.norms) >= LEAST_NORMS
        return max(1.0, self.clipping, self.spike_factor * max(self.norms)) if is_known else sys.float_info.max

    def judge_loss(self, loss: float) -> str | None:
        """Why a run must not go on with this loss, in nats; None where it may."""
        if not math.isfinite(loss):
            return "is not finite"
        return None if loss <= self.loss_limit else f"is far above its history, {self.first_loss:.4g} in the first step"

    def judge_evaluated(self, name: str, value: float) -> str | None:
        """Why a run must not go on with a number of an evaluation; None where it may.

        Args:
            name: the number's in metrics.jsonl; losses are in nats, others must be finite only.
            value: the number.
        """
        if name.endswith("loss"):
            return self.judge_loss(value)
        return None if math.isfinite(value) else "is not finite"

    def judge_norm(self, norm: float, *, is_scaled: bool = False) -> str | None:
        """Why a step must not go on with a gradient of this norm; None where it may.

        Args:
            is_scaled: a gradient scaler (fp16) skips the update where the gradient is not finite, which happens.
        """
        if not math.isfinite(norm):
            return None if is_scaled and self.overflows < MOST_OVERFLOWS else "is not finite"
        if norm <= self.norm_limit:
            return None
        return f"is far above its history, at most {max(self.norms):.4g} in the last {len(self.norms)} steps"

    def remember(self, loss: float, norm: float) -> None:
        """Take a step that went on into the history."""
        self.first_loss = loss if self.first_loss is None else self.first_loss
        if math.isfinite(norm):
            self.norms.append(norm)
        self.overflows = 0 if math.isfinite(norm) else self.overflows + 1

    def state_dict(self) -> dict[str, Any]:
        """The recent numbers, as JSON values: a resumed run judges as an unbroken one would."""
        return {"first_loss": self.first_loss, "norms": list(self.norms), "overflows": self.overflows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the numbers of a checkpoint."""
        self.first_loss, self.overflows = state["first_loss"], state["overflows"]
        self.norms = deque(state["norms"], maxlen=WINDOW)
