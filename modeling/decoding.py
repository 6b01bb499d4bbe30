"""Streaming decoder: tokens of a causal language model, one at a time, with what a page wants to know about each.

`stream` is a plain generator. Nothing runs between two tokens, so closing it (a Stop button, a closed tab) ends the
computing at once. It takes any causal language model of transformers; ScratchGPT goes by a lean path of its own
(`lean.py`), every other model by its forward with a cache.

The window. A model sees at most its context length: a longer prompt is cut on the left. When the window is full, its
older half is dropped and the newer half read again from position 0, in one pass; that happens once in half a context
of tokens. Up to the first slide the tokens are those of transformers' `generate`.
"""

import inspect
import math
import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .lean import LeanReader, is_plain
from .modeling_scratchgpt import ScratchGPTForCausalLM
from .sampling import Alternative, Draw, Sampler, SamplingSettings

__all__ = ["Alternative", "SamplingSettings", "Step", "StoppedError", "context_length", "stream"]

PREFILL_CHUNK = 256
"""Tokens of a prompt read in one pass; between two passes a stop and the deadline are looked at."""


class StoppedError(Exception):
    """`should_stop()` said so: there is no result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One generated token."""

    token_id: int
    probability: float  # what the sampler drew it with; 1 when greedy
    model_probability: float  # softmax of the model's logits, before the sampler
    kept: int  # tokens that the sampler's filters left to draw from
    alternatives: tuple[Alternative, ...]  # the model's likeliest tokens here, in that order; as many as were asked for
    position: int  # its index in the whole text, the prompt (or the bos token in its place) included
    context_used: int  # tokens that the model saw when it made this one

    @property
    def surprise(self) -> float:
        """Bits: -log2 of the model's probability."""
        return -math.log2(self.model_probability) if self.model_probability > 0 else math.inf


