"""The loss without logits: softmax and cross-entropy of the output layer, a chunk of rows at a time.

Called by `train.objective`; no part of a published model.

Axes in tensor names: N tokens of all sequences in a row, E hidden_size, V vocabulary.
"""

import math

import torch
from torch.nn import functional

from train.data.batches import IGNORED

CROSS_ENTROPY_ROWS = 512
"""The most tokens whose logits exist at the same time while the loss is computed …"""
CROSS_ENTROPY_LOGITS = 2**22
"""… and on the CPU about so many logits at most: those of a large vocabulary would add much to the peak of memory."""
CROSS_ENTROPY_CUDA_LOGITS = 2**26
"""The most logits at the same time on CUDA: 256 MiB in float32, and about two and a half times that with the copies."""
CROSS_ENTROPY_CUDA_UNIT = 128
"""Chunks on CUDA are multiples of so many rows, a tile of its matrix products."""
CROSS_ENTROPY_ALIGNMENT = 16


def cross_entropy_rows(rows: int, vocabulary: int, device_type: str) -> int:
    """How many rows the loss takes at a time, of so many.

    On the CPU few, whose logits stay in its caches. On CUDA as many as its memory allows, in chunks of about one size:
    each launches a dozen kernels, which take longer to launch than to compute for a few hundred rows, and torch.compile
    unrolls the loop over them.
    """
    if device_type == "cuda":
        unit = CROSS_ENTROPY_CUDA_UNIT
        most = unit * max(1, CROSS_ENTROPY_CUDA_LOGITS // (unit * vocabulary))
        chunks = max(1, math.ceil(rows / most))
        return max(1, min(rows, unit * math.ceil(rows / (unit * chunks))))
    most = CROSS_ENTROPY_ROWS
    if device_type == "cpu":
        most = min(most, 64 * math.ceil(CROSS_ENTROPY_LOGITS / (64 * vocabulary)))
    return max(1, min(rows, most))


class LinearCrossEntropy(torch.autograd.Function):
    """Sum of the cross-entropies of softmax(x W^T + b), in nats, a chunk of rows at a time.

    The gradients are taken in the forward pass, while a chunk's probabilities are at hand, so that logits never exist
    for more than `cross_entropy_rows` tokens (the idea is Liger Kernel's, arXiv:2410.10989). The vocabulary is padded
    with impossible tokens where it must be: matrix products are a third slower on rows that do not begin at aligned
    addresses.
    """

    @staticmethod
    def forward(ctx, x_NE, weight_VE, bias_V, target_N, dtype, with_gradients, teacher):
        need_x, need_weight, need_bias = (with_gradients and needed for needed in ctx.needs_input_grad[:3])
        precise = torch.promote_types(dtype, torch.float32)
        vocabulary = weight_VE.shape[0]
        padding = -vocabulary % CROSS_ENTROPY_ALIGNMENT
        weight, bias = weight_VE.to(dtype), None if bias_V is None else bias_V.to(dtype)
        if padding:  # `pad` copies without need too
            weight = functional.pad(weight, (0, 0, 0, padding))
            bias = None if bias is None else functional.pad(bias, (0, padding))
        total = x_NE.new_zeros((), dtype=precise)
        grad_x_NE = torch.empty_like(x_NE) if need_x else None
        grad_weight = torch.zeros_like(weight, dtype=precise) if need_weight else None
        grad_bias = weight.new_zeros(weight.shape[0], dtype=precise) if need_bias else None
        count = cross_entropy_rows(x_NE.shape[0], vocabulary, x_NE.device.type)
        on_cpu = x_NE.device.type == "cpu"
        of_chunk = weight.new_empty(weight.shape if on_cpu and need_weight and dtype != precise else 0, dtype=precise)
        # Every chunk is computed in the same memory: new pages for each would cost a seventh of the time.
        all_logits = weight.new_empty(count, weight.shape[0])
        all_precise = all_logits.new_empty(all_logits.shape if dtype != precise else 0, dtype=precise)
        for start in range(0, x_NE.shape[0], count):
            rows = slice(start, start + count)
            x = x_NE[rows].to(dtype)
            target = target_N[rows, None]
            counted = (target != IGNORED).to(precise)
            target = target.clamp(min=0)
            logits = probabilities = all_logits[: len(x)]
            if bias is None:
                torch.mm(x, weight.T, out=logits)
            else:
                torch.addmm(bias, x, weight.T, out=logits)
            logits[:, vocabulary:] = -math.inf
            if dtype != precise:
                probabilities = all_precise[: len(x)].copy_(logits)
            highest, of_target = probabilities.amax(-1, keepdim=True), probabilities.gather(1, target)
            if teacher is not None:  # half of what is to be predicted is the text's token, half the teacher's mean
                taught = torch.softmax(functional.linear(teacher[0][rows].to(dtype), *teacher[1:]).to(precise), -1)
                expected = (taught * probabilities[:, :vocabulary]).sum(-1, keepdim=True)
                of_target = (of_target + expected) / 2
            probabilities = torch.softmax(probabilities, -1, out=probabilities if on_cpu else None)
            log_normalizer = highest - probabilities.amax(-1, keepdim=True).log()
            total += ((log_normalizer - of_target) * counted).sum()
            if not with_gradients:
                continue
            grad, weight_of_text = probabilities, 1.0
            if teacher is not None:
                grad[:, :vocabulary].sub_(taught, alpha=0.5)  # pyright: ignore[reportPossiblyUnboundVariable]
                weight_of_text = 0.5
            grad = grad.scatter_add_(1, target, torch.full_like(target, -weight_of_text, dtype=precise)).mul_(counted)
            if grad_bias is not None:
                grad_bias += grad.sum(0)
            if dtype != precise:
                grad = logits.copy_(grad)
            if grad_x_NE is not None:
                grad_x_NE[rows] = grad @ weight
            if grad_weight is not None and dtype == precise:
                grad_weight.addmm_(grad.T, x)
            elif grad_weight is not None:
                grad_weight += of_chunk.copy_(grad.T @ x) if on_cpu else grad.T @ x
        ctx.save_for_backward(grad_x_NE, grad_weight, grad_bias)
        ctx.vocabulary, ctx.dtypes = vocabulary, (weight_VE.dtype, None if bias_V is None else bias_V.dtype)
        return total

    @staticmethod
    def backward(ctx, *grad_outputs):
        scale, (grad_x_NE, *others) = grad_outputs[0], ctx.saved_tensors
        grad_x_NE = None if grad_x_NE is None else grad_x_NE * scale  # a scalar, which keeps its precision
        others = (
            None if gradient is None else (gradient[: ctx.vocabulary] * scale).to(dtype)
            for gradient, dtype in zip(others, ctx.dtypes, strict=True)
        )
        return grad_x_NE, *others, None, None, None, None


def linear_cross_entropy(
    x_NE: torch.Tensor,
    weight_VE: torch.Tensor,
    bias_V: torch.Tensor | None,
    target_N: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    teacher: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] | None = None,
) -> torch.Tensor:
    """Mean cross-entropy, in nats a token, of a linear output layer, without ever holding all logits.

    With a `teacher`, the hidden states (N, E), weights and bias of another model's output layer, half of it is the
    cross-entropy with that model's probabilities (knowledge distillation, arXiv:1503.02531). Targets equal to -100 are
    left out. The sum is divided by `num_items_in_batch` where it is given (the tokens of all micro-batches of an
    optimizer step), else by the number of targets. Runs in autocast's type where that is on; sums and the weight's
    gradient are kept in float32. Returns a scalar.
    """
    device = x_NE.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VE.dtype
    with torch.autocast(device, enabled=False):
        if teacher is not None:
            taught_NE, taught_VE, taught_V = teacher
            teacher = taught_NE, taught_VE.to(dtype), None if taught_V is None else taught_V.to(dtype)
        total = LinearCrossEntropy.apply(x_NE, weight_VE, bias_V, target_N, dtype, torch.is_grad_enabled(), teacher)
    count = (target_N != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    return total / (count.to(total.device) if isinstance(count, torch.Tensor) else count)
