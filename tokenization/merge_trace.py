"""The merges of a BPE vocabulary as they apply to one text, in the order in which they were learned.

Encoding with BPE (Sennrich, Haddow and Birch, 2016) is the training once more: the text falls into pre-tokens, these
into bytes or characters, and the merge learned first of those that fit is made wherever it fits, until none does.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from storage.text import replace_surrogates
from tokenization.spans import is_from_scratch, label, plain_ids
from tokenization.tokenization_scratchgpt import BYTES, text_to_bytes
from tokenization.untrusted import without_panics

COUNTS = "merge_counts"
"""The attribute of a tokenizer that holds how often each pair occurred when it was merged, in the order of merges."""
SORTS = {
    "WordPiece": "WordPiece takes the longest pieces it knows, from the left of a word: it keeps no merges to replay.",
    "Unigram": "Unigram chooses the likeliest pieces for each word as a whole: it keeps no merges to replay.",
    "WordLevel": "Here each word is one token: there are no merges to replay.",
}
UNKNOWN_SORT = "This tokenizer does not expose its merges, so there is nothing to replay."
NO_MERGES = "Here each character is one token: there are no merges to replay."
OTHERWISE = "This tokenizer does more to the text than merging pairs, so a replay would not end with its tokens."


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """One merge, at all its places in a text."""

    rank: int  # 1 for the merge learned first
    first: int  # ids of the two tokens that are joined …
    second: int
    made: int  # … and of the one that they become
    count: int | None  # how often the pair occurred in the training text when it was merged; None: not recorded
    places: int  # in this text


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """How a text becomes its tokens."""

    words: list[list[int]] = field(default_factory=list[list[int]])  # ids before the first merge, by pre-token
    merges: list[Merge] = field(default_factory=list[Merge])  # those that apply, in the order in which they are made
    labels: dict[int, str] = field(default_factory=dict[int, str])  # of every id in words and merges
    learnt: int = 0  # merges of the vocabulary
    message: str | None = None  # why there is no replay

    def states(self) -> Iterator[list[list[int]]]:
        """The ids for each pre-token: before the first merge, and after each."""
        words = self.words
        yield words
        for merge in self.merges:
            words = [_join(word, merge.first, merge.second, merge.made) for word in words]
            yield words


def replay(tokenizer: PreTrainedTokenizerBase, text: str, counts: Sequence[int] | None = None) -> Replay:
    """The merges that make the tokens of a text, as `tokenization.spans.pieces` has them.

    Args:
        tokenizer: any; one without merges gives a replay that has only a `message`.
        counts: how often each pair occurred when it was merged, in the order of the merges; default: those that
            `merge_counts` knows.
    """
    vocabulary = _vocabulary(tokenizer)
    if isinstance(vocabulary, str):
        return Replay(message=vocabulary)
    counts = merge_counts(tokenizer) if counts is None else counts
    start = vocabulary.split(text)
    words = Counter(map(tuple, start))
    merges: list[Merge] = []
    while found := {pair for word in words for pair in pairwise(word) if pair in vocabulary.merges}:
        pair = min(found, key=lambda pair: vocabulary.merges[pair][0])
        index, made = vocabulary.merges[pair]
        joined: Counter[tuple[int, ...]] = Counter()
        places = 0
        for word, times in words.items():
            after = tuple(_join(word, *pair, made))
            places += times * (len(word) - len(after))
            joined[after] += times
        words = joined
        count = counts[index] if counts is not None and index < len(counts) else None
        merges.append(Merge(rank=index + 1, first=pair[0], second=pair[1], made=made, count=count, places=places))
    ids = {token_id for word in start for token_id in word} | {merge.made for merge in merges}
    replayed = Replay(
        words=start,
        merges=merges,
        labels={token_id: label(tokenizer, token_id) for token_id in sorted(ids)},
        learnt=len(vocabulary.merges),
    )
    *_, last = replayed.states()
    if [token_id for word in last for token_id in word] != plain_ids(tokenizer, text):
        return Replay(message=OTHERWISE)
    return replayed


def merge_counts(tokenizer: PreTrainedTokenizerBase) -> list[int] | None:
    """How often each pair occurred in the training text when it was merged; None where nobody wrote it down."""
    return vars(tokenizer).get(COUNTS)


def _join(word: Sequence[int], first: int, second: int, made: int) -> list[int]:
    joined: list[int] = []
    index = 0
    while index < len(word):
        is_pair = word[index] == first and index + 1 < len(word) and word[index + 1] == second
        joined.append(made if is_pair else word[index])
        index += 2 if is_pair else 1
    return joined


class _Ours:
    """The merges of the from-scratch class."""

    def __init__(self, tokenizer: Any):
        tokens: list[bytes] = tokenizer.token_bytes[: BYTES + len(tokenizer.merges)]
        ids = {content: token_id for token_id, content in enumerate(tokens)}
        self.merges = {
            (ids[first], ids[second]): (index, BYTES + index) for index, (first, second) in enumerate(tokenizer.merges)
        }
        self.cut = tokenizer.split

    def split(self, text: str) -> list[list[int]]:
        return [list(text_to_bytes(word)) for word in self.cut(text)]


class _Rust:
    """The merges of a BPE model of the Rust backend, `model` as its tokenizer.json has it."""

    def __init__(self, backend: Any, model: dict[str, Any]):
        self.backend = backend
        self.ids: dict[str, int] = model["vocab"]
        self.has_bytes = bool(model["byte_fallback"])
        self.fuses = bool(model["fuse_unk"])
        self.unknown = self.ids.get(model["unk_token"]) if model["unk_token"] is not None else None
        self.prefix = model["continuing_subword_prefix"] or ""
        self.suffix = model["end_of_word_suffix"] or ""
        self.merges: dict[tuple[int, int], tuple[int, int]] = {}
        for index, pair in enumerate(model["merges"]):
            first, second = pair.split(" ") if isinstance(pair, str) else pair
            made = first + second.removeprefix(self.prefix)
            self.merges.setdefault((self.ids[first], self.ids[second]), (index, self.ids[made]))

    def split(self, text: str) -> list[list[int]]:
        text = replace_surrogates(text)
        if self.backend.normalizer is not None:
            text = self.backend.normalizer.normalize_str(text)
        words = [text] if text else []
        if self.backend.pre_tokenizer is not None:
            words = [word for word, _ in without_panics(self.backend.pre_tokenizer.pre_tokenize_str, text)]
        return [self._symbols(word) for word in words]

    def _symbols(self, word: str) -> list[int]:
        symbols: list[int] = []
        after_unknown = False
        for index, character in enumerate(word):
            token = (self.prefix if index else "") + character + (self.suffix if index == len(word) - 1 else "")
            written = [f"<0x{byte:02X}>" for byte in token.encode()]
            is_unknown = False
            if token in self.ids:
                symbols.append(self.ids[token])
            elif self.has_bytes and all(byte in self.ids for byte in written):
                symbols += map(self.ids.__getitem__, written)
            elif self.unknown is not None:
                is_unknown = True
                if not (self.fuses and after_unknown):
                    symbols.append(self.unknown)
            after_unknown = is_unknown
        return symbols


_VOCABULARIES: WeakKeyDictionary[PreTrainedTokenizerBase, _Ours | _Rust | str] = WeakKeyDictionary()


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> _Ours | _Rust | str:
    """The merges of a tokenizer, or why it has none."""
    if tokenizer not in _VOCABULARIES:
        _VOCABULARIES[tokenizer] = _read_vocabulary(tokenizer)
    return _VOCABULARIES[tokenizer]


def _read_vocabulary(tokenizer: Any) -> _Ours | _Rust | str:
    if is_from_scratch(tokenizer):
        return _Ours(tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return UNKNOWN_SORT
    model = json.loads(backend.to_str())["model"]
    if model["type"] != "BPE":
        return SORTS.get(model["type"], UNKNOWN_SORT)
    return _Rust(backend, model) if model["merges"] else NO_MERGES
