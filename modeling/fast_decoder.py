"""An optional fast path for ScratchGPT at batch 1: the same numbers as its forward, in fewer operations.

`modeling.cache_decoder` does the same job for every model, and is the one to read first. With models of this size most
of a token's time goes into Python and small operations, not into arithmetic. So the weights are taken from the model
once per decoder (those of queries, keys and values joined into one matrix), each layer has one buffer for
keys and values, allocated once, and a token is about a dozen operations per layer on plain tensors.

A row of the buffer holds a token's query-key-value product; attention reads keys and values through strided views of
the buffer, so nothing is copied into a cache. Rotary pairs (i, i + D/2) are made neighbours by reordering the rows of
the query and key weights, the same way in both, which leaves their inner products unchanged: rotating all heads is
then one complex product in place.

Axes: N tokens of this pass, T tokens of the buffer, S tokens attended to, E hidden size, G key/value heads, R query
heads to each of them, H = G x R, D head width, F half of it, V vocabulary.
"""

import copy
import functools
import math
from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from modeling.configuration_scratchgpt import ScratchGPTConfig
from modeling.modeling_scratchgpt import ScratchGPTAttention, ScratchGPTBlock, ScratchGPTForCausalLM

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "silu": partial(functional.silu, inplace=True),
    "gelu": functional.gelu,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
}
COPY_LIMIT = 2**28
"""Bytes: a larger model's matrices are used in the model's own layout, since contiguous copies would cost more memory
and time to the first token than they save."""
_PLAIN_MODULES = ("torch.nn.modules.", "transformers.activations")


def is_plain(model: PreTrainedModel) -> bool:
    """Whether the model is a ScratchGPT whose output follows from its weights and config alone.

    It does not when a layer is wrapped, quantised, sharded or hooked (adapters, offloading), nor when rotary positions
    are scaled by the length of the text: such a model needs its own forward. Dropout, in whatever module, does nothing
    in evaluation mode.
    """
    if model.config.model_type != "scratchgpt" or model.config.rope_parameters.get("rope_type") == "dynamic":
        return False
    for module in model.modules():
        home = type(module).__module__
        if (
            home != type(model).__module__
            and not home.startswith(_PLAIN_MODULES)
            and not isinstance(module, nn.Dropout)
        ):
            return False
    return has_plain_weights(model)


def has_plain_weights(model: PreTrainedModel) -> bool:
    """Whether no layer is hooked, and the weights are plain parameters of one type on one device."""
    for module in model.modules():
        if hasattr(module, "_hf_hook") or module._forward_pre_hooks or module._forward_hooks:
            return False
    first = next(model.parameters())
    return first.device.type != "meta" and all(
        type(weight) is nn.Parameter and weight.dtype == first.dtype and weight.device == first.device
        for weight in model.parameters()
    )


class FastDecoder:
    """A `modeling.generation.Decoder` of a ScratchGPT that `is_plain`, for up to `capacity` tokens.

    Weights that change afterwards may or may not be used: make a new decoder. Call under `torch.inference_mode`.
    """

    reads_in_chunks = True

    def __init__(self, model: ScratchGPTForCausalLM, capacity: int) -> None:
        base, config = model.model, model.config
        self.token_VE = base.embed_tokens.weight
        self.length = 0
        self.scale, self.position_TE, phase_TF = 1.0, None, None
        position_T = torch.arange(capacity, device=self.token_VE.device)
        if config.position_embedding == "learned":
            self.position_TE = base.embed_positions.weight
        elif config.position_embedding == "sinusoidal":
            self.scale = math.sqrt(config.hidden_size)
            self.position_TE = base.sinusoidal_emb(position_T[None])[0].to(self.token_VE.dtype)
        else:
            angle_TF = base.rotary_emb.angles(position_T[None])[0]
            phase_TF = torch.polar(torch.full_like(angle_TF, base.rotary_emb.attention_scaling), angle_TF)
        copying = model.device.type == "cpu" and model.get_memory_footprint() <= COPY_LIMIT
        self.blocks = [
            FastBlock(cast(ScratchGPTBlock, block), config, capacity, phase_TF, copying) for block in base.layers
        ]
        self.norm = _norm(base.norm)
        self.head_EV, self.head_bias_V = _transposed(model.lm_head, copying)

    def read(self, token_ids: list[int]) -> Tensor:
        """Read these tokens after those read before; the logits (V) of the token that comes next."""
        start, end = self.length, self.length + len(token_ids)
        if len(token_ids) == 1:
            x_NE = self.token_VE[token_ids[0] : token_ids[0] + 1]
        else:
            x_NE = self.token_VE[torch.tensor(token_ids, device=self.token_VE.device)]
        if self.scale != 1:
            x_NE = x_NE * self.scale
        if self.position_TE is not None:
            x_NE = x_NE + self.position_TE[start:end]
        for block in self.blocks:
            x_NE = block(x_NE, start, end)
        self.length = end
        return _linear(self.norm(x_NE[-1:]), self.head_EV, self.head_bias_V)[0]

    def reset(self) -> None:
        """Forget all tokens."""
        self.length = 0

    def for_another_text(self, capacity: int) -> "FastDecoder":
        """A decoder with the same weights for another text of up to `capacity` tokens, at most this one's."""
        other = copy.copy(self)
        other.blocks = [block.for_another_text(capacity) for block in self.blocks]
        other.reset()
        return other


