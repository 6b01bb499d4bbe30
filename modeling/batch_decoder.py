"""One token of several texts in one pass, on the CPU in float32: `modeling.fast_decoder` and `modeling.cache_decoder`
for a batch.

The weights are read once for all texts instead of once for each, and matrix products of a few rows use the arithmetic
that a single row leaves idle. Each text has a decoder of its own, which reads its prompt and holds its keys and values:
a `FastDecoder` of a ScratchGPT (`BatchDecoder`), a `CacheText` of another model (`CacheBatchDecoder`).

A text must not depend on its company: the same seed gives the same text alone and among nineteen others. So nothing
here may round differently because of other rows. Norms, activations and additions work row by row; attention is one
text after the other, over exactly the tokens that the text has; and the matrix products are oneDNN's with packed
weights, whose rows are the same bits for any number of rows, which `BatchDecoder` tries on this machine before it
relies on it (a plain `torch.mm` of one row uses another kernel than one of four). That is also why one text alone goes
through the same pass here, though the decoder of one text is faster for it. What another model computes between its
matrix products is not known, so `CacheBatchDecoder` tries whole passes too.

Axes: N texts, E hidden size, W queries, keys and values of all heads, V vocabulary; others as in `fast_decoder`.
"""

import copy
import inspect
import itertools
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AttentionInterface, Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D

from modeling.cache_decoder import CacheDecoder, cache_argument
from modeling.fast_decoder import COPY_LIMIT, FastBlock, FastDecoder, has_plain_weights, is_plain
from modeling.loading import context_length
from modeling.modeling_scratchgpt import ScratchGPTForCausalLM

EACH_TEXT = "scratchgpt_each_text"
"""The name of `_attend_each` among transformers' attention functions."""
LANES = 32
"""Numbers that a vectorised activation takes at a time, at most (AVX-512). It rounds those left over at the end of a
tensor in another way: which they are depends on the number of rows, unless the rows are multiples of this."""
DEPENDENT_ROPE = ("dynamic", "longrope")
"""Kinds of rotary positions that depend on the longest text of a pass."""
CLOSE = 1e-4
"""Logits of a pass may differ from those of the model's own forward by this much of the largest of them."""


class CannotBatchError(ValueError):
    """Here texts of this model cannot share passes, or not without depending on each other."""


class PackedLinear:
    """x @ weight + bias (weight: inputs, outputs) with the weight in the layout that oneDNN computes with.

    Raises CannotBatchError where a row's result is not the same bits among any number of rows up to `width`.
    """

    def __init__(self, weight_t: Tensor, bias: Tensor | None, width: int) -> None:
        self.bias = bias
        try:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight_t.t().contiguous(), width)
            x_NE = torch.randn(width, weight_t.shape[0], generator=torch.Generator().manual_seed(0))
            together = self(x_NE).view(torch.int32)  # bits: NaN is no other NaN's equal
            is_same = all(
                torch.equal(self(x_NE[start : start + size]).view(torch.int32), together[start : start + size])
                for size in range(1, width)
                for start in {0, width - size}
            )
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            raise CannotBatchError(f"torch {torch.__version__} packs no weights here: {error}") from error
        if not is_same:
            raise CannotBatchError("a row of oneDNN's matrix product depends on the other rows here")

    def __call__(self, x_NE: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x_NE, self.packed, self.bias, "none", [], "")


class BatchDecoder:
    """Reads one token of each of up to `width` texts in one pass. Call under `torch.inference_mode`.

    Args:
        model: one that `can_batch`.
        width: texts of one pass at most; `step` may run in several threads, on different texts.

    Raises:
        CannotBatchError: where texts would depend on each other.
    """

    def __init__(self, model: ScratchGPTForCausalLM, width: int) -> None:
        self.width = width
        self.first = FastDecoder(model, context_length(model) or 0)
        self.blocks = [BatchBlock(block, width) for block in self.first.blocks]
        self.head = PackedLinear(self.first.head_EV, self.first.head_bias_V, width)

    @property
    def bytes_of_a_text(self) -> int:
        """The keys and values of one that is as long as the context."""
        return sum(block.buffer_TW.nbytes for block in self.first.blocks)

    def new_text(self, capacity: int) -> FastDecoder:
        """The decoder of a text of up to `capacity` tokens."""
        return self.first.for_another_text(capacity)

    def step(self, texts: Sequence[FastDecoder], token_ids: Sequence[int]) -> Tensor:
        """Read one token of each text after those that it has; the logits (N, V) of the tokens that come next."""
        first, starts = self.first, [text.length for text in texts]
        x_NE = first.token_VE[torch.tensor(token_ids)]
        if first.scale != 1:
            x_NE = x_NE * first.scale
        if first.position_TE is not None:
            x_NE = x_NE + first.position_TE[torch.tensor(starts)]
        for layer, block in enumerate(self.blocks):
            x_NE = block(x_NE, [text.blocks[layer] for text in texts], starts)
        for text in texts:
            text.length += 1
        return self.head(first.norm(x_NE))


