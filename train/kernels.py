"""What training computes faster than torch on the CPU: attention, dropout and norms.

None of it is part of a published model. Attention is registered with transformers' attention interface; dropout and
norms take the place of the model's modules (`use_kernels`).

Axes in tensor names: N tokens of all sequences in a row, E hidden_size, B batch, L tokens, H query heads, G key/value
heads, Z heads of all sequences in a row, D head_dim.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface

from modeling.modeling_scratchgpt import RMSNorm, ScratchGPTMLP

BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integers as wide as a floating-point type, by bytes."""
ATTENTION_ROWS = 64
ATTENTION_SCORES = 2**20
ATTENTION_KEPT = 512
"""The longest sequences whose attention weights are kept without dropout; for longer ones they would add up."""
ATTENTION_LONGEST = 1024
"""The longest sequences for which torch's attention in float32 without dropout is slower (docs/log.md)."""
_of_thread = threading.local()


@contextmanager
def seed_dropout(seed: int) -> Iterator[None]:
    """In the block, dropout in this thread draws from a generator of its own with this seed, not from torch's, which
    all threads share."""
    _of_thread.generator = torch.Generator().manual_seed(seed)
    try:
        yield
    finally:
        _of_thread.generator = None


def draw_kept(shape: torch.Size, rate: float) -> tuple[torch.Tensor, float]:
    """A random mask for dropout on the CPU (int16, all bits set where kept, else none) and the factor that preserves
    the mean.

    Sixteen bits decide a value, so the rate is a multiple of 1/65536. torch's own dropout draws 64 bits for each value,
    one after the other: with a rate of 0.2 that took a third of a training step.
    """
    count = math.prod(shape)
    dropped = min(max(round(rate * 65536), 1), 65535)
    generator = getattr(_of_thread, "generator", None)
    bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    bits = bits.view(torch.int16)
    threshold = dropped - 32768
    kept = bits[:count].view(shape).clamp_(threshold - 1, threshold).sub_(threshold).bitwise_not_()
    return kept, 65536 / (65536 - dropped)


def drop(x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """x, set to 0 in place where a mask of `draw_kept` says so: its bits and those of the mask, which is faster than a
    product of two types."""
    x.view(BITS[x.element_size()]).bitwise_and_(kept)
    return x


def sign_dropped(weights: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Weights of 16 bits, none negative, with a minus sign where a mask of `draw_kept` drops them."""
    return kept.bitwise_not().bitwise_and_(-32768).bitwise_or_(weights.view(torch.int16)).view(weights.dtype)


def split_signed(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights and the mask that `sign_dropped` was given."""
    bits = weights.view(torch.int16)
    return bits.bitwise_and(32767).view(weights.dtype), (bits >> 15).bitwise_not_()


def trains_on_cpu(module: nn.Module, x: torch.Tensor) -> bool:
    """Whether a module computes x by this file."""
    return module.training and x.device.type == "cpu" and not torch.compiler.is_compiling()


class Dropout(torch.autograd.Function):
    """x with this rate of its values set to 0 and the others enlarged, by `draw_kept`."""

    @staticmethod
    def forward(ctx, x, rate):
        kept, ctx.factor = draw_kept(x.shape, rate)
        ctx.save_for_backward(kept)
        return drop(x * ctx.factor, kept)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs):  # pyright: ignore[reportIncompatibleMethodOverride]
        return drop(grad_outputs[0] * ctx.factor, *ctx.saved_tensors), None


class CpuDropout(nn.Dropout):
    """torch's, with cheaper random numbers on the CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.p == 0 or not trains_on_cpu(self, input):
            return super().forward(input)
        return Dropout.apply(input, self.p)


class ReLUDropout(torch.autograd.Function):
    """`Dropout` of ReLU(x): what is not positive in the result passes no gradient, so that neither the mask nor ReLU's
    own result is kept."""

    @staticmethod
    def forward(ctx, x, rate):
        kept, ctx.factor = draw_kept(x.shape, rate)
        result = drop(torch.relu(x).mul_(ctx.factor), kept)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs):  # pyright: ignore[reportIncompatibleMethodOverride]
        return torch.ops.aten.threshold_backward(grad_outputs[0] * ctx.factor, *ctx.saved_tensors, 0), None


class CpuReLUDropout(CpuDropout):
    """ReLU, then dropout."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.p == 0 or not trains_on_cpu(self, input):
            return super().forward(torch.relu(input))
        return ReLUDropout.apply(input, self.p)


class RootMeanSquareNorm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) x weight over the last axis, computed in float32 at least; the result is in `dtype`.

    Autograd's own way through these operations passes over the values about three times as often.
    """

    @staticmethod
    def forward(ctx, x, weight, eps, dtype):
        precise = torch.promote_types(x.dtype, torch.float32)
        root = math.sqrt(x.shape[-1])
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=precise)
        inverse = torch.hypot(norm, norm.new_tensor(root * math.sqrt(eps))).reciprocal_().mul_(root)
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs):  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad,), (x, weight, inverse) = grad_outputs, ctx.saved_tensors
        normal, precise_weight = x * inverse, weight.to(inverse.dtype)
        product_NE = (grad * normal).flatten(0, -2)
        mean = torch.mv(product_NE, precise_weight).div_(x.shape[-1]).view(inverse.shape)
        grad_x = (grad * precise_weight).addcmul_(normal, mean, value=-1).mul_(inverse)
        return grad_x.to(x.dtype), product_NE.sum(0).to(weight.dtype), None, None


class CpuNorm:
    """What the norms have in common: in training on the CPU those before linear layers give autocast's type at once,
    where each of these layers would convert for itself."""

    before_linear = False

    def type_of_output(self, x: torch.Tensor) -> torch.dtype:
        """That of x, or autocast's."""
        return torch.get_autocast_dtype("cpu") if self.before_linear and torch.is_autocast_enabled("cpu") else x.dtype


