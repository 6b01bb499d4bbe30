"""Tokenizers measured on the same texts, side by side."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from storage.text import count_bytes
from tokenization.encoding import build_encoder
from tokenization.spans import is_from_scratch
from tokenization.tokenization_scratchgpt import bytes_to_text

EXCERPT = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Where a text first came back changed."""

    text: str  # Which text: its name.
    character: int  # The first character that differs, counted from 0.
    expected: str  # The text around it.
    got: str  # What decoding gave there.


@dataclass(kw_only=True, slots=True)
class Measured:
    """What one tokenizer makes of some texts."""

    name: str  # Of the tokenizer, as given.
    vocabulary: int  # Tokens it has.
    tokens: int = 0  # Tokens it made.
    bytes_per_token: float = 0  # UTF-8 bytes of the texts for each token.
    characters_per_token: float = 0  # Characters of the texts for each token.
    fertility: float = 0  # Tokens for each word; words are what whitespace separates.
    unknown: int = 0  # Tokens that represent something unknown.
    unknown_share: float = 0  # Their share of the tokens, 0 to 1.
    used: int = 0  # Different tokens that occur.
    used_share: float = 0  # Their share of the vocabulary, 0 to 1.
    exact_texts: float = 0  # Share of the texts that decoding gives back exactly, 0 to 1.
    exact_lines: float = 0  # The same of their non-empty lines, each encoded by itself and without its end.
    first_difference: Difference | None = None  # Where the first text that is not given back differs.


def compare(
    tokenizers: Sequence[tuple[str, PreTrainedTokenizerBase]], texts: Iterable[tuple[str, str]]
) -> list[Measured]:
    """Measures tokenizers, each with a name, on texts, each with a name; one text at a time is in memory.

    Nothing in a text is special, and no special token is added, as in `encode_corpus`.

    Raises:
        ValueError: no text, or none with a character.
    """
    measured = [Measured(name=name, vocabulary=len(tokenizer)) for name, tokenizer in tokenizers]
    encoders = [build_encoder(tokenizer)[0] for _, tokenizer in tokenizers]
    used = [np.zeros(len(tokenizer), bool) for _, tokenizer in tokenizers]
    size = characters = words = count = lines_count = 0
    for name, text in texts:
        lines = [line for line in text.split("\n") if line]
        count += 1
        size += count_bytes(text)
        characters += len(text)
        words += len(text.split())
        lines_count += len(lines)
        for one, (_, tokenizer), encode, is_used in zip(measured, tokenizers, encoders, used, strict=True):
            ids, *line_ids = encode([text, *lines])
            one.tokens += len(ids)
            is_used[ids] = True
            if tokenizer.unk_token_id is not None:
                one.unknown += int((ids == tokenizer.unk_token_id).sum())
            back = decode_ids(tokenizer, ids)
            one.exact_texts += back == text
            if back != text and one.first_difference is None:
                one.first_difference = difference(name, text, back)
            one.exact_lines += sum(
                decode_ids(tokenizer, ids) == line for ids, line in zip(line_ids, lines, strict=True)
            )
    if not characters:
        raise ValueError("expected a text to measure on, got none or only empty ones: check the files")
    for one, is_used in zip(measured, used, strict=True):
        tokens = max(1, one.tokens)
        one.bytes_per_token, one.characters_per_token = size / tokens, characters / tokens
        one.fertility, one.unknown_share = one.tokens / max(1, words), one.unknown / tokens
        one.used, one.used_share = int(is_used.sum()), float(is_used.mean())
        one.exact_texts, one.exact_lines = one.exact_texts / count, one.exact_lines / max(1, lines_count)
    return measured


def as_table(measured: Sequence[Measured]) -> str:
    """The measurements as an aligned table, one tokenizer a column, and the first differences below it."""
    rows = [["", *(one.name for one in measured)]]
    rows += [
        [title, *(cell(one) for one in measured)]
        for title, cell in (
            ("vocabulary", lambda one: f"{one.vocabulary:,}"),
            ("tokens", lambda one: f"{one.tokens:,}"),
            ("bytes per token", lambda one: f"{one.bytes_per_token:.3f}"),
            ("characters per token", lambda one: f"{one.characters_per_token:.3f}"),
            ("tokens per word", lambda one: f"{one.fertility:.3f}"),
            ("unknown tokens", lambda one: f"{one.unknown:,} ({one.unknown_share:.2%})"),
            ("vocabulary used", lambda one: f"{one.used:,} ({one.used_share:.1%})"),
            ("texts given back exactly", lambda one: f"{one.exact_texts:.1%}"),
            ("lines given back exactly", lambda one: f"{one.exact_lines:.1%}"),
        )
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    for one in measured:
        if (first := one.first_difference) is not None:
            where = f"{one.name}: {first.text}, character {first.character}"
            lines.append(f"\n{where}\n  text  {first.expected!r}\n  back  {first.got!r}")
    return "\n".join(lines)


def decode_ids(tokenizer: PreTrainedTokenizerBase, ids: np.ndarray) -> str:
    """The text of some ids, special tokens written out; as `tokenizer.decode`, but fast on long arrays."""
    if is_from_scratch(tokenizer):
        ours: Any = tokenizer
        if not len(ids) or int(ids.max()) < len(ours.token_bytes):
            return bytes_to_text(b"".join(map(ours.token_bytes.__getitem__, ids.tolist())))
    return cast(str, tokenizer.decode(ids.tolist()))


def difference(name: str, text: str, back: str) -> Difference:
    """Where a text and what came back for it first differ, with a little of both around that place."""
    place = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
    around = slice(max(0, place - EXCERPT), place + EXCERPT)
    return Difference(text=name, character=place, expected=text[around], got=back[around])