class BatchBlock:
    """One block's packed weights, and its arithmetic for one token of each of several texts."""

    def __init__(self, block: FastBlock, width: int) -> None:
        self.block = block
        self.qkv = PackedLinear(block.qkv_EW, block.qkv_bias_W, width)
        self.output = PackedLinear(block.output_WE, block.output_bias_E, width)
        spare = (0, -block.up_EI.shape[1] % LANES)  # hidden units that are 0

        def widened(weight_EI: Tensor, bias_I: Tensor | None) -> PackedLinear:
            return PackedLinear(pad(weight_EI, spare), None if bias_I is None else pad(bias_I, spare), width)

        self.up = widened(block.up_EI, block.up_bias_I)
        self.gate = None if block.gate_EI is None else widened(block.gate_EI, block.gate_bias_I)
        self.down = PackedLinear(pad(block.down_IE, (0, 0, *spare)), block.down_bias_E, width)

    def __call__(self, x_NE: Tensor, texts: Sequence[FastBlock], starts: Sequence[int]) -> Tensor:
        """The residual stream after this block; row `start` of each text's buffer is filled."""
        block = self.block
        if block.pre_norm:
            x_NE = x_NE + self.output(self.attend(block.attention_norm(x_NE), texts, starts))
            return x_NE + self.down(self.hidden(block.mlp_norm(x_NE)))
        x_NE = block.attention_norm(x_NE + self.output(self.attend(x_NE, texts, starts)))
        return block.mlp_norm(x_NE + self.down(self.hidden(x_NE)))

    def attend(self, x_NE: Tensor, texts: Sequence[FastBlock], starts: Sequence[int]) -> Tensor:
        """The heads' outputs (N, H x D), before the output projection."""
        block = self.block
        row_NW = self.qkv(x_NE)
        rotated_NHD = row_NW.unflatten(1, (-1, block.D))[:, : block.H + block.G]
        if block.head_norm is not None:
            block.head_norm(rotated_NHD, out=rotated_NHD)
        if block.phase_THF is not None:
            complex_NHF = torch.view_as_complex(rotated_NHD.unflatten(-1, (-1, 2)))
            complex_NHF.mul_(block.phase_THF[torch.tensor(starts)])
        heads = []
        for text, start, row_W in zip(texts, starts, row_NW.unbind(), strict=True):
            text.buffer_TW[start] = row_W
            heads.append(text.attend_last(start, start + 1))
        return torch.cat(heads)

    def hidden(self, x_NE: Tensor) -> Tensor:
        """The MLP's hidden layer (N, I), before the projection back."""
        if self.gate is None:
            return self.block.activation(self.up(x_NE))
        return self.block.activation(self.gate(x_NE)).mul_(self.up(x_NE))


