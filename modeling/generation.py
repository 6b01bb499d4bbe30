"""Streaming generation: the tokens of a causal language model one at a time, with their probabilities.

`stream` is a plain generator. Nothing runs between two tokens, so closing it (a Stop button, a closed tab) ends the
computation at once. It takes any causal language model of transformers: ScratchGPT goes through `FastDecoder`, every
other model through its own forward and cache, `CacheDecoder`.

The window. A model sees at most its context length: a longer prompt is cut on the left. When the window is full, its
older half is dropped and the newer half is read again from position 0, once every half context of tokens. Up to the
first slide the tokens are those of transformers' `generate`.
"""

import itertools
import math
import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from modeling.cache_decoder import CacheDecoder
from modeling.fast_decoder import FastDecoder, is_plain
from modeling.loading import context_length
from modeling.modeling_scratchgpt import ScratchGPTForCausalLM
from modeling.sampling import Alternative, Sampler, SamplingSettings

__all__ = ["Alternative", "SamplingSettings", "Step", "StoppedError", "check_ids", "prefix_ids", "start_ids", "stream"]

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
    uniform: float | None = None  # the random number that chose it; None when greedy

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
    text = Continuation(model, prompt_ids, settings, stop_token_ids, alternatives)
    return _steps(model, text, partial(reason_to_halt, should_stop, deadline))


def prompt_of(model: PreTrainedModel, prompt_ids: Sequence[int]) -> list[int]:
    """The ids that a text begins with: the prompt's, or the model's `start_ids` for an empty one.

    Raises ValueError as `stream`."""
    if model.config.is_encoder_decoder:
        raise ValueError(f"expected a causal language model, got {type(model).__name__}, which has an encoder")
    if model.training:
        raise ValueError("expected a model in evaluation mode, got one in training mode: call model.eval() first")
    prompt_ids = list(prompt_ids) or start_ids(model)
    if not prompt_ids:
        raise ValueError("the prompt is empty and this model has no bos token to start from: give a prompt")
    return check_ids(model, prompt_ids)


def reason_to_halt(should_stop: Callable[[], bool] | None, deadline: float | None) -> str | None:
    """Why a text ends before its next pass, if it does: "stopped" or "deadline"."""
    if should_stop is not None and should_stop():
        return "stopped"
    return "deadline" if deadline is not None and time.monotonic() >= deadline else None


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


class Continuation:
    """A text that grows by a token at a time: its window, its sampler, and which tokens are to be read next.

    Takes what `stream` takes, and raises ValueError as it does.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompt_ids: Sequence[int],
        settings: SamplingSettings,
        stop_token_ids: Collection[int],
        alternatives: int,
    ) -> None:
        assert alternatives >= 0
        ids, context = prompt_of(model, prompt_ids), context_length(model)
        self.context, self.alternatives, self.stop_token_ids = context, alternatives, frozenset(stop_token_ids)
        self.sampler = Sampler(settings, ids, model.config.get_text_config(decoder=True).vocab_size)
        self.window = ids[-context:] if context else list(ids)
        self.unread = self.window
        """What the model has not read; where that is the whole window, it must forget what it has read."""
        self.position, self.end = len(ids), len(ids) + settings.max_new_tokens

    @property
    def capacity(self) -> int:
        """Tokens that the model sees at once at most."""
        return min(self.context, self.end) if self.context else self.end

    @property
    def is_complete(self) -> bool:
        """Whether it has as many tokens as were asked for."""
        return self.position >= self.end

    def draw(self, logits_V: Tensor) -> Step | None:
        """The next token, drawn from the logits that follow the window; None where it ends the text."""
        draw = self.sampler.draw(logits_V, alternatives=self.alternatives)
        if draw.token_id in self.stop_token_ids:
            return None
        step = Step(**draw._asdict(), position=self.position, context_used=len(self.window))
        self.position += 1
        self.window.append(draw.token_id)
        self.unread = self.window[-1:]
        length = next_window(len(self.window) - 1, self.context)
        if length < len(self.window):
            self.unread = self.window = self.window[-length:]
        return step


def _steps(model: PreTrainedModel, text: Continuation, halt: Callable[[], str | None]) -> Generator[Step, None, str]:
    """The loop of `stream`, its arguments checked. No inference mode is held across a yield."""
    with torch.inference_mode():
        decoder = _decoder(model, text.capacity)
    logits_V = torch.empty(0)
    while not text.is_complete:
        if text.unread is text.window:
            decoder.reset()
        for part in passes(decoder, text.unread):
            if reason := halt():
                return reason
            with torch.inference_mode():
                logits_V = decoder.read(part)
        with torch.inference_mode():
            step = text.draw(logits_V)
        if step is None:
            return "stop_token"
        yield step
    return "length"


def next_window(length: int, context: int | None) -> int:
    """Tokens that the model sees after it saw `length` and drew one more: where `context` is full, half of it."""
    return length + 1 if context is None or length < context else max(1, context // 2)


def _decoder(model: PreTrainedModel, capacity: int) -> Decoder:
    return FastDecoder(cast(ScratchGPTForCausalLM, model), capacity) if is_plain(model) else CacheDecoder(model)
