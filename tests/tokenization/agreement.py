"""What all our ways through one vocabulary have to agree on, for any text and any ids.

The ways: the from-scratch class, the same merges in the Rust backend (`build_fast`), the path of corpora
(`build_encoder`: tiktoken where it gives the same), the streaming decoder, and merges applied by the book. Used by the
tests of random cases and by the coverage-guided campaign of `tests.fuzz tokenizer`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

from storage.text import replace_surrogates
from tokenization import ScratchGPTTokenizer, StreamingDecoder
from tokenization.bpe import parts_of
from tokenization.encoding import build_encoder
from tokenization.saving import build_fast
from tokenization.tokenization_scratchgpt import BYTES, bytes_to_text, text_to_bytes

BY_THE_BOOK = 200
"""Bytes of a text up to which merges are also applied one by one."""
SPECIAL_TOKENS = ("<|endoftext|>", "<|end|>", "<|end", "of text", "世界", "<|début|>", "<|конец|>")
"""Some hold others, one has a space in it, and one, `<|début|>`, could be read as bytes in GPT-2's alphabet."""


class Vocabulary:
    """One vocabulary, in all its ways. Each check raises AssertionError that names the way and the case."""

    def __init__(
        self, merges: Sequence[tuple[bytes, bytes]], special_tokens: Sequence[str] = SPECIAL_TOKENS, **options: Any
    ) -> None:
        self.slow = ScratchGPTTokenizer.from_merges(merges, special_tokens, **options)
        self.fast = build_fast(self.slow)
        self.encode, self.can_cut = build_encoder(self.slow)
        self.ranks = {pair: rank for rank, pair in enumerate(self.slow.merges)}

    def __len__(self) -> int:
        return len(self.slow)

    def check_text(self, text: str, cut: int = 0) -> None:
        """The ids of a text, and the text of its ids. `cut` is where it is cut in two for the streaming decoder."""
        ids = self.slow.encode_ordinary(text)
        self._equal(self.slow.decode(ids), text, "decode of the from-scratch class", text)
        self._equal(self.encode([text])[0].tolist(), ids, "the path of corpora", text)
        parts = [*parts_of(text, 3)] if self.can_cut else [text]
        self._equal([*chain.from_iterable(map(list, self.encode(parts)))], ids, "parts of a long text", text)
        if len(text_to_bytes(text)) <= BY_THE_BOOK:
            self._equal(self.tokens_by_the_book(text), [self.slow.token_bytes[index] for index in ids], "book", text)
        # What looks like a special token is one in a call; the decoded text is the same.
        called = self.slow(text)["input_ids"]
        self._equal(self.slow.decode(called), text, "decode of a call of the from-scratch class", text)
        halves = [*self.slow.encode_ordinary(text[:cut]), *self.slow.encode_ordinary(text[cut:])]
        self._equal("".join(stream(self.slow, halves)), text, f"streamed, cut at {cut}", text)
        self._check_fast(replace_surrogates(text))

    def _check_fast(self, text: str) -> None:
        """The Rust backend, which takes no lone surrogates."""
        ids = self.slow.encode_ordinary(text)
        ordinary = self.fast(text, split_special_tokens=True, verbose=False)["input_ids"]
        self._equal(ordinary, ids, "ids of the Rust backend", text)
        encoding: Any = self.fast(text, return_offsets_mapping=True, verbose=False)
        called = self.slow(text)["input_ids"]
        self._equal(encoding["input_ids"], called, "special tokens in a text, Rust backend", text)
        self._equal(self.slow.offsets(called), encoding["offset_mapping"], "offsets", text)
        self._equal(self.fast.decode(called), text, "decode of the Rust backend", text)

    def check_ids(self, ids: Sequence[int]) -> None:
        """The text of any ids, those beyond the vocabulary and those that make no UTF-8 among them."""
        ids = list(ids)
        for skip in (False, True):
            kept = [index for index in ids if not (skip and BYTES + len(self.slow.merges) <= index < len(self))]
            data = b"".join(self.slow.token_bytes[index] for index in kept if index < len(self))
            case = f"{ids} (skip_special_tokens={skip})"
            ours = self.slow.decode(ids, skip_special_tokens=skip)
            self._equal(ours, bytes_to_text(data), "decode of the from-scratch class", case)
            theirs = self.fast.decode(ids, skip_special_tokens=skip)
            self._equal(theirs, data.decode("utf-8", "replace"), "decode of the Rust backend", case)
            if not any("\ud800" <= character <= "\udfff" for character in ours):
                self._equal(ours, theirs, "decode of both", case)
            for tokenizer, whole in ((self.slow, ours), (self.fast, theirs)):
                chunks = stream(tokenizer, ids, skip_special_tokens=skip)
                self._equal("".join(chunks), whole, f"streamed by {type(tokenizer).__name__}", case)

    def tokens_by_the_book(self, text: str) -> list[bytes]:
        """The tokens: in each pre-token the lowest merge that applies, one place after the other, until none does."""
        tokens = []
        for pretoken in self.slow.split(text):
            word = [bytes([byte]) for byte in text_to_bytes(pretoken)]
            while pairs := [(self.ranks[pair], at) for at, pair in enumerate(pairwise(word)) if pair in self.ranks]:
                _, at = min(pairs)
                word[at : at + 2] = [word[at] + word[at + 1]]
            tokens += word
        return tokens

    def _equal(self, got: Any, expected: Any, way: str, case: str) -> None:
        assert got == expected, f"{way}, {len(self)} tokens: {case!r}: expected {expected!r}, got {got!r}"


def stream(tokenizer: Any, ids: Sequence[int], **options: Any) -> list[str]:
    """The chunks of a streaming decoder, the last from its end."""
    decoder = StreamingDecoder(tokenizer, **options)
    return [*map(decoder.push, ids), decoder.finish()]


def random_merges(count: int, seed: int) -> list[tuple[bytes, bytes]]:
    """Merges that nobody learnt: of any two tokens. Not each is reachable, which tiktoken could not follow."""
    rng = random.Random(seed)
    tokens = [bytes([byte]) for byte in range(BYTES)]
    common = [bytes([byte]) for byte in b" etaoinsrhld\n1.'\xc3\xa9\xd0\xb0"]
    known, merges = set(tokens), []
    while len(merges) < count:
        pair = rng.choice(common), rng.choice(common)
        if (token := pair[0] + pair[1]) not in known and len(token) < 24:
            known.add(token)
            common.append(token)
            merges.append(pair)
    return merges