class FastBlock:
    """One block's weights, buffer and arithmetic."""

    def __init__(
        self,
        block: ScratchGPTBlock,
        config: ScratchGPTConfig,
        capacity: int,
        phase_TF: Tensor | None,
        copying: bool,
    ) -> None:
        attention, mlp = block.self_attn, block.mlp
        G, H, D = cast(int, config.num_key_value_heads), config.num_attention_heads, attention.head_dim
        self.G, self.H, self.D = G, H, D
        self.pre_norm = config.norm_position == "pre"
        self.attention_norm, self.mlp_norm = _norm(block.input_layernorm), _norm(block.post_attention_layernorm)
        self.attention_scale = D**-0.5

        order_D = slice(None)
        if phase_TF is not None:
            order_D = torch.arange(D, device=phase_TF.device).view(2, -1).t().flatten()
        self.qkv_EW, self.qkv_bias_W = _joined(attention, order_D)
        self.head_norm = _head_norm(attention.q_norm, attention.k_norm, H, G, order_D) if config.qk_norm else None

        self.unused = self.qkv_EW.new_zeros(1, 1, 1)
        # Complex numbers in place exist for float32 alone; other types are rotated through a float32 copy.
        self.in_float32 = self.qkv_EW.dtype == torch.float32
        self.phase_THF = None if phase_TF is None else phase_TF[:, None]
        self.allocate(capacity)

        self.output_WE, self.output_bias_E = _transposed(attention.o_proj, copying)
        self.up_EI, self.up_bias_I = _transposed(mlp.up_proj, copying)
        self.down_IE, self.down_bias_E = _transposed(mlp.down_proj, copying)
        self.gate_EI, self.gate_bias_I = _transposed(mlp.gate_proj, copying) if mlp.gated else (None, None)
        self.activation = _ACTIVATIONS.get(config.hidden_act, mlp.act_fn)

    def allocate(self, capacity: int) -> None:
        """Make the buffer, and the views of it."""
        G, H, D = self.G, self.H, self.D
        self.buffer_TW = self.qkv_EW.new_empty(capacity, (H + 2 * G) * D)
        head_THD = self.buffer_TW.unflatten(1, (-1, D))
        self.rotated_THD = head_THD[:, : H + G]
        self.query_TGRD = head_THD[:, :H].unflatten(1, (G, -1))
        self.key_GDT = head_THD[:, H : H + G].permute(1, 2, 0)
        self.value_GTD = head_THD[:, H + G :].transpose(0, 1)
        self.complex_THF = None
        if self.phase_THF is not None and self.in_float32:
            self.complex_THF = torch.view_as_complex(self.rotated_THD.unflatten(-1, (-1, 2)))

    def for_another_text(self, capacity: int) -> "FastBlock":
        """The same weights with a buffer of their own."""
        other = copy.copy(self)
        other.allocate(capacity)
        return other

    def __call__(self, x_NE: Tensor, start: int, end: int) -> Tensor:
        """The residual stream after this block; rows start to end of the buffer are filled."""
        if self.pre_norm:
            heads_NW = self.attend(self.attention_norm(x_NE), start, end)
            x_NE = _add_linear(x_NE, heads_NW, self.output_WE, self.output_bias_E)
            return _add_linear(x_NE, self.hidden(self.mlp_norm(x_NE)), self.down_IE, self.down_bias_E)
        heads_NW = self.attend(x_NE, start, end)
        x_NE = self.attention_norm(_add_linear(x_NE, heads_NW, self.output_WE, self.output_bias_E))
        return self.mlp_norm(_add_linear(x_NE, self.hidden(x_NE), self.down_IE, self.down_bias_E))

    def attend(self, x_NE: Tensor, start: int, end: int) -> Tensor:
        """The heads' outputs (N, H x D), before the output projection."""
        row_NW = self.buffer_TW[start:end]
        row_NW.copy_(_linear(x_NE, self.qkv_EW, self.qkv_bias_W))
        if self.head_norm is not None:
            rotated_NHD = self.rotated_THD[start:end]
            self.head_norm(rotated_NHD, out=rotated_NHD)
        if self.phase_THF is not None:
            self.rotate(self.phase_THF[start:end], start, end)
        if end - start > 1 or not self.in_float32:
            return self.attend_many(start, end)
        return self.attend_last(start, end)

    def attend_last(self, start: int, end: int) -> Tensor:
        """`attend` after its projection, for the last token alone."""
        score_GRS = torch.baddbmm(
            self.unused, self.query_TGRD[start], self.key_GDT.narrow(2, 0, end), beta=0, alpha=self.attention_scale
        )
        return torch.bmm(torch.softmax(score_GRS, -1), self.value_GTD.narrow(1, 0, end)).view(1, -1)

    def rotate(self, phase_NHF: Tensor, start: int, end: int) -> None:
        """Rotate queries and keys of these rows by their position (RoPE), in place."""
        if self.complex_THF is not None:
            self.complex_THF[start:end].mul_(phase_NHF)
            return
        rotated_NHD = self.rotated_THD[start:end]
        complex_NHF = torch.view_as_complex(rotated_NHD.float().unflatten(-1, (-1, 2))) * phase_NHF
        rotated_NHD.copy_(torch.view_as_real(complex_NHF).flatten(-2))

    def attend_many(self, start: int, end: int) -> Tensor:
        """`attend` after its projection, for several tokens: each attends to itself and to those before it."""
        query_HND = self.query_TGRD[start:end].flatten(1, 2).transpose(0, 1)
        key_GSD, value_GSD = self.key_GDT[..., :end].transpose(1, 2), self.value_GTD[:, :end]
        mask_NS = None
        if start and end - start > 1:
            mask_NS = torch.ones(end - start, end, dtype=torch.bool, device=query_HND.device).tril_(start)
        output_1HND = functional.scaled_dot_product_attention(
            query_HND[None], key_GSD[None], value_GSD[None], mask_NS, is_causal=start == 0, enable_gqa=True
        )
        return output_1HND[0].transpose(0, 1).flatten(1)

    def hidden(self, x_NE: Tensor) -> Tensor:
        """The MLP's hidden layer (N, I), before the projection back."""
        up_NI = _linear(x_NE, self.up_EI, self.up_bias_I)
        if self.gate_EI is None:
            return self.activation(up_NI)
        return self.activation(_linear(x_NE, self.gate_EI, self.gate_bias_I)).mul_(up_NI)


