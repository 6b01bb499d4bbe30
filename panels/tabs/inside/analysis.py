"""What a model predicts of a text, for the Inside tab and the API: surprisal, next tokens, logit lens, attention.

Each takes a loaded model and gives plain data.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from panels.generate import check_text, check_writes, encode_prompt
from panels.models import LoadedModel
from storage.text import replace_surrogates

if TYPE_CHECKING:
    from modeling.inspection import Surprisal
    from modeling.sampling import SamplingSettings
    from tokenization.spans import Piece

TEXT_LIMIT = 20_000
"""Characters of a text that is analysed."""
TOP_LIMIT = 1_000
"""Next tokens that may be asked for."""
LENS_TOKENS = 48
"""Last tokens of a text that the logit lens shows."""
LENS_TOP = 5
"""Tokens in each place of the logit lens."""
ATTENTION_TOKENS = 64
"""Last tokens of a text whose attention is shown, at most."""
WEIGHTS_LIMIT = 400_000
"""Attention weights that the page gets, of two bytes each: with many heads there are fewer tokens."""
ONE = 65_535
"""A weight of 1, as the page gets it."""


class ScoredToken(NamedTuple):
    """A token of a text, as predicted by the model."""

    piece: Piece
    surprisal: Surprisal  # bits are infinite at probability 0, None for a first token with nothing before it
    expected: str | None  # label of the likeliest token


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredText:
    """A text, as predicted by the model token by token."""

    tokens: list[ScoredToken]
    bytes: int  # of the tokens that have a surprisal, in UTF-8
    vocabulary: int  # tokens that the model chooses from

    @property
    def bits(self) -> float:
        """Sum of the surprisals."""
        return math.fsum(token.surprisal.bits or 0.0 for token in self.tokens)

    @property
    def bits_per_byte(self) -> float | None:
        """None for a text of which nothing was scored."""
        return self.bits / self.bytes if self.bytes else None

    @property
    def perplexity(self) -> float | None:
        """Per token; None for a text of which nothing was scored."""
        scored = sum(token.surprisal.bits is not None for token in self.tokens)
        return 2.0 ** min(self.bits / scored, 1000.0) if scored and math.isfinite(self.bits) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What the logit lens shows in one place."""

    guesses: list[tuple[str, float]]  # label and probability, the likeliest first
    is_correct: bool  # the likeliest is the token that came next


@dataclass(frozen=True, kw_only=True, slots=True)
class Lens:
    """A logit lens on the end of a text."""

    tokens: list[str]  # labels of the tokens that the model had read
    following: list[str | None]  # labels of those that came next; None after the last
    rows: list[list[Cell]]  # [layer][position]: the input of the first block, then after each block
    left_out: int  # tokens before those shown


@dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """Attention of all heads among the tokens of a text."""

    tokens: list[tuple[int, str]]  # id and label
    layers: int
    heads: int
    causal: bool  # no token attends to one behind it, so that those weights are left out
    weights: str  # [layer][head][query][key] as little-endian uint16, ONE being 1, in base64
    left_out: int  # tokens of the text that the model was not given


def surprisal(loaded: LoadedModel, text: str, *, should_stop: Callable[[], bool] | None = None) -> ScoredText:
    """The surprisal of each token of a text, given all before it; the figures are those of `python -m train.evaluate`.

    ValueError: for a masked model, or a text that does not fit; StoppedError: when `should_stop()`.
    """
    from modeling.inspection import surprisals
    from tokenization.spans import label

    check_writes(loaded, "its tokens have no surprise that adds up to that of the text")
    pieces, first = pieces_of(loaded, text), loaded.start_ids
    ids = [*first, *(piece.token_id for piece in pieces)]
    found = surprisals(loaded.model, ids, should_stop=should_stop)[len(first) :]
    tokens = [
        ScoredToken(piece, one, one.likeliest and label(loaded.tokenizer, one.likeliest.token_id))
        for piece, one in zip(pieces, found, strict=True)
    ]
    unscored = 0 if first else pieces[0].byte_count
    vocabulary = loaded.model.config.get_text_config(decoder=True).vocab_size
    return ScoredText(tokens=tokens, bytes=len(replace_surrogates(text).encode()) - unscored, vocabulary=vocabulary)


