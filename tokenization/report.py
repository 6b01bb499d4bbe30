"""Tokenizers measured on the same texts, side by side."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from storage.text import count_bytes
from tokenization.encoding import Encoder, build_encoder
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one tokenizer makes of some texts."""

    name: str  # Of the tokenizer, as given.
    vocabulary: int  # Tokens it has.
    tokens: int  # Tokens it made.
    bytes_per_token: float  # UTF-8 bytes of the texts for each token.
    characters_per_token: float  # Characters of the texts for each token.
    fertility: float  # Tokens for each word; words are what whitespace separates.
    unknown: int  # Tokens that represent something unknown.
    unknown_share: float  # Their share of the tokens, 0 to 1.
    used: int  # Different tokens that occur.
    used_share: float  # Their share of the vocabulary, 0 to 1.
    exact_texts: float  # Share of the texts that decoding gives back exactly, 0 to 1.
    exact_lines: float  # The same of their non-empty lines, each encoded by itself and without its end.
    first_difference: Difference | None  # Where the first text that is not given back differs; None where all are.


@dataclass(kw_only=True, slots=True)
class _Tally:
    """The counts of one tokenizer so far."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    encode: Encoder
    used: np.ndarray  # bool, by id
    tokens: int = 0
    unknown: int = 0
    exact_texts: int = 0
    exact_lines: int = 0
    first_difference: Difference | None = None

    def add(self, name: str, text: str, lines: list[str]) -> None:
        """Counts one text and its lines."""
        ids, *line_ids = self.encode([text, *lines])
        self.tokens += len(ids)
        self.used[ids] = True
        if self.tokenizer.unk_token_id is not None:
            self.unknown += int((ids == self.tokenizer.unk_token_id).sum())
        back = decode_ids(self.tokenizer, ids)
        if back == text:
            self.exact_texts += 1
        elif self.first_difference is None:
            self.first_difference = difference(name, text, back)
        self.exact_lines += sum(
            decode_ids(self.tokenizer, one) == line for one, line in zip(line_ids, lines, strict=True)
        )


def compare(
    tokenizers: Sequence[tuple[str, PreTrainedTokenizerBase]], texts: Iterable[tuple[str, str]]
) -> list[Measured]:
    """Measures tokenizers, each with a name, on texts, each with a name; one text at a time is in memory.

    Nothing in a text is special, and no special token is added, as in `encode_corpus`.

    Raises:
        ValueError: no text, or none with a character.
    """
    tallies = [
        _Tally(name=name, tokenizer=tokenizer, encode=build_encoder(tokenizer)[0], used=np.zeros(len(tokenizer), bool))
        for name, tokenizer in tokenizers
    ]
    size = characters = words = count = lines_count = 0
    for name, text in texts:
        lines = [line for line in text.split("\n") if line]
        count += 1
        size += count_bytes(text)
        characters += len(text)
        words += len(text.split())
        lines_count += len(lines)
        for tally in tallies:
            tally.add(name, text, lines)
    if not characters:
        raise ValueError("expected a text to measure on, got none or only empty ones: check the files")
    return [
        Measured(
            name=tally.name,
            vocabulary=len(tally.used),
            tokens=tally.tokens,
            bytes_per_token=size / max(1, tally.tokens),
            characters_per_token=characters / max(1, tally.tokens),
            fertility=tally.tokens / max(1, words),
            unknown=tally.unknown,
            unknown_share=tally.unknown / max(1, tally.tokens),
            used=int(tally.used.sum()),
            used_share=float(tally.used.mean()),
            exact_texts=tally.exact_texts / count,
            exact_lines=tally.exact_lines / max(1, lines_count),
            first_difference=tally.first_difference,
        )
        for tally in tallies
    ]


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


def as_json(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """The measurements as plain values, one object a tokenizer."""
    return [asdict(one) for one in measured]


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
