"""Streaming generation: the tokens of a causal language model one at a time, with their probabilities.

`stream` is a plain generator. Nothing runs between two tokens, so closing it (a Stop button, a closed tab) ends the
computation at once. It takes any causal language model of transformers: ScratchGPT goes through `FastDecoder`, every
other model through its own forward and cache, `CacheDecoder`.

The window. A model sees at most its context length: a longer prompt is cut on the left. When the window is full, its
older half is dropped and the newer half is read again from position 0, once every half context of tokens. Up to the
first slide the tokens are those of transformers' `generate`.
"""

import functools
import inspect
import itertools
import logging
import math
import re
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
import transformers
from torch import Tensor
from transformers import Cache, PreTrainedModel

from modeling.fast_decoder import FastDecoder, is_plain
from modeling.loading import context_length
from modeling.modeling_scratchgpt import ScratchGPTForCausalLM
from modeling.sampling import Alternative, Sampler, SamplingSettings

__all__ = ["Alternative", "SamplingSettings", "Step", "StoppedError", "check_ids", "prefix_ids", "start_ids", "stream"]

logger = logging.getLogger(__name__)

PREFILL_CHUNK = 256
"""Tokens of a prompt read in one pass; a stop and the deadline are checked between two passes."""


class StoppedError(Exception):
    """`should_stop()` returned true: there is no result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One generated token."""

    token_id: int
    probability: float  # what the sampler drew it with; 1 when greedy
    model_probability: float  # softmax of the model's logits, before the sampler
    kept: int  # tokens that the sampler's filters left to draw from
    alternatives: tuple[Alternative, ...]  # the model's likeliest tokens here, in that order; as many as requested
    position: int  # its index in the text, the prompt (or the start token in its place) included
    context_used: int  # tokens that the model saw when it made this one

    @property
    def surprisal(self) -> float:
        """-log2 of the model's probability, in bits."""
        return -math.log2(self.model_probability) if self.model_probability > 0 else math.inf


def start_ids(model: PreTrainedModel, tokenizer: Any = None) -> tuple[int, ...]:
    """What precedes a complete text: one token id, or none where model and tokenizer name none.

    ScratchGPT: `bos_token_id` of the config, the separator that precedes every document in training. Other models: the
    tokenizer's bos token; else the model's bos token (generation_config, config) if the tokenizer lists it as special,
    as in Qwen; else the tokenizer's eos token, which separates documents in the data of GPT-2's family; else the
    model's bos token. An id outside the vocabulary, a default that nobody set, does not count.

    Generation from an empty prompt, `train.evaluate` and the page begin a text with it.
    """
    config = model.config.get_text_config(decoder=True)
    is_ours = config.model_type == "scratchgpt"
    owners = (config,) if is_ours else (model.generation_config, config)
    own = next((owner.bos_token_id for owner in owners if isinstance(getattr(owner, "bos_token_id", None), int)), None)
    if tokenizer is None:
        candidates = [own]
    elif is_ours:
        candidates = [own, tokenizer.bos_token_id, tokenizer.eos_token_id]
    else:
        special = own if own in tokenizer.all_special_ids else None
        candidates = [tokenizer.bos_token_id, special, tokenizer.eos_token_id, own]
    known = (token_id for token_id in candidates if token_id is not None and 0 <= token_id < config.vocab_size)
    return tuple(itertools.islice(known, 1))


def prefix_ids(model: PreTrainedModel, tokenizer: Any) -> tuple[int, ...]:
    """What of `start_ids` precedes every prompt: all of it for ScratchGPT, and where the tokenizer adds it by itself.

    Elsewhere (GPT-2) a prompt is continued as it is, as transformers' `generate` does.
    """
    start = start_ids(model, tokenizer)
    if model.config.model_type == "scratchgpt":
        return start
    is_added = start == (tokenizer.bos_token_id,) and list(start) == list(tokenizer("")["input_ids"][:1])
    return start if is_added else ()


def check_ids(model: PreTrainedModel, ids: Sequence[int]) -> list[int]:
    """The ids as a list.

    Raises:
        ValueError: for no ids, or one outside the vocabulary.
    """
    vocab_size = model.config.get_text_config(decoder=True).vocab_size
    ids = [int(token_id) for token_id in ids]
    if not ids:
        raise ValueError("expected a text of at least one token, got an empty one")
    for token_id in ids:
        if not 0 <= token_id < vocab_size:
            raise ValueError(
                f"expected token ids from 0 to {vocab_size - 1}, got {token_id}: encode the text with the tokenizer "
                "that belongs to this model"
            )
    return ids