def next_tokens(loaded: LoadedModel, prompt: str, top: int, settings: SamplingSettings) -> list[dict[str, Any]]:
    """The `top` likeliest tokens after a prompt: `token_id`, `text`, `probability` under the model, and
    `sampled_probability`, with which `settings` would draw it; 0 where they cut it.

    ValueError: for a masked model, `top` out of range, or a prompt that does not fit: no empty one where the model has
    no token to begin with.
    """
    from modeling.infilling import LEFT_CONTEXT, text_after
    from modeling.inspection import next_token_logits
    from modeling.sampling import Sampler

    check_writes(loaded, "it has no next token")
    if not 1 <= top <= TOP_LIMIT:
        raise ValueError(f"top: expected a whole number from 1 to {TOP_LIMIT:,}, got {top}.")
    prompt = replace_surrogates(check_text(prompt, "prompt", limit=TEXT_LIMIT))
    ids = encode_prompt(loaded, prompt)
    if not ids:
        raise ValueError("prompt: expected text, since this model has no token to begin with, got none.")
    logits_V = next_token_logits(loaded.model, ids)
    model_V = logits_V.softmax(-1)
    sampled_V = Sampler(settings, ids, len(logits_V)).distribution(logits_V)
    special = set(loaded.tokenizer.all_special_ids)
    left = [token_id for token_id in ids[-LEFT_CONTEXT:] if token_id not in special]
    best = model_V[: len(loaded.tokenizer)].topk(min(top, len(loaded.tokenizer)))
    return [
        {
            "token_id": token_id,
            "text": replace_surrogates(text_after(loaded.tokenizer, left, token_id)),
            "probability": probability,
            "sampled_probability": sampled_V[token_id].item(),
        }
        for token_id, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def lens(loaded: LoadedModel, text: str) -> Lens:
    """A logit lens on the last tokens of a text; the model has read all before them, as far as its context reaches.

    ValueError: for a masked model, one of another structure, or a text that does not fit.
    """
    from modeling.inspection import logit_lens
    from tokenization.spans import label

    check_writes(loaded, "its layers predict no next token")
    ids = [*loaded.start_ids, *(piece.token_id for piece in pieces_of(loaded, text))]
    shown = min(LENS_TOKENS, len(ids), loaded.context_length or len(ids))
    layers = logit_lens(loaded.model, ids, LENS_TOP, last=shown)
    tokens, following = ids[-shown:], [*ids[len(ids) - shown + 1 :], None]
    rows = [
        [
            Cell(
                guesses=[(label(loaded.tokenizer, guess.token_id), guess.probability) for guess in guesses],
                is_correct=guesses[0].token_id == target,
            )
            for guesses, target in zip(layer, following, strict=True)
        ]
        for layer in layers
    ]
    return Lens(
        tokens=[label(loaded.tokenizer, token_id) for token_id in tokens],
        following=[None if token_id is None else label(loaded.tokenizer, token_id) for token_id in following],
        rows=rows,
        left_out=len(ids) - shown,
    )


def heads(loaded: LoadedModel, text: str, *, weights_limit: int = WEIGHTS_LIMIT) -> Heads:
    """Attention among the last tokens of a text. The model reads these alone, after what precedes every text.

    ValueError: for a text that does not fit, or a model without attention to show.
    """
    import numpy as np

    from modeling.infilling import surroundings
    from modeling.inspection import attention
    from tokenization.spans import label

    masked = loaded.source.masked
    before, after = surroundings(loaded.model, loaded.tokenizer) if masked else (loaded.start_ids, ())
    ids = [piece.token_id for piece in pieces_of(loaded, text)]
    config = loaded.model.config.get_text_config(decoder=True)
    count = config.num_hidden_layers * (getattr(config, "num_attention_heads", None) or 1)
    limit = min(ATTENTION_TOKENS, int(math.sqrt((1 if masked else 2) * weights_limit / count)))
    kept = min(len(ids), max(1, min(limit, loaded.context_length or limit) - len(before) - len(after)))
    shown = [*before, *ids[len(ids) - kept :], *after]
    weights_LHQK = np.rint(attention(loaded.model, shown).numpy() * ONE).astype("<u2")
    size = len(shown)
    queries, keys = np.indices((size, size)) if masked else np.tril_indices(size)
    return Heads(
        tokens=[(token_id, label(loaded.tokenizer, token_id)) for token_id in shown],
        layers=weights_LHQK.shape[0],
        heads=weights_LHQK.shape[1],
        causal=not masked,
        weights=base64.b64encode(weights_LHQK[:, :, queries, keys].tobytes()).decode(),
        left_out=len(ids) - kept,
    )


def pieces_of(loaded: LoadedModel, text: str) -> list[Piece]:
    """The tokens of a text, with U+FFFD for lone surrogates; ValueError for one that does not fit or has no tokens."""
    from tokenization.spans import pieces

    found = pieces(loaded.tokenizer, replace_surrogates(check_text(text, limit=TEXT_LIMIT, may_be_empty=False)))
    if not found:
        raise ValueError("The tokenizer of this model makes no token of this text: add a word.")
    return found
