"""Which layer a number went wrong in: looked for only after it has, so that a healthy step pays nothing. And what the
next step would do, tried before weights are saved.

With FSDP2 every process has to call these, in the same order: they gather sharded tensors.
"""

from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn

from train.data.batches import Batch
from train.objective import ModelWithLoss, forward_backward
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


def find_place(name: str, model: Any, batch: Batch, accelerator: Any) -> str | None:
    """The parameter or layer in which a step's `loss` or `gradient norm` went wrong; None where nothing is found.

    Args:
        name: which of the two.
        model: a `PreTrainedModel` with the gradients of the step.
        batch: of the step.
    """
    if name == "loss":
        place = broken_weight(model) or broken_layer(model, batch, accelerator)
    else:
        place = broken_gradient(model)
    if accelerator.num_processes > 1:  # a layer is broken in the share of one process, and all of them say which
        place = next(filter(None, gather_object([place])), None)
    return place or largest_gradient(model)


def try_step(accelerator: Any, model: Any, batch: Batch, rows: int) -> tuple[float, float]:
    """Loss in nats and norm of the gradient of a batch, as a step has them; weights and random states stay as they are.

    Args:
        model: a `ModelWithLoss` that `accelerator` has prepared, in training mode, without gradients.
        batch: on the CPU; its first `rows` windows are taken, again and again where it has fewer.
        rows: over all processes, as many as a micro-batch of the run has: no other shape is compiled, no memory added.
    """
    device = accelerator.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        loss = forward_backward(accelerator, model, batch.repeated(rows), rows)
    norm = unshard(torch.nn.utils.clip_grad_norm_(model.parameters(), torch.inf))
    model.zero_grad()
    scale = 1.0 if accelerator.scaler is None else accelerator.scaler.get_scale()
    return float(loss), float(norm) / scale