def stream(
    model: PreTrainedModel,
    prompt_ids: Sequence[int],
    settings: SamplingSettings,
    *,
    stop_token_ids: Collection[int] = (),
    alternatives: int = 0,
    should_stop: Callable[[], bool] | None = None,
    deadline: float | None = None,
) -> Generator[Step, None, str]:
    """Generate tokens after `prompt_ids`, as a generator of `Step`.

    The weights are read when the first token is requested, in every call. The generator may be advanced from any
    thread, one at a time.

    Args:
        prompt_ids: an empty prompt is replaced by the model's `start_ids`.
        stop_token_ids: one of these ends the text and is not yielded.
        alternatives: how many of the model's likeliest tokens come with each step (default: none).
        should_stop: called before every pass of the model.
        deadline: a value of `time.monotonic()`, checked before every pass of the model.

    Returns:
        Why the text ended: "length", "stop_token", "stopped" or "deadline" (the generator's return value).

    Raises:
        ValueError: at the call: a token id outside the vocabulary, an empty prompt and no bos token, a model that has
            an encoder or is in training mode; while running: logits that are NaN or infinite.
    """
    assert alternatives >= 0
    if model.config.is_encoder_decoder:
        raise ValueError(f"expected a causal language model, got {type(model).__name__}, which has an encoder")
    if model.training:
        raise ValueError("expected a model in evaluation mode, got one in training mode: call model.eval() first")
    prompt_ids = list(prompt_ids) or start_ids(model)
    if not prompt_ids:
        raise ValueError("the prompt is empty and this model has no bos token to start from: give a prompt")
    ids = check_ids(model, prompt_ids)

    def reason_to_halt() -> str | None:
        if should_stop is not None and should_stop():
            return "stopped"
        return "deadline" if deadline is not None and time.monotonic() >= deadline else None

    return _steps(model, ids, settings, frozenset(stop_token_ids), alternatives, reason_to_halt)


class Decoder(Protocol):
    """A model and its cache: token ids in, the logits of the next token out. Call under `torch.inference_mode`."""

    reads_in_chunks: bool  # whether a text may be read in several passes of many tokens

    def read(self, token_ids: list[int]) -> Tensor:
        """Read these tokens after those before; the logits (V) of the token that comes next."""
        ...

    def reset(self) -> None:
        """Forget all tokens."""
        ...


def passes(decoder: Decoder, token_ids: list[int]) -> list[list[int]]:
    """The ids in the parts that `decoder.read` takes, at most `PREFILL_CHUNK` each where it reads in chunks."""
    size = PREFILL_CHUNK if decoder.reads_in_chunks else max(1, len(token_ids))
    return [token_ids[start : start + size] for start in range(0, len(token_ids), size)]


def _steps(
    model: PreTrainedModel,
    ids: list[int],
    settings: SamplingSettings,
    stop_token_ids: frozenset[int],
    alternatives: int,
    reason_to_halt: Callable[[], str | None],
) -> Generator[Step, None, str]:
    """The loop of `stream`, its arguments checked. No inference mode is held across a yield."""
    context = context_length(model)
    longest = len(ids) + settings.max_new_tokens
    with torch.inference_mode():
        decoder = _decoder(model, min(context, longest) if context else longest)
    sampler = Sampler(settings, ids, model.config.get_text_config(decoder=True).vocab_size)
    window = ids[-context:] if context else list(ids)
    unread, logits_V = window, torch.empty(0)
    for position in range(len(ids), len(ids) + settings.max_new_tokens):
        for part in passes(decoder, unread):
            if reason := reason_to_halt():
                return reason
            with torch.inference_mode():
                logits_V = decoder.read(part)
        with torch.inference_mode():
            draw = sampler.draw(logits_V, alternatives=alternatives)
        if draw.token_id in stop_token_ids:
            return "stop_token"
        yield Step(**draw._asdict(), position=position, context_used=len(window))
        window.append(draw.token_id)
        unread = window[-1:]
        length = next_window(len(window) - 1, context)
        if length < len(window):
            unread = window = window[-length:]
            decoder.reset()
    return "length"


def next_window(length: int, context: int | None) -> int:
    """Tokens that the model sees after it saw `length` and drew one more: where `context` is full, half of it."""
    return length + 1 if context is None or length < context else max(1, context // 2)


def _decoder(model: PreTrainedModel, capacity: int) -> Decoder:
    return FastDecoder(cast(ScratchGPTForCausalLM, model), capacity) if is_plain(model) else CacheDecoder(model)


CACHE_NAMES = ("cache", "past_key_values", "cache_params", "state")
"""The forward argument, and the output, that hold the cache: in transformers since 5.24, before it, in Mamba before
it, in RWKV. Code from the Hub keeps the name that it was written with."""


class CacheDecoder:
    """A `Decoder` of any causal language model of transformers: its own forward, and the cache that this returns.

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
