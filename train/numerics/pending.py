"""Steps whose numbers are not read yet: a CUDA device is not waited for in each step.

To read a number waits until the device has done all that it was given, and then it has nothing to do until it is given
more. So loss and norm stay tensors until they are read together, `run.log_every` steps at most. The device itself
refuses what the guard would: from such a step on no weight changes, and the run fails when the numbers are read.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from train.data.batches import Batch
from train.numerics.guard import Guard


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingStep:
    """A step's loss and norm, scalars on its device; its batch; and where the run stood before its update."""

    loss: torch.Tensor
    norm: torch.Tensor
    batch: Batch
    position: dict[str, Any]
    step: int
    skipped: int
    tokens_seen: int


class DeviceGuard:
    """Refuses updates on the device, by the history that a guard had when the numbers were last read.

    Args:
        optimizers: AdamW (fused) and Muon, which leave weights as they are where their `found_inf` is 1: the way of
            torch's GradScaler.
        device: of the weights.
    """

    def __init__(self, optimizers: Iterable[Any], device: torch.device) -> None:
        self.refused = torch.zeros((), device=device)
        for optimizer in optimizers:
            optimizer.found_inf, optimizer.grad_scale = self.refused, None

    def judge(self, step: PendingStep, guard: Guard) -> None:
        """Refuse this update and all later ones where the guard would refuse its numbers."""
        is_good = (step.loss.double() <= guard.loss_limit) & (step.norm.double() <= guard.norm_limit)  # not so: nan
        self.refused.copy_(torch.maximum(self.refused, 1 - is_good.float()))