class CacheBatchDecoder:
    """`BatchDecoder` for a model of transformers: its own forward, with packed matrices and an attention in which each
    text sees its own keys and values, as many as it has.

    Raises CannotBatchError where a pass fails, differs from the model's own forward, or depends on the other texts.
    """

    def __init__(self, model: PreTrainedModel, width: int) -> None:
        self.model, self.width = model, width
        self.context = context_length(model) or 0
        self.cache_name = cache_argument(model) or ""
        try:
            layers = DynamicCache(config=model.config).layers
            if any(type(layer) is not DynamicLayer for layer in layers):
                raise CannotBatchError("expected layers that keep all keys and values, got others")
            self.layers = len(layers)
            self.packed_model = _with_packed_matrices(model, width)
            self._try()
        except CannotBatchError:
            raise
        except Exception as error:  # whatever its forward raises at what it does not expect
            raise CannotBatchError(f"{type(model).__name__} reads no batch of texts here: {error}") from error

    def new_text(self, capacity: int) -> "CacheText":
        """The decoder of a text of up to `capacity` tokens."""
        return CacheText(self.model, self.layers, capacity)

    def step(self, texts: "Sequence[CacheText]", token_ids: Sequence[int]) -> Tensor:
        """Read one token of each text after those that it has; the logits (N, V) of the tokens that come next."""
        logits_NV = self._forward(texts, token_ids, [len(text.read_ids) for text in texts])
        for text, token_id in zip(texts, token_ids, strict=True):
            text.read_ids.append(token_id)
        return logits_NV

    def _forward(self, texts: "Sequence[CacheText]", token_ids: Sequence[int], positions: Sequence[int]) -> Tensor:
        outputs = self.packed_model(
            input_ids=torch.tensor(token_ids)[:, None],
            position_ids=torch.tensor(positions)[:, None],
            **{self.cache_name: _CacheOfTexts([text.cache for text in texts])},
            **texts[0].options,
        )
        return outputs.logits[:, -1]

    def _try(self) -> None:
        """Random tokens, alone and in company, and against the model's own forward."""
        generator = torch.Generator().manual_seed(0)

        def draw(end: int, count: int) -> list[int]:
            return torch.randint(end, (count,), generator=generator).tolist()

        embedding: Any = self.model.get_input_embeddings()
        vocabulary = embedding.weight.shape[0]
        texts = [self.new_text(capacity=4) for _ in range(self.width)]
        for index, text in enumerate(texts):
            text.read(draw(vocabulary, 1 + index % 3))
        self.bytes_of_a_text = self.context * sum(layer.bytes_of_a_token for layer in texts[0].cache.layers)
        ids, positions = draw(vocabulary, self.width), draw(self.context, self.width)
        positions[0] = self.context - 1  # some tables of positions are shorter than the config says

        def bits(rows: slice) -> Tensor:
            logits_NV = self._forward(texts[rows], ids[rows], positions[rows])
            for layer in itertools.chain(*(text.cache.layers for text in texts[rows])):
                layer.length -= 1
            return logits_NV.view(torch.int32)

        together_NV = bits(slice(self.width))
        for size in {1, 2, 3, 5, 8, self.width - 1} & {*range(1, self.width)}:
            for rows in (slice(size), slice(self.width - size, self.width)):
                if not torch.equal(bits(rows), together_NV[rows]):
                    raise CannotBatchError(f"a text of {type(self.model).__name__} depends on the other texts here")
        for text, token_id in zip(texts[:3], ids[:3], strict=False):
            expected_V = self.model(input_ids=torch.tensor([[*text.read_ids, token_id]])).logits[0, -1]
            if not (self.step([text], [token_id])[0] - expected_V).abs().max() <= CLOSE * expected_V.abs().max():
                raise CannotBatchError(f"{type(self.model).__name__} reads something else in a batch")


class CacheText(CacheDecoder):
    """A text of `CacheBatchDecoder`, of up to `capacity` tokens: its prompt goes through the model's own forward."""

    def __init__(self, model: PreTrainedModel, layers: int, capacity: int) -> None:
        self.layers, self.capacity = layers, capacity
        super().__init__(model)

    def reset(self) -> None:
        """Forget all tokens."""
        super().reset()
        self.cache = Cache(layers=[_BufferLayer(self.capacity) for _ in range(self.layers)])


