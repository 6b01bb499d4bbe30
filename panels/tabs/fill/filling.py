"""The blanks of a text, guessed by a masked model. The page, the API and the terminal all use it."""

from __future__ import annotations

from collections.abc import Callable

from modeling.infilling import Blank, blank_pattern, fill_in
from panels.models import LoadedModel
from storage.text import replace_surrogates
from tokenization import plain_ids

TOP_LIMIT = 1_000
"""Candidates of a blank that may be asked for."""
BLANKS_LIMIT = 20
"""Blanks of one text: each takes a forward pass."""


def fill(loaded: LoadedModel, text: str, top: int, *, should_stop: Callable[[], bool] | None = None) -> list[Blank]:
    """The blanks of a text, each with the likeliest `top` tokens.

    Raises:
        ValueError: for a model that writes instead, `top` out of range, a text without a blank or with more than
            BLANKS_LIMIT.
        StoppedError: when `should_stop()`.
    """
    if not loaded.source.masked:
        raise ValueError(f"{loaded.source.name} writes and does not fill blanks: give it a beginning.")
    if not 1 <= top <= TOP_LIMIT:
        raise ValueError(f"top: expected a whole number from 1 to {TOP_LIMIT:,}, got {top}.")
    text = replace_surrogates(text)
    count = len(blank_pattern(loaded.tokenizer).findall(text))
    if count > BLANKS_LIMIT:
        raise ValueError(f"expected at most {BLANKS_LIMIT} blanks at a time, got {count}: fill some of them first")
    return fill_in(loaded.model, loaded.tokenizer, text, top, encode=plain_ids, should_stop=should_stop)