def _joined(attention: ScratchGPTAttention, order_D: Tensor | slice) -> tuple[Tensor, Tensor | None]:
    """Weight (E, W) and bias (W) of queries, keys and values as one; queries and keys reordered within each head."""
    q, k, v = attention.q_proj, attention.k_proj, attention.v_proj

    def reordered(rows: Tensor) -> Tensor:
        return rows.unflatten(0, (-1, attention.head_dim))[:, order_D].flatten(0, 1)

    weight_EW = torch.cat([reordered(q.weight).t(), reordered(k.weight).t(), v.weight.t()], dim=1)
    return weight_EW, None if q.bias is None else torch.cat([reordered(q.bias), reordered(k.bias), v.bias])


def _transposed(linear: nn.Linear, copying: bool) -> tuple[Tensor, Tensor | None]:
    """Weight (in, out), contiguous where copies are allowed, and bias."""
    weight = linear.weight.t()
    return weight.contiguous() if copying else weight, linear.bias


def weighted_sum(x_1I: Tensor, weight_IO: Tensor, begin_B: Tensor) -> Tensor:
    """The sums (B, O) of the weight's rows times the numbers of x, over the inputs from each `begin_B` to the next.

    At batch 1 every weight is read once for every token, mostly from main memory or the L3 cache, and `embedding_bag`
    asks for a few rows in advance, as matrix products do not: 256 to 8,257 take it 312 us, `torch.mm` 798 us, or 1,760
    us where the weight lies as (O, I); 704 to 256 take 41, 48 and 106 us (one core, AVX-512, MKL, caches cold)."""
    return torch.embedding_bag(weight_IO, _inputs(weight_IO.shape[0]), begin_B, False, 0, False, x_1I[0])[0]