class CpuRMSNorm(RMSNorm, CpuNorm):
    """The model's, with cheaper gradients."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not trains_on_cpu(self, x):
            return super().forward(x)
        return RootMeanSquareNorm.apply(x, self.weight, self.eps, self.type_of_output(x))


class CpuLayerNorm(nn.LayerNorm, CpuNorm):
    """torch's."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        output = super().forward(input)
        return output.to(self.type_of_output(input)) if trains_on_cpu(self, input) else output


class BlockedAttention(torch.autograd.Function):
    """softmax(q k^T x scaling) v, a block of heads and rows at a time, with dropout on the weights; Z counts all heads.

    For training on the CPU, where torch's attention falls back on whole matrices if there is dropout, and without takes
    up to four times as long for its gradients. A block's scores stay in the cache, rows skip the keys after them, and
    the backward pass computes the weights again (as FlashAttention does, arXiv:2205.14135), so that only the dropout
    masks are kept. In a type of 16 bits the weights take no more memory than their masks: they are kept, and their sign
    bit says what was dropped; without dropout, those of sequences of at most `ATTENTION_KEPT` tokens are.
    """

    @staticmethod
    def forward(ctx, q_ZLD, k_ZLD, v_ZLD, scaling, rate, is_causal):
        ctx.scaling, ctx.rate, ctx.is_causal, ctx.factor, of_blocks = scaling, rate, is_causal, 1.0, []
        ctx.keeps = q_ZLD.element_size() == 2 and (rate > 0 or q_ZLD.shape[1] <= ATTENTION_KEPT)
        out_ZLD = torch.empty_like(q_ZLD)
        for heads, rows, keys in BlockedAttention.blocks(q_ZLD, is_causal):
            weights = BlockedAttention.weights(ctx, q_ZLD[heads, rows], k_ZLD[heads, keys], rows)
            if rate:
                kept, ctx.factor = draw_kept(weights.shape, rate)
                of_blocks.append(sign_dropped(weights, kept) if ctx.keeps else kept)
                weights = drop(weights, kept)
            elif ctx.keeps:
                of_blocks.append(weights)
            out_ZLD[heads, rows] = torch.bmm(weights, v_ZLD[heads, keys])
        ctx.save_for_backward(q_ZLD, k_ZLD, v_ZLD, *of_blocks)
        return out_ZLD.mul_(ctx.factor) if rate else out_ZLD

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs):  # pyright: ignore[reportIncompatibleMethodOverride]
        q_ZLD, k_ZLD, v_ZLD, *of_blocks = ctx.saved_tensors
        grad_out_ZLD = grad_outputs[0] * ctx.factor if ctx.rate else grad_outputs[0]
        grad_q_ZLD, grad_k_ZLD, grad_v_ZLD = torch.empty_like(q_ZLD), torch.zeros_like(k_ZLD), torch.zeros_like(v_ZLD)
        for number, (heads, rows, keys) in enumerate(BlockedAttention.blocks(q_ZLD, ctx.is_causal)):
            q, k, v, grad_out = q_ZLD[heads, rows], k_ZLD[heads, keys], v_ZLD[heads, keys], grad_out_ZLD[heads, rows]
            weights, kept = of_blocks[number] if ctx.keeps else BlockedAttention.weights(ctx, q, k, rows), None
            if ctx.rate:
                weights, kept = split_signed(weights) if ctx.keeps else (weights, of_blocks[number])
            grad_weights = torch.bmm(grad_out, v.transpose(1, 2))
            grad_weights = grad_weights if kept is None else drop(grad_weights, kept)
            grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_q_ZLD[heads, rows] = torch.bmm(grad_scores, k)
            grad_k_ZLD[heads, keys] += torch.bmm(grad_scores.transpose(1, 2), q)
            weights = weights if kept is None else drop(weights, kept)
            grad_v_ZLD[heads, keys] += torch.bmm(weights.transpose(1, 2), grad_out)
        return grad_q_ZLD.mul_(ctx.scaling), grad_k_ZLD.mul_(ctx.scaling), grad_v_ZLD, None, None, None

    @staticmethod
    def blocks(q_ZLD: torch.Tensor, is_causal: bool):
        """Slices of the heads, the query rows, and the keys these rows may see."""
        heads, length = q_ZLD.shape[:2]
        step = max(1, ATTENTION_SCORES // (ATTENTION_ROWS * length))
        for head in range(0, heads, step):
            for row in range(0, length, ATTENTION_ROWS):
                end = min(row + ATTENTION_ROWS, length)
                yield slice(head, head + step), slice(row, end), slice(0, end if is_causal else length)

    @staticmethod
    def weights(ctx, q: torch.Tensor, k: torch.Tensor, rows: slice) -> torch.Tensor:
        """Attention weights of a block, in the type of the queries; softmax adds up in float32 at least."""
        scores = q.new_empty(q.shape[0], q.shape[1], k.shape[1])  # scaled by the product: a pass of its own is slower
        torch.baddbmm(scores, q, k.transpose(1, 2), beta=0, alpha=ctx.scaling, out=scores)
        if ctx.is_causal:
            size = rows.stop - rows.start
            scores[..., rows.start :] += torch.full((size, size), -math.inf, dtype=scores.dtype).triu_(1)
        return torch.softmax(scores, dim=-1)


def cpu_attention(
    module: nn.Module,
    q_BHLD: torch.Tensor,
    k_BGSD: torch.Tensor,
    v_BGSD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    is_causal: bool = True,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """BlockedAttention in transformers' attention interface; torch's attention where it has nothing to gain.

    That is in evaluation mode, with a mask or a cache, under torch.compile, and in float32 with long sequences. Returns
    the output (B, L, H, D), and None.
    """
    length = q_BHLD.shape[2]
    is_plain = attention_mask is None and length == k_BGSD.shape[2]
    is_slower = not dropout and length > ATTENTION_LONGEST and v_BGSD.element_size() > 2
    if not is_plain or is_slower or not trains_on_cpu(module, q_BHLD):
        attend = AttentionInterface()["sdpa"]
        options: dict[str, Any] = {"dropout": dropout, "scaling": scaling, "is_causal": is_causal, **kwargs}
        return attend(module, q_BHLD, k_BGSD, v_BGSD, attention_mask, **options)
    groups = q_BHLD.shape[1] // k_BGSD.shape[1]
    heads = [q_BHLD, k_BGSD, v_BGSD]
    if groups > 1:  # `repeat_interleave` copies for one, too
        heads[1:] = (x_BGSD.repeat_interleave(groups, dim=1) for x_BGSD in heads[1:])
    with torch.autocast("cpu", enabled=False):
        q_ZLD, k_ZLD, v_ZLD = (x_BHLD.flatten(0, 1).to(v_BGSD.dtype) for x_BHLD in heads)
        out_ZLD = BlockedAttention.apply(q_ZLD, k_ZLD, v_ZLD, scaling, dropout, is_causal)
    return out_ZLD.view(q_BHLD.shape).transpose(1, 2), None


CPU_ATTENTION = "cpu_blocked"
AttentionInterface.register(CPU_ATTENTION, cpu_attention)


def use_kernels(model: Any, device: torch.device | str) -> None:
    """Let a ScratchGPT model train with this file's attention, dropout and norms where they pay: on the CPU.

    Its weights stay the same, and so does what it computes in evaluation mode.

    Args:
        model: a `PreTrainedModel` of ours; changed in place.
        device: where it will train.
    """
    if torch.device(device).type != "cpu":
        return
    model.set_attn_implementation(CPU_ATTENTION)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, CpuDropout(child.p).train(child.training))
            elif isinstance(child, nn.RMSNorm | nn.LayerNorm):
                kind = CpuRMSNorm if isinstance(child, nn.RMSNorm) else CpuLayerNorm
                norm: Any = kind(list(child.normalized_shape), eps=model.config.norm_eps).train(child.training)
                norm.before_linear = model.config.norm_position == "pre"
                norm.load_state_dict(child.state_dict(), assign=True)
                setattr(parent, name, norm)
            elif type(child) is nn.ReLU:  # in place on a linear layer's output, which is a view: autograd would copy it
                child.inplace = False
        if (
            isinstance(parent, ScratchGPTMLP)
            and not parent.gated
            and type(parent.act_fn) is nn.ReLU
            and parent.dropout.p
        ):
            parent.dropout = CpuReLUDropout(parent.dropout.p).train(parent.training)
            parent.act_fn = nn.Identity()
