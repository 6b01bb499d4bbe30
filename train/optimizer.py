"""Parameter groups, AdamW and Muon."""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn

from train.config import OptimizerConfig
from train.distributed import sharded_as, whole


class Muon(torch.optim.Optimizer):
    """Muon: the momentum of each matrix, orthogonalised, is its update (Jordan et al. 2024).

    Matrices of one shape are orthogonalised together, in fp32 on a CPU (where bf16 is slow) and in bf16 elsewhere.
    An update of an (m, n) matrix is scaled by sqrt(max(1, m / n)). Matrices in shards are gathered for it.

    Args:
        params: 2-dimensional parameters.
        lr: learning rate.
        momentum: of the Nesterov momentum.
        weight_decay: decoupled: each step multiplies weights by 1 - lr x weight_decay.
    """

    def __init__(self, params: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for (rows, columns), parameters in by_shape.items():
                updates = torch.stack([whole(self._momentum(parameter, group["momentum"])) for parameter in parameters])
                scale = math.sqrt(max(1.0, rows / columns))
                for parameter, update in zip(parameters, orthogonalize(updates), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update = sharded_as(update.to(parameter.dtype), parameter)
                    parameter.add_(update, alpha=-group["lr"] * scale)

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
        Tensor of the same shape whose singular values lie near 1 (between about 0.7 and 1.2).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices_NMK if matrices_NMK.device.type == "cpu" else matrices_NMK.bfloat16()
    transposed = x.size(-2) > x.size(-1)
    x = x.mT if transposed else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if transposed else x


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of a model: AdamW alone, or Muon for the blocks' matrices beside AdamW for the rest.

    Weights with two dimensions decay; norms, biases and learned positions do not.
    """
    blocks, decayed, rest = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2 or "embed_positions" in name:
            rest.append(parameter)
        elif config.name == "muon" and ".layers." in name:
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
    )
    return [adamw, muon]


def set_learning_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to its peak times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("peak_lr", group["lr"])
            group["lr"] = group["peak_lr"] * factor
