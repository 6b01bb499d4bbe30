"""Which layer a number went wrong in: looked for only after it has, so that a healthy step pays nothing.

With FSDP2 every process has to call these, in the same order: they gather sharded tensors.
"""

from typing import Any

import torch
from torch import nn

from train.data.batches import Batch
from train.objective import ModelWithLoss
from train.optimizer import unshard


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no value of a tensor is infinite or not a number."""
    return bool(torch.isfinite(unshard(tensor)).all())


def broken_weight(model: nn.Module) -> str | None:
    """The first parameter, in the order of the model, that is not finite; None where all are."""
    return next((name for name, parameter in model.named_parameters() if not is_finite(parameter.detach())), None)


def broken_state(tensors: dict[str, torch.Tensor]) -> str | None:
    """The first of an optimizer's tensors, as `checkpoint.optimizer_tensors` names them, that is not finite."""
    return next((name for name, tensor in tensors.items() if not is_finite(tensor)), None)


def broken_gradient(model: nn.Module) -> str | None:
    """The parameter whose gradient was the first to be not finite; None where all are finite.

    Gradients are computed from the output to the input, so it is the last one in the order of the model. An embedding
    that is the output layer too counts as the first in that order.
    """
    named = [(name, parameter.grad) for name, parameter in model.named_parameters() if parameter.grad is not None]
    return next((name for name, gradient in reversed(named) if not is_finite(gradient)), None)


def largest_gradient(model: nn.Module) -> str | None:
    """The parameter with the largest norm of its gradient; None where there is no gradient."""
    norms = {
        name: float(torch.linalg.vector_norm(unshard(parameter.grad)))
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return max(norms, key=lambda name: norms[name], default=None)


@torch.no_grad()
def broken_layer(model: Any, batch: Batch, accelerator: Any) -> str | None:
    """The first layer whose output is not finite when a batch is computed again; None where none is.

    Args:
        model: a `PreTrainedModel`, its weights finite. Dropout may be on: it draws other numbers this time.
    """
    found: list[str] = []

    def look(name: str, output: Any) -> None:
        tensors = [output] if isinstance(output, torch.Tensor) else output if isinstance(output, tuple) else []
        floats = [tensor for tensor in tensors if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()]
        if not found and not all(map(is_finite, floats)):
            found.append(name)

    def hook(name: str) -> Any:
        return lambda module, inputs, output: look(name, output)

    hooks = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    rows = slice(accelerator.process_index, None, accelerator.num_processes)
    input_BL, target_BL = (ids_BL[rows].to(accelerator.device) for ids_BL in (batch.input_BL, batch.target_BL))
    try:
        with accelerator.autocast():
            ModelWithLoss(model)(input_BL, target_BL)
    finally:
        for handle in hooks:
            handle.remove()
    return found[0] if found else None
