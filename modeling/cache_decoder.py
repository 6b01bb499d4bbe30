"""Generation with any causal language model of transformers: its own forward, and the cache that this returns.

A batch of texts goes through it together (`CacheBatchDecoder`, for the CPU in float32), each with a cache of its own,
and like in `modeling.batch_decoder` none may depend on the others: the matrix products are oneDNN's, and attention is
one text after the other, over exactly the tokens that the text has. What a model computes between its matrix products
is not known, so whole passes are tried on this machine before they are relied on.
"""

import copy
import functools
import inspect
import itertools
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn
from transformers import AttentionInterface, Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D

from modeling.batch_decoder import CannotBatchError, PackedLinear
from modeling.loading import context_length

logger = logging.getLogger(__name__)

CACHE_NAMES = ("cache", "past_key_values", "cache_params", "state")
"""The forward argument, and the output, that hold the cache: in transformers since 5.24, before it, in Mamba before
it, in RWKV. Code from the Hub keeps the name that it was written with."""
EACH_TEXT = "scratchgpt_each_text"
"""The name of `_attend_each` among transformers' attention functions."""
CLOSE = 1e-4
"""Logits of a pass may differ from those of the model's own forward by this much of the largest of them."""


class CacheDecoder:
    """A `modeling.generation.Decoder` of any causal language model: its own forward, and the cache that this returns.

    A model without a cache known here reads the text again for each token, which is logged once.

    Raises (`read`): ValueError for a text that the model's table of positions has no room for, which happens where its
    config names a longer context, or none.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        parameters = inspect.signature(model.forward).parameters
        self.cache_name = cache_argument(model)
        self.options: dict[str, Any] = {}
        if "return_dict" in parameters or _takes_any(parameters):
            self.options["return_dict"] = True
        if "use_cache" in parameters or _takes_any(parameters):
            self.options["use_cache"] = self.cache_name is not None
        self.keeps_last = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        # Recurrent layers multiply by the mask: one for more than the tokens of this pass gives wrong numbers (Mamba).
        # Some models that mix them with attention count positions from 0 in every pass (Bamba).
        self.takes_mask = "attention_mask" in parameters and not model._is_stateful
        self.takes_positions = "position_ids" in parameters and model._is_stateful
        # Recurrent models of transformers continue from their state only by single tokens.
        self.reads_in_chunks = self.cache_name is not None and not model._is_stateful
        self.reset()

    def read(self, token_ids: list[int]) -> Tensor:
        """Read these tokens after those before; the logits (V) of the token that comes next."""
        return self._read(token_ids, self.keeps_last)[-1]

    def read_all(self, token_ids: list[int]) -> Tensor:
        """Read these tokens after those before; the logits (N, V) of what comes after each of them."""
        return self._read(token_ids, {})[-len(token_ids) :]

    def reset(self) -> None:
        """Forget all tokens."""
        self.read_ids: list[int] = []
        self.cache: Any = None

    def _read(self, token_ids: list[int], options: dict[str, Any]) -> Tensor:
        self.read_ids += token_ids
        if self.cache_name is None:
            if len(self.read_ids) > len(token_ids):
                _log_reading_again(type(self.model).__name__)
            return self._logits(self._forward(self.read_ids, options))
        before, counted = self.cache, _cached_tokens(self.cache)
        outputs = self._forward(token_ids, options | ({} if before is None else {self.cache_name: before}))
        self.cache = cache_of(outputs)
        is_lost = counted is not None and _cached_tokens(self.cache) != counted + len(token_ids)
        if self.cache is not None and not is_lost:
            return self._logits(outputs)
        # The model returned no cache, or its forward dropped ours: the logits do not depend on the tokens before.
        _log_reading_again(type(self.model).__name__)
        self.cache, self.cache_name, self.reads_in_chunks = None, None, False
        self.options |= {"use_cache": False} if "use_cache" in self.options else {}
        return self._logits(self._forward(self.read_ids, options))

    def _forward(self, token_ids: list[int], options: dict[str, Any]) -> Any:
        device = self.model.device
        if self.takes_mask:
            options = options | {"attention_mask": torch.ones(1, len(self.read_ids), dtype=torch.long, device=device)}
        if self.takes_positions:
            end = len(self.read_ids)
            options = options | {"position_ids": torch.arange(end - len(token_ids), end, device=device)[None]}
        try:
            return self.model(input_ids=torch.tensor([token_ids], device=device), **self.options, **options)
        except IndexError as error:
            named = context_length(self.model)
            raise ValueError(
                f"{type(self.model).__name__} cannot read {len(self.read_ids)} tokens ({error}): its config "
                f"{f'names a context of {named}' if named else 'names no context length'}, but its weights hold fewer "
                "positions; give it a shorter text, or correct max_position_embeddings in its config.json"
            ) from error

    @staticmethod
    def _logits(outputs: Any) -> Tensor:
        return (outputs.logits if hasattr(outputs, "logits") else outputs[0])[0]


def cache_argument(model: PreTrainedModel) -> str | None:
    """The argument of a model's forward that takes its cache: one of `CACHE_NAMES`, else one annotated as a `Cache`;
    for a forward that passes any argument on, that of the model inside. None where there is none."""
    parameters = inspect.signature(model.forward).parameters
    if name := next((name for name in CACHE_NAMES if name in parameters), None):
        return name
    for name, parameter in parameters.items():
        if re.search(r"\bCache\b", str(parameter.annotation)):
            return name
    if not _takes_any(parameters):
        return None
    inside = (module for module in model.modules() if module is not model and isinstance(module, PreTrainedModel))
    return next(filter(None, map(cache_argument, inside)), None)


def cache_of(outputs: Any) -> Any:
    """The cache among the outputs of a model, by its name, else by its type; None where there is none.

    Only names that exist are looked up: transformers 5.24 warns about an old one.
    """
    fields = dict(outputs.items()) if isinstance(outputs, Mapping) else {}
    named = next((fields[name] for name in CACHE_NAMES if fields.get(name) is not None), None)
    values = fields.values() if fields else outputs
    return next((value for value in values if isinstance(value, Cache)), None) if named is None else named


def _cached_tokens(cache: Any) -> int | None:
    """How many tokens a cache of transformers holds; None where it does not count them."""
    if not isinstance(cache, Cache):
        return None
    try:
        return int(cache.get_seq_length()) or None
    except (ValueError, NotImplementedError):  # a recurrent state has no length
        return None


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


@functools.cache
def _log_reading_again(name: str) -> None:
    """Once for each class of models."""
    logger.warning(
        "%s: found no cache in it that works with transformers %s, so every token reads the text again, which is "
        "slow for long texts",
        name,
        transformers.__version__,
    )


class CacheBatchDecoder:
    """What `modeling.batch_decoder.BatchDecoder` is for ours, for a model of transformers: its own forward, with packed
    matrices and an attention in which each text sees its own keys and values, as many as it has.

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

    def close(self) -> None:
        """Nothing more is read."""
        self.cache = None


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
            packed.set_submodule(name, _Packed(PackedLinear(transposed(module), module.bias, width)))
    return packed


def transposed(linear: nn.Linear | Conv1D) -> Tensor:
    """The weight (inputs, outputs)."""
    return linear.weight if isinstance(linear, Conv1D) else linear.weight.t()
