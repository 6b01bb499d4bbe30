"""Filling blanks with a masked language model.

All blanks of a text are masked at once and predicted independently: two blanks side by side need not agree.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modeling.generation import StoppedError, start_ids
from modeling.loading import context_length

UNDERSCORES = "_{3,}"
"""How people write a blank, as a regular expression."""
LEFT_CONTEXT = 8
"""Tokens before a blank that decide how a candidate is written after them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A token for a blank."""

    token_id: int
    text: str  # what it puts in the place of the blank, a space before it included
    probability: float  # softmax of the model's logits over the vocabulary


@dataclass(frozen=True, kw_only=True, slots=True)
class Blank:
    """A blank of a text."""

    start: int  # characters [start, end) of the text give way to a candidate; a space before the blank is among them
    end: int
    candidates: tuple[Candidate, ...]  # the likeliest, in that order


def fill_in(
    model: Any,
    tokenizer: Any,
    text: str,
    top: int = 10,
    *,
    encode: Callable[[Any, str], list[int]],
    should_stop: Callable[[], bool] | None = None,
) -> list[Blank]:
    """The likeliest tokens for each blank of a text, in order.

    A blank is the tokenizer's mask token or a run of three underscores or more, and is filled with one token. Nothing
    else in the text is special. In a text longer than the model's context, each blank sees the window around it.

    Args:
        model: a masked language model of transformers, in evaluation mode.
        tokenizer: its tokenizer.
        text: with at least one blank.
        top: how many candidates; special tokens are none.
        encode: from the tokenizer and a text to ids, nothing in the text being special: `tokenization.plain_ids`.
        should_stop: called before each blank.

    Raises:
        ValueError: for a text without a blank, a tokenizer without a mask token, or `top` below 1.
        StoppedError: when `should_stop()`.
    """
    if top < 1:
        raise ValueError(f"top: expected a whole number, 1 or more, got {top}")
    blanks = list(blank_pattern(tokenizer).finditer(text))
    if not blanks:
        raise ValueError(f"expected a text with a blank, ____ or {tokenizer.mask_token}, got one without")
    takes_space = not spells_letters(tokenizer)
    first, last = surroundings(model, tokenizer)
    ids, positions, spans, done = list(first), [], [], 0
    for blank in blanks:
        start = blank.start() - (takes_space and text[done : blank.start()].endswith(" "))
        ids += encode(tokenizer, text[done:start])
        positions.append(len(ids))
        ids.append(tokenizer.mask_token_id)
        spans.append((start, blank.end()))
        done = blank.end()
    ids += [*encode(tokenizer, text[done:]), *last]
    special = sorted(set(tokenizer.all_special_ids))
    found = []
    for position, (start, end) in zip(positions, spans, strict=True):
        if should_stop is not None and should_stop():
            raise StoppedError
        left = [token for token in ids[max(0, position - LEFT_CONTEXT) : position] if token not in special]
        probability_V = probabilities_at(model, ids, position)
        probability_V[special] = 0.0
        values, tokens = probability_V[: len(tokenizer)].topk(min(top, len(tokenizer) - len(special)))
        candidates = (
            Candidate(token_id=token, text=text_after(tokenizer, left, token), probability=value)
            for token, value in zip(tokens.tolist(), values.tolist(), strict=True)
        )
        found.append(Blank(start=start, end=end, candidates=tuple(candidates)))
    return found


def insert(text: str, blank: Blank, candidate: Candidate) -> str:
    """`text` with a candidate in the place of its blank; at the beginning of the text without a space before it."""
    new = candidate.text.removeprefix(" ") if not blank.start else candidate.text
    return text[: blank.start] + new + text[blank.end :]


@torch.no_grad()
def probabilities_at(model: Any, ids: Sequence[int], position: int) -> torch.Tensor:
    """The model's distribution (V,), float32 on the CPU, at one position, from the window around it."""
    context = context_length(model) or len(ids)
    start = max(0, min(position - context // 2, len(ids) - context))
    input_1L = torch.tensor([ids[start : start + context]], device=model.device)
    return model(input_ids=input_1L).logits[0, position - start].float().softmax(-1).cpu()


@torch.no_grad()
def fill_ids(model: Any, ids: Sequence[int], mask_token_id: int) -> list[int]:
    """`ids`, at most a context long, with the likeliest token at each mask."""
    likeliest = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].argmax(-1).tolist()
    return [guess if token == mask_token_id else token for token, guess in zip(ids, likeliest, strict=True)]


def surroundings(model: Any, tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids before and after each text in training.

    ScratchGPT: the separator of documents on both sides, as in our shards. Other models: what the tokenizer adds by
    itself ([CLS] and [SEP]).
    """
    if model.config.model_type == "scratchgpt":
        separator = list(start_ids(model, tokenizer))
        return separator, separator
    ids = list(tokenizer("")["input_ids"])
    return ids[:1], ids[1:]


def blank_pattern(tokenizer: Any) -> re.Pattern[str]:
    """What a blank looks like in a text.

    Raises:
        ValueError: for a tokenizer without a mask token.
    """
    if tokenizer.mask_token is None:
        raise ValueError("expected the tokenizer of a masked language model, got one without a mask token")
    return re.compile(f"{re.escape(tokenizer.mask_token)}|{UNDERSCORES}")


def spells_letters(tokenizer: Any) -> bool:
    """Whether each token is a single character, so that a space before a word is a token of its own."""
    special = set(tokenizer.all_special_tokens)
    return all(len(token) <= 1 for token in tokenizer.get_vocab() if token not in special)


def text_after(tokenizer: Any, left_ids: Sequence[int], token_id: int) -> str:
    """What a token adds to the text of the tokens before it: ` cat`, `s` for `##s`."""
    before, after = tokenizer.decode(list(left_ids)), tokenizer.decode([*left_ids, token_id])
    return after[len(before) :] if after.startswith(before) else tokenizer.decode([token_id])
