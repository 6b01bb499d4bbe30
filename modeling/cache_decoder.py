"""Generation with any causal language model of transformers: its own forward, and the cache that this returns."""

import functools
import inspect
import logging
import re
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import Cache, PreTrainedModel

from modeling.loading import context_length

logger = logging.getLogger(__name__)

CACHE_NAMES = ("cache", "past_key_values", "cache_params", "state")
"""The forward argument, and the output, that hold the cache: in transformers since 5.24, before it, in Mamba before
it, in RWKV. Code from the Hub keeps the name that it was written with."""


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
