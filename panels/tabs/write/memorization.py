"""The longest passage of a written text that stands word for word in the training tokens of its run.

Every window of `WINDOW` training tokens is hashed (a polynomial modulo 2^64) and looked up among the windows of the
written tokens; where such windows follow each other, the tokens themselves are compared, so that a collision of hashes
can cost time and nothing else. The shards are read chunk by chunk.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from panels.context import AppContext
from panels.generate import check_text
from panels.sampling import number
from panels.templates import render
from storage.repeats import CHUNK, hashes
from storage.run_folder import RunFolder
from storage.shards import TokenSplit, read_manifest, tokenizer_hash

LEAST = 16
"""Tokens of the shortest passage that is reported."""
WINDOW = 12
"""Tokens that are hashed together."""
SECONDS = 1.0
"""Time for one search; what was not searched until then is said."""
MOST = 10_000
"""Tokens that one search looks for at most."""
EXCERPT = 240
"""Characters of the passage that the note repeats."""
TOP = np.uint64(48)

NOTE = """
<aside class="note" aria-label="Memorised?"><p><b>Memorised?</b> {{ repeat.length }} tokens in a row
({{ words }} word{{ '' if words == 1 else 's' }}) occur word for word in the training text: document
{{ '{:,}'.format(repeat.document) }} of {{ '{:,}'.format(repeat.documents) }}, {{ place }} of the way through it.
{% if searched %}Searched: the first {{ searched }} of it.{% endif %}</p>
<blockquote>{{ excerpt }}</blockquote>
<button type="button" aria-pressed="false" data-start="{{ repeat.start }}" data-length="{{ repeat.length }}">Show it in
the text</button></aside>
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeat:
    """A passage that was written and stands in the training text."""

    start: int  # its first token among the written ones
    length: int  # in tokens
    position: int  # of its first token among the training tokens, at the first place where it was found
    document: int  # the training document that holds it, counted from 1
    documents: int  # training documents in all
    tokens: int  # training tokens in all
    searched: int  # how many of them, from the first on, were looked at


def longest_repeat(
    run: RunFolder, token_ids: Sequence[int], *, least: int = LEAST, seconds: float = SECONDS, chunk: int = CHUNK
) -> Repeat | None:
    """The longest run of `token_ids`, `least` tokens or more, that stands in the training tokens of `run`.

    Of several equally long ones it is any. After `seconds` the search ends with what it has found.

    Raises ValueError, OSError or KeyError where the run has no complete tokens."""
    split = TokenSplit.open(run.tokens, "train")
    if len(token_ids) < least:
        return None
    search = Search(split, np.asarray(token_ids, dtype=np.uint64), least, time.monotonic() + seconds, chunk)
    for first, last in search.stretches():
        search.compare(first, last)
    if search.length < least:
        return None
    return Repeat(
        start=search.start,
        length=search.length,
        position=search.position,
        document=search.count((read_manifest(run.tokens) or {})["end_of_text"]),
        documents=split.documents,
        tokens=len(split),
        searched=search.searched,
    )