def context_length(model: PreTrainedModel) -> int | None:
    """The most tokens that the model sees at once, as its config says; None where it names no limit."""
    config = model.config.get_text_config(decoder=True)
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if isinstance(limit := getattr(config, name, None), int) and limit > 0:
            return limit
    return None


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

    An empty prompt starts from the model's bos token. A token of `stop_token_ids` ends the text and is not yielded.
    `alternatives` asks for that many of the model's likeliest tokens with each step (0 costs nothing). `should_stop`
    and `deadline` (a value of `time.monotonic()`) are looked at before every pass of the model. The generator's return
    value says why it ended: "length", "stop_token", "stopped" or "deadline".

    The weights are read when the first token is asked for, anew in every call. The generator may be advanced from any
    thread, by one at a time.

    Raises ValueError (at the call): a token id outside the vocabulary; an empty prompt with no bos token; a model that
    has an encoder or is in training mode. While running: logits that are NaN or infinite.
    """
    assert alternatives >= 0
    if model.config.is_encoder_decoder:
        raise ValueError(f"expected a causal language model, got {type(model).__name__}, which has an encoder")
    if model.training:
        raise ValueError("expected a model in evaluation mode, got one in training mode: call model.eval() first")
    vocab_size = model.config.get_text_config(decoder=True).vocab_size
    ids = [int(token_id) for token_id in prompt_ids] or [_bos_token_id(model)]
    for token_id in ids:
        if not 0 <= token_id < vocab_size:
            raise ValueError(
                f"expected token ids from 0 to {vocab_size - 1}, got {token_id}: encode the prompt with the tokenizer "
                "that belongs to this model"
            )

    def reason_to_halt() -> str | None:
        if should_stop is not None and should_stop():
            return "stopped"
        return "deadline" if deadline is not None and time.monotonic() >= deadline else None

    return _steps(model, ids, settings, frozenset(stop_token_ids), alternatives, reason_to_halt)


class Reader(Protocol):
    """A model with the memory of what it has read so far. Called under `torch.inference_mode`."""

    reads_in_chunks: bool  # whether a text may be read in several passes of many tokens

    def read(self, token_ids: list[int]) -> Tensor:
        """Read these tokens after those read before; the logits (V) of the token that comes next."""
        ...

    def forget(self) -> None:
        """Start again with nothing read."""
        ...


def _steps(
    model: PreTrainedModel,
    ids: list[int],
    settings: SamplingSettings,
    stop_token_ids: frozenset[int],
    alternatives: int,
    reason_to_halt: Callable[[], str | None],
) -> Generator[Step, None, str]:
    """The loop behind `stream`, its arguments checked. No inference mode is held across a yield."""
    context = context_length(model)
    longest = len(ids) + settings.max_new_tokens
    with torch.inference_mode():
        reader = _reader(model, min(context, longest) if context else longest)
    sampler = Sampler(settings, ids, model.config.get_text_config(decoder=True).vocab_size)
    window = ids[-context:] if context else list(ids)
    unread = window
    for position in range(len(ids), len(ids) + settings.max_new_tokens):
        chunk = PREFILL_CHUNK if reader.reads_in_chunks else len(unread)
        for start in range(0, len(unread), chunk):
            if reason := reason_to_halt():
                return reason
            with torch.inference_mode():
                logits_V = reader.read(unread[start : start + chunk])
        with torch.inference_mode():
            draw = sampler.draw(logits_V, alternatives=alternatives)
        if draw.token_id in stop_token_ids:
            return "stop_token"
        yield _step(draw, position, len(window))
        window.append(draw.token_id)
        unread = window[-1:]
        if context and len(window) > context:
            unread = window = window[-max(1, context // 2) :]
            reader.forget()
    return "length"


def _step(draw: Draw, position: int, context_used: int) -> Step:
    return Step(
        token_id=draw.token_id,
        probability=draw.probability,
        model_probability=draw.model_probability,
        kept=draw.kept,
        alternatives=draw.alternatives,
        position=position,
        context_used=context_used,
    )


def _reader(model: PreTrainedModel, capacity: int) -> Reader:
    return LeanReader(cast(ScratchGPTForCausalLM, model), capacity) if is_plain(model) else CacheReader(model)


CACHE_NAMES = ("past_key_values", "cache_params", "state")


class CacheReader:
    """Any causal language model of transformers, by its own forward and whatever cache it makes for itself.

    A model without a cache reads everything again for each token.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        parameters = inspect.signature(model.forward).parameters
        self.cache_name = next((name for name in CACHE_NAMES if name in parameters), None)
        self.options: dict[str, Any] = {}
        if "logits_to_keep" in parameters:
            self.options["logits_to_keep"] = 1
        if "use_cache" in parameters:
            self.options["use_cache"] = self.cache_name is not None
        self.takes_mask = "attention_mask" in parameters
        # Recurrent models of transformers take up their state only for single tokens.
        self.reads_in_chunks = self.cache_name is not None and not model._is_stateful
        self.forget()

    def read(self, token_ids: list[int]) -> Tensor:
        self.read_ids += token_ids
        options = dict(self.options)
        if self.cache_name is not None and self.cache is not None:
            options[self.cache_name] = self.cache
        device = self.model.device
        new_ids = self.read_ids if self.cache_name is None else token_ids
        if self.takes_mask:
            options["attention_mask"] = torch.ones(1, len(self.read_ids), dtype=torch.long, device=device)
        outputs = self.model(input_ids=torch.tensor([new_ids], device=device), return_dict=True, **options)
        if self.cache_name is not None:
            self.cache = outputs[self.cache_name]
        return outputs.logits[0, -1]

    def forget(self) -> None:
        self.read_ids: list[int] = []
        self.cache: Any = None


def _bos_token_id(model: PreTrainedModel) -> int:
    """The token that an empty prompt starts from."""
    for config in (model.generation_config, model.config.get_text_config(decoder=True)):
        if config is not None and isinstance(token_id := getattr(config, "bos_token_id", None), int):
            return token_id
    raise ValueError("the prompt is empty and this model has no bos token to start from: give a prompt")
