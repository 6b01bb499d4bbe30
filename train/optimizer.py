"""The optimizers, AdamW and Muon, with their parameter groups, and the schedule of the learning rate."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from train.config import OptimizerConfig, ScheduleConfig
from train.pacing.data_parallel import in_threads, thread_count


def unshard(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with all its shards (FSDP2); every process has to call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """A complete tensor, the same on every process, in the shards of another one."""
    if not isinstance(pattern, DTensor):
        return tensor
    on_device = tensor.to(pattern.device)
    return distribute_tensor(on_device, pattern.device_mesh, pattern.placements, src_data_rank=None)


class Muon(torch.optim.Optimizer):
    """Muon: the momentum of each matrix, orthogonalised, is its update (Jordan et al. 2024).

    Matrices of one shape are orthogonalised together. Where `found_inf`, a scalar, is 1, no parameter changes (as in
    torch's fused optimizers).
    An update of an (m, n) matrix is scaled by sqrt(max(1, m / n)). Matrices in shards are gathered for it.

    Args:
        params: 2-dimensional parameters.
        lr: learning rate.
        momentum: of the Nesterov momentum.
        weight_decay: decoupled: each step multiplies weights by 1 - lr x weight_decay.
        dtype: of the orthogonalisation; bf16 loses nothing (Jordan et al.) where the device multiplies it natively.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
    ):
        self.dtype = dtype
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        assert closure is None
        found_inf: torch.Tensor | None = getattr(self, "found_inf", None)
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            everything = [parameter for parameters in by_shape.values() for parameter in parameters]
            # What is in shards, other processes have to gather at the same time; on a GPU threads gain nothing.
            is_plain = all(
                parameter.device.type == "cpu" and type(parameter) is nn.Parameter for parameter in everything
            )
            threads = thread_count(len(everything)) if is_plain else 1
            parts = [[each[first::threads] for each in by_shape.values()] for first in range(threads)]
            in_threads(lambda part, group=group: self._update(part, group, found_inf), parts, threads)

    def _update(self, parts: list[list[nn.Parameter]], group: dict[str, Any], found_inf: torch.Tensor | None) -> None:
        """Update parameters, in lists of one shape each."""
        for parameters in filter(None, parts):
            rows, columns = parameters[0].shape
            updates = torch.stack([unshard(self._momentum(parameter, group["momentum"])) for parameter in parameters])
            scale = math.sqrt(max(1.0, rows / columns))
            for parameter, update in zip(parameters, orthogonalize(updates.to(self.dtype)), strict=True):
                before = parameter if found_inf is None else parameter.clone()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                update = shard_like(update.to(parameter.dtype), parameter)
                parameter.add_(update, alpha=-group["lr"] * scale)
                if found_inf is not None:
                    parameter.copy_(torch.where(found_inf.bool(), before, parameter))

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> torch.Tensor:
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum_buffer"], momentum)