@functools.cache
def _inputs(count: int) -> Tensor:
    with torch.inference_mode(False):
        return torch.arange(count)


_ALL = torch.zeros(1, dtype=torch.long)


def product(x_NI: Tensor, weight_t: Tensor) -> Tensor:
    """x @ weight (inputs, outputs), the way that is fastest for so many rows."""
    is_sum = x_NI.shape[0] == 1 and x_NI.dtype == torch.float32 and x_NI.is_cpu and weight_t.is_contiguous()
    return weighted_sum(x_NI, weight_t, _ALL) if is_sum else torch.mm(x_NI, weight_t)


def _linear(x: Tensor, weight_t: Tensor, bias: Tensor | None) -> Tensor:
    y = product(x, weight_t)
    return y if bias is None else y.add_(bias)


def _add_linear(residual: Tensor, x: Tensor, weight_t: Tensor, bias: Tensor | None) -> Tensor:
    """residual + x @ weight_t + bias, as a new tensor."""
    y = product(x, weight_t).add_(residual)
    return y if bias is None else y.add_(bias)


def _norm(module: nn.Module) -> Callable[..., Tensor]:
    """The arithmetic of a LayerNorm or RMSNorm of the residual stream."""
    if isinstance(module, nn.LayerNorm):
        shape, eps = module.normalized_shape, module.eps
        return partial(torch.layer_norm, normalized_shape=shape, weight=module.weight, bias=module.bias, eps=eps)
    rms = cast(nn.RMSNorm, module)
    return _rms_norm(rms.weight, rms.eps)


def _head_norm(q_norm: nn.Module, k_norm: nn.Module, H: int, G: int, order_D: Tensor | slice) -> Callable[..., Tensor]:
    """The norms of H query and G key heads as one, weights in the order of the heads' reordered values."""

    def both(q_D: Tensor, k_D: Tensor) -> Tensor:
        return torch.cat([q_D[order_D].expand(H, -1), k_D[order_D].expand(G, -1)])

    if isinstance(q_norm, nn.LayerNorm) and isinstance(k_norm, nn.LayerNorm):
        weight_HD, bias_HD = both(q_norm.weight, k_norm.weight), both(q_norm.bias, k_norm.bias)
        shape, eps = q_norm.normalized_shape, q_norm.eps
        return lambda x_NHD, out: torch.addcmul(bias_HD, torch.layer_norm(x_NHD, shape, eps=eps), weight_HD, out=out)
    q_norm, k_norm = cast(nn.RMSNorm, q_norm), cast(nn.RMSNorm, k_norm)
    return _rms_norm(both(q_norm.weight, k_norm.weight), q_norm.eps)


def _rms_norm(weight: Tensor, eps: float | None) -> Callable[..., Tensor]:
    """RMSNorm over the last axis, in four operations where float32 allows it.

    x w / sqrt(mean(x^2) + eps) is x (w sqrt(D)) / hypot(|x|, sqrt(D eps)), D the width.
    """
    width, eps = weight.shape[-1], torch.finfo(weight.dtype).eps if eps is None else eps
    if weight.dtype != torch.float32:
        return lambda x, out=None: torch.mul(torch.rms_norm(x, (width,), None, eps), weight, out=out)
    scaled_weight, floor = weight * math.sqrt(width), weight.new_tensor(math.sqrt(width * eps))

    def norm(x: Tensor, out: Tensor | None = None) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        torch.hypot(length, floor, out=length)
        return torch.mul(x, scaled_weight, out=out).div_(length)

    return norm