class _BufferLayer(DynamicLayer):
    """One layer's keys and values of one text, in buffers of `capacity` tokens. transformers' own dynamic layer copies
    all of them for each token; its static one attends to the whole buffer."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.length = capacity, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.device = key_states.device
        self.keys, self.values = (
            each.new_empty(*each.shape[:2], self.capacity, each.shape[-1]) for each in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[-2]
        pair = []
        for buffer, states in ((self.keys, key_states), (self.values, value_states)):
            assert buffer is not None
            buffer[:, :, start : self.length] = states
            pair.append(buffer[:, :, : self.length])
        return pair[0], pair[1]

    def get_seq_length(self) -> int:
        return self.length

    @property
    def bytes_of_a_token(self) -> int:
        """Of its key and value; known once there is one."""
        return sum(each.nbytes for each in (self.keys, self.values) if each is not None) // self.capacity


class _CacheOfTexts(Cache):
    """The caches of the texts of one pass. What `update` returns is for `_attend_each`: a tensor for each text."""

    def __init__(self, caches: Sequence[Cache]) -> None:
        super().__init__(layers=[])
        self.caches = caches

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        states = zip(self.caches, key_states.split(1), value_states.split(1), strict=True)
        pairs = [cast(_BufferLayer, cache.layers[layer_idx]).update(key, value) for cache, key, value in states]
        return [key for key, _ in pairs], [value for _, value in pairs]


def _attend_each(
    module: nn.Module, query: Tensor, key: list[Tensor], value: list[Tensor], attention_mask: None, **options: Any
) -> tuple[Tensor, None]:
    """transformers' attention, one text after the other: the same operations on the same shapes in any company."""
    attend = ALL_ATTENTION_FUNCTIONS["sdpa"]
    heads = []
    for query_1HND, key_1GSD, value_1GSD in zip(query.split(1), key, value, strict=True):
        # A copy, since kernels may take another path where memory is aligned in another way.
        heads.append(attend(module, query_1HND.clone(), key_1GSD, value_1GSD, None, **options)[0])
    return torch.cat(heads), None


AttentionInterface.register(EACH_TEXT, _attend_each)


class _Packed(nn.Module):
    def __init__(self, linear: PackedLinear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def _with_packed_matrices(model: PreTrainedModel, width: int) -> PreTrainedModel:
    """A second model with the same other weights."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    packed = copy.deepcopy(model, shared)
    packed.set_attn_implementation(EACH_TEXT)
    for name, module in [*packed.named_modules(remove_duplicate=False)]:
        if isinstance(module, (nn.Linear, Conv1D)):
            packed.set_submodule(name, _Packed(PackedLinear(_transposed(module), module.bias, width)))
    return packed


def _transposed(linear: nn.Linear | Conv1D) -> Tensor:
    """The weight (inputs, outputs)."""
    return linear.weight if isinstance(linear, Conv1D) else linear.weight.t()


def can_batch(model: PreTrainedModel) -> bool:
    """Whether a batch decoder may take the model: on the CPU in float32, not too large for a second copy of its
    weights, and a plain ScratchGPT or one that `_is_decoder`."""
    return (
        (is_plain(model) or _is_decoder(model))
        and model.device.type == "cpu"
        and model.dtype == torch.float32
        and model.get_memory_footprint() <= COPY_LIMIT
    )


def _is_decoder(model: PreTrainedModel) -> bool:
    """Whether it is a causal model of transformers itself, as it comes, that takes positions and a cache, all of whose
    matrices are those of linear layers (no mixture of experts), of widths that are multiples of `LANES`, and whose
    rotary positions do not depend on the longest text."""
    modules = [*model.modules()]
    return (
        all(type(module).__module__.startswith(("torch.nn.modules.", "transformers.")) for module in modules)
        and has_plain_weights(model)
        and not model.config.is_encoder_decoder
        and bool(context_length(model))
        and cache_argument(model) is not None
        and "position_ids" in inspect.signature(model.forward).parameters
        and all(
            isinstance(module, nn.Embedding)
            or (isinstance(module, (nn.Linear, Conv1D)) and _transposed(module).shape[0] % LANES == 0)
            or all(weight.ndim < 2 for weight in module.parameters(recurse=False))
            for module in modules
        )
        and not any(kind in str(getattr(module, "rope_type", "")) for module in modules for kind in DEPENDENT_ROPE)
    )


def batch_decoder(model: PreTrainedModel, width: int) -> BatchDecoder | CacheBatchDecoder:
    """What reads tokens of several texts of a model that `can_batch`. Raises CannotBatchError as its class does."""
    if is_plain(model):
        return BatchDecoder(cast(ScratchGPTForCausalLM, model), width)
    return CacheBatchDecoder(model, width)