def orthogonalize(matrices_NMK: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest (semi-)orthogonal matrices, roughly, by a quintic Newton-Schulz iteration (Jordan et al. 2024).

    Args:
        matrices_NMK: N matrices of shape (M, K).
        steps: number of iterations.

    Returns:
        Tensor of the same shape and type whose singular values lie near 1 (between about 0.7 and 1.2).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    transposed = matrices_NMK.size(-2) > matrices_NMK.size(-1)
    x = matrices_NMK.mT if transposed else matrices_NMK
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if transposed else x


def build_optimizers(
    model: nn.Module, config: OptimizerConfig, *, muon_dtype: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """The optimizers of a model: AdamW alone, or Muon, which orthogonalises in `muon_dtype`, for the blocks' matrices
    beside AdamW for the rest.

    Norms, biases and learned positions decay only where `weight_decay_on` is "everything".
    """
    blocks, decayed, rest = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if config.weight_decay_on == "matrices" and (parameter.ndim < 2 or "embed_positions" in name):
            rest.append(parameter)
        elif config.name == "muon" and ".layers." in name and parameter.ndim == 2:
            blocks.append(parameter)
        else:
            decayed.append(parameter)
    adamw = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )
    if not blocks:
        return [adamw]
    muon = Muon(
        blocks,
        lr=config.muon_learning_rate,
        momentum=config.muon_momentum,
        weight_decay=config.muon_weight_decay,
        dtype=muon_dtype,
    )
    return [adamw, muon]


def step_scaled(scaler: Any, optimizers: Iterable[torch.optim.Optimizer], norm: torch.Tensor) -> None:
    """One step of all optimizers, or of none where the gradient overflowed, and then one update of the scale (fp16).

    accelerate updates the scale after each optimizer, so that the gradients of the next one would be unscaled twice.

    Args:
        scaler: a `torch.amp.GradScaler` that has unscaled the gradients of all of them.
        norm: of all gradients.
    """
    if math.isfinite(float(norm)):
        for optimizer in optimizers:
            scaler.step(optimizer)
    scaler.update()


def set_learning_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to its peak times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("peak_lr", group["lr"])
            group["lr"] = group["peak_lr"] * factor


@dataclass(slots=True)
class Schedule:
    """The learning-rate factor at each step, and how many steps there will be.

    The state is `steps`, which may change to fit a time limit; where `wsd` began to fall, and from which factor; where
    a run that had ended was extended; and, for `plateau`, what the validation loss did so far.
    """

    config: ScheduleConfig
    steps: int  # the run's length
    fall_step: int | None = None  # set when the length changed while the rate was falling
    fall_factor: float = 1.0  # the factor at `fall_step`
    rise_step: int | None = None  # set when the run was extended …
    rise_factor: float = 1.0  # … at this factor
    plateau_factor: float = 1.0  # product of the reductions so far
    best: float = math.inf  # lowest validation loss that counted as an improvement
    evaluations_without_improvement: int = 0

    def factor(self, step: int) -> float:
        """The factor for the update that makes step `step` (from 0) into `step + 1`."""
        factor = self._unextended_factor(step)
        if self.rise_step is None:
            return factor
        risen = min(1.0, (step + 1 - self.rise_step) / max(1, self.config.warmup_steps))
        return min(factor, self.rise_factor + (1 - self.rise_factor) * risen)

    def _unextended_factor(self, step: int) -> float:
        config = self.config
        warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        if config.name == "plateau":
            return warmup * max(self.plateau_factor, config.final_ratio)
        if config.name == "cosine":
            done = min(1.0, max(0.0, step - config.warmup_steps) / max(1, self.steps - config.warmup_steps))
            return warmup * (config.final_ratio + (1 - config.final_ratio) * (1 + math.cos(math.pi * done)) / 2)
        if config.name == "wsd" and step >= self.decay_start:
            left = (self.steps - step) / max(1, self.steps - self.decay_start)
            return warmup * (config.final_ratio + (self.fall_factor - config.final_ratio) * left)
        return warmup

    @property
    def decay_start(self) -> int:
        """The step from which `wsd` falls linearly to the last one."""
        if self.fall_step is not None:
            return self.fall_step
        return round(self.steps * (1 - self.config.decay_fraction))

    def resize(self, step: int, steps: int) -> None:
        """Make the run end after `steps`, seen at `step`; a rate that is falling continues from where it is."""
        assert step < steps
        if self.config.name == "wsd" and step >= self.decay_start:
            self.fall_step, self.fall_factor = step, self.factor(step)
        self.steps = steps
        if self.config.name == "wsd" and self.fall_step is None and step > self.decay_start:
            self.fall_step = step

    def extend(self, step: int, steps: int) -> None:
        """Make a run that was planned to end earlier, seen at `step`, end after `steps`.

        The schedule becomes the one that the run would have had if it had been planned so. A rate that had fallen rises
        to it, as linearly and in as many steps as the warm-up: from a model whose rate has fallen to nothing training
        goes on at the peak (WSD-S: Wen et al., arXiv:2410.05192).
        """
        assert step < steps
        self.rise_step, self.rise_factor = step, self.factor(step)
        self.fall_step, self.fall_factor, self.steps = None, 1.0, steps

    def evaluated(self, validation_loss: float) -> bool:
        """Count an evaluation; True when the learning rate falls because of it.

        The rule of torch's ReduceLROnPlateau with a relative threshold.
        """
        if self.config.name != "plateau":
            return False
        if validation_loss < self.best * (1 - self.config.plateau_threshold):
            self.best, self.evaluations_without_improvement = validation_loss, 0
            return False
        self.evaluations_without_improvement += 1
        if self.evaluations_without_improvement <= self.config.plateau_patience:
            return False
        self.plateau_factor *= self.config.plateau_factor
        self.evaluations_without_improvement = 0
        return True

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON values (an infinite best is None)."""
        state = {key: value for key, value in asdict(self).items() if key != "config"}
        return state | {"best": None if math.isinf(self.best) else self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        for key, value in state.items():
            setattr(self, key, math.inf if key == "best" and value is None else value)