class Search:
    """One search and its best find so far."""

    def __init__(self, split: TokenSplit, written: np.ndarray, least: int, deadline: float, chunk: int) -> None:
        self.split, self.written, self.deadline, self.chunk = split, written, deadline, chunk
        self.window = min(WINDOW, least)
        self.length = self.start = self.position = self.searched = 0

    @property
    def is_over(self) -> bool:
        """Nothing longer can be found, or the time is up."""
        return self.length == len(self.written) or time.monotonic() >= self.deadline

    def count(self, token_id: int) -> int:
        """How often a token occurs before the passage that was found."""
        starts = range(0, self.position, self.chunk)
        parts = (self.split.read(start, min(self.chunk, self.position - start)) for start in starts)
        return sum(int(np.count_nonzero(part == token_id)) for part in parts)

    def _read(self, start: int, end: int) -> np.ndarray:
        return self.split.read(start, end - start).astype(np.uint64)

    def stretches(self) -> Iterator[tuple[int, int]]:
        """Where windows of the written tokens follow each other in the training tokens: their first and last token,
        those of one chunk by falling length; long ones in overlapping parts."""
        keys = np.unique(hashes(self.written, self.window))
        is_key = np.zeros(2**16, dtype=bool)
        is_key[keys >> TOP] = True
        places_end = len(self.split) - self.window + 1
        unfinished: tuple[int, int] | None = None  # a stretch that may go on in the next chunk
        for start in range(0, places_end, self.chunk):
            if self.is_over:
                return
            end = min(start + self.chunk, places_end)
            found = hashes(self._read(start, end + self.window - 1), self.window)
            likely = np.flatnonzero(is_key[found >> TOP])
            stretches = in_stretches(likely[np.isin(found[likely], keys)] + start)
            if unfinished and stretches and stretches[0][0] == start:
                stretches[0] = (unfinished[0], stretches[0][1])
            elif unfinished:
                stretches.insert(0, unfinished)
            unfinished = None
            if stretches and stretches[-1][1] == end - 1 and end < places_end:
                unfinished = stretches.pop()
                if unfinished[1] - unfinished[0] > self.chunk:
                    stretches.append(unfinished)
                    unfinished = (max(unfinished[0], end - 1 - len(self.written)), end - 1)
            for first, last in sorted(stretches, key=lambda each: each[0] - each[1]):
                yield first, last + self.window - 1
            self.searched = end + self.window - 1

    def compare(self, first: int, last: int) -> None:
        """Look for a longer common passage from the training token `first` to `last`: for each of them, how many
        written tokens before each place are the same."""
        if last - first + 1 <= self.length or self.is_over:
            return
        ends = np.zeros(len(self.written) + 1, dtype=np.int64)
        for offset, token_id in enumerate(self._read(first, last + 1)):
            ends[1:] = np.where(self.written == token_id, ends[:-1] + 1, 0)
            if (place := int(ends.argmax())) and ends[place] > self.length:
                self.length = int(ends[place])
                self.start, self.position = place - self.length, first + offset + 1 - self.length
            if offset % 1024 == 1023 and self.is_over:
                return


def in_stretches(places: np.ndarray) -> list[tuple[int, int]]:
    """The first and the last of each stretch of numbers that follow each other."""
    if not len(places):
        return []
    breaks = np.flatnonzero(np.diff(places) > 1)
    firsts = places[np.concatenate(([0], breaks + 1))]
    lasts = places[np.concatenate((breaks, [len(places) - 1]))]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def run_of_same_tokens(context: AppContext) -> RunFolder | None:
    """The run of the page's model, where its training tokens are there and are those of the same tokenizer."""
    if context.run is None or context.source.folder is None:
        return None
    run = RunFolder(context.run)
    try:
        made_from = (read_manifest(run.tokens) or {})["made_from"]
        return run if made_from["tokenizer"] == tokenizer_hash(context.source.folder) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def written_tokens(value: Any) -> list[tuple[int, str]]:
    """Id and text of each token that the page says the model wrote, one after the other.

    Raises ValueError for what is no list of them."""
    if not isinstance(value, list) or len(value) > MOST:
        raise ValueError(f"tokens: expected at most {MOST:,} pairs of id and text, got {type(value).__name__}.")
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise ValueError("tokens: expected pairs of id and text.")
    return [(number("token", token_id, int), check_text(text)) for token_id, text in value]


def render_note(context: AppContext, written: Sequence[tuple[int, str]]) -> str:
    """What is said of the tokens that the model wrote, each with its id and text; nothing where they repeat no long
    passage, or the training tokens are not at hand."""
    if len(written) < LEAST or (run := run_of_same_tokens(context)) is None:
        return ""
    try:
        repeat = longest_repeat(run, [token_id for token_id, _ in written])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):  # a folder that vanishes, ids that are none
        return ""
    if repeat is None:
        return ""
    passage = "".join(text for _, text in written[repeat.start : repeat.start + repeat.length]).strip()
    return render(
        NOTE,
        repeat=repeat,
        words=len(passage.split()),
        place=f"{repeat.position / repeat.tokens:.0%}",
        searched="" if repeat.searched >= repeat.tokens else f"{repeat.searched / repeat.tokens:.0%}",
        excerpt=passage if len(passage) <= EXCERPT else passage[:EXCERPT] + " \u2026",
    )
