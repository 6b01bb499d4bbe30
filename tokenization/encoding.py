"""From texts to arrays of token ids, for token shards and evaluation."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, cast

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from storage.text import replace_surrogates
from tokenization.pretokens import can_be_cut, cut_at_borders, parts_of, piece_text
from tokenization.spans import is_from_scratch
from tokenization.tokenization_scratchgpt import CACHE_ENTRIES, GPT4_SPLIT_PATTERN, LONG_WORD, ScratchGPTTokenizer
from tokenization.workers import Job, encode_in_processes

BATCH_TEXTS = 256
BATCH_CHARACTERS = 1 << 21
PART_CHARACTERS = 1 << 16
# Fewer characters than this in all are encoded before a process has started.
PARALLEL_CHARACTERS = 1 << 22
# How the pieces of a SentencePiece vocabulary of ours lie in a text: none holds a space after another character.
SENTENCEPIECE_WORDS = "\u2581+[^\u2581]*|[^\u2581]+"

Encoder = Callable[[list[str]], list[np.ndarray]]


def token_dtype(vocabulary_size: int) -> type[np.unsignedinteger]:
    """The smallest type that shards use for ids below `vocabulary_size`: uint16 up to 65,536 tokens, else uint32."""
    return np.uint16 if vocabulary_size <= 1 << 16 else np.uint32


def encode_corpus(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], *, workers: int = 1
) -> Iterator[np.ndarray]:
    """Yields the token ids of each text, in order: one array [tokens] of `token_dtype(len(tokenizer))` a text.

    Nothing in a text is special (what looks like a special token is text) and no special token is added. A lone
    surrogate survives in the from-scratch tokenizer alone; the others get U+FFFD for it.

    Args:
        tokenizer: the from-scratch tokenizer goes its direct path, characters are looked up in a table, and others are
            encoded in batches by the threads of their library, as many as there are cores.
        texts: read as the arrays are taken, a few megabytes ahead. A long text is cut where that changes no id.
        workers: processes for the from-scratch tokenizer, started once there are some megabytes of text; 1: this one.

    Raises:
        ValueError: fewer workers than one.
    """
    if workers < 1:
        raise ValueError(f"expected workers of at least 1, got {workers}")
    encode, can_cut = build_encoder(tokenizer)
    if not is_from_scratch(tokenizer):
        jobs = _batches(texts, PART_CHARACTERS if can_cut else None)
        yield from _joined((encode(parts), ends) for parts, ends in jobs)
        return
    if workers == 1:
        for text in texts:
            yield from encode([text])
        return
    jobs = _batches(texts, PART_CHARACTERS if can_cut else None)
    first, is_long = _take(jobs, PARALLEL_CHARACTERS)
    if is_long:
        yield from _joined(encode_in_processes(tokenizer, chain(first, jobs), workers))
    else:
        yield from _joined((encode(parts), ends) for parts, ends in first)


def build_encoder(tokenizer: PreTrainedTokenizerBase) -> tuple[Encoder, bool]:
    """From texts to arrays of ids as `encode_corpus` makes them, and whether texts may be cut before a space.

    They may where no token and no rule of the tokenizer reaches from another character over a space behind it.
    """
    dtype = token_dtype(len(tokenizer))
    if is_from_scratch(tokenizer):
        ours = cast(ScratchGPTTokenizer, tokenizer)
        return DirectEncoder(ours, dtype), ours.pattern == GPT4_SPLIT_PATTERN
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _calls(tokenizer, dtype), False
    written = backend.to_str()
    state = json.loads(written)
    only_special = all(token["special"] for token in state["added_tokens"])
    if only_special and _is_of_characters(state):
        return CharacterTable(state["model"], dtype), True
    rust = Tokenizer.from_str(written)
    rust.encode_special_tokens = True
    rust.no_padding()
    rust.no_truncation()

    def encode(texts: list[str]) -> list[np.ndarray]:
        encodings = rust.encode_batch_fast([replace_surrogates(text) for text in texts], add_special_tokens=False)
        return [np.array(encoding.ids, dtype=dtype) for encoding in encodings]

    return encode, only_special and _has_borders_at_spaces(state)


class PieceCache(dict[str, bytes]):
    """From a piece of text, as `cut_at_borders` makes them, to its token ids as bytes of an array; bounded."""

    def __init__(self, tokenizer: ScratchGPTTokenizer, dtype: type[np.unsignedinteger]):
        super().__init__()
        self.tokenizer = tokenizer
        self.dtype = dtype

    def __missing__(self, piece: str) -> bytes:
        ids = self.encode(piece_text(piece))
        if len(piece) <= LONG_WORD:
            if len(self) >= CACHE_ENTRIES:
                self.clear()
            self[piece] = ids
        return ids

    def encode(self, text: str) -> bytes:
        return np.array(self.tokenizer.encode_ordinary(text), dtype=self.dtype).tobytes()


class DirectEncoder:
    """The from-scratch tokenizer, by larger pieces than pre-tokens where its pattern is known to cut between them."""

    def __init__(self, tokenizer: ScratchGPTTokenizer, dtype: type[np.unsignedinteger]):
        self.tokenizer = tokenizer
        self.cache = PieceCache(tokenizer, dtype)

    def __call__(self, texts: list[str]) -> list[np.ndarray]:
        return list(map(self._encode, texts))

    def _encode(self, text: str) -> np.ndarray:
        if can_be_cut(text) and self.tokenizer.split.is_plain(text):
            data = bytearray().join(map(self.cache.__getitem__, cut_at_borders(text)))
        else:
            data = bytearray(self.cache.encode(text))
        return np.frombuffer(data, dtype=self.cache.dtype)


class CharacterTable:
    """A vocabulary of single characters as an array from code point to id."""

    def __init__(self, model: dict[str, Any], dtype: type[np.unsignedinteger]):
        vocab: dict[str, int] = model["vocab"]
        self.ids = np.full(0x110000, vocab[model["unk_token"]], dtype=dtype)
        for token, index in vocab.items():
            if len(token) == 1:
                self.ids[ord(token)] = index
        self.ids[0xD800:0xE000] = self.ids[0xFFFD]

    def __call__(self, texts: list[str]) -> list[np.ndarray]:
        return [self.ids[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")] for text in texts]


def _is_of_characters(state: dict[str, Any]) -> bool:
    model = state["model"]
    return (
        model["type"] == "BPE"
        and not model["merges"]
        and model["unk_token"] in model["vocab"]
        and not (model["byte_fallback"] or model["fuse_unk"] or state["normalizer"] or state["pre_tokenizer"])
    )


def _has_borders_at_spaces(state: dict[str, Any]) -> bool:
    """Whether the normalizer and the pre-tokenizer are those of one of our vocabularies, or of GPT-2's."""
    normalizer = state["normalizer"] or {"type": "Sequence", "normalizers": []}
    rules = {rule["type"] for rule in normalizer.get("normalizers", [normalizer])}
    if not rules <= {"Replace", "NFD", "StripAccents"}:
        return False
    match state["pre_tokenizer"]:
        case {"type": "Whitespace"}:
            return True
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return True
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}:
            return pattern == SENTENCEPIECE_WORDS
        case {"type": "Sequence", "pretokenizers": [{"pattern": {"Regex": pattern}}, {"type": "ByteLevel"} as last]}:
            return pattern == GPT4_SPLIT_PATTERN and not (last["add_prefix_space"] or last["use_regex"])
    return False


def _calls(tokenizer: PreTrainedTokenizerBase, dtype: type[np.unsignedinteger]) -> Encoder:
    """A tokenizer in Python, other than ours, through its call."""
    call = cast(Callable[..., dict[str, list[list[int]]]], tokenizer)

    def encode(texts: list[str]) -> list[np.ndarray]:
        encoded = call(
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [np.array(ids, dtype=dtype) for ids in encoded["input_ids"]]

    return encode


def _batches(texts: Iterable[str], part_characters: int | None) -> Iterator[Job]:
    """Lists of texts, or of parts of long ones, of about `BATCH_CHARACTERS` together."""
    parts: list[str] = []
    ends: list[bool] = []
    characters = whole = 0
    for text in texts:
        cut = [text] if part_characters is None else parts_of(text, part_characters)
        for part in cut:
            parts.append(part)
            ends.append(False)
            characters += len(part)
            if characters >= BATCH_CHARACTERS and len(parts) > 1:
                # The last part waits: whether the text ends with it is not known yet.
                yield parts[:-1], ends[:-1]
                parts, ends, characters, whole = parts[-1:], ends[-1:], len(part), 0
        ends[-1] = True
        whole += 1
        if characters >= BATCH_CHARACTERS or whole >= BATCH_TEXTS:
            yield parts, ends
            parts, ends, characters, whole = [], [], 0, 0
    if parts:
        yield parts, ends


def _joined(results: Iterable[tuple[list[np.ndarray], list[bool]]]) -> Iterator[np.ndarray]:
    """The arrays of whole texts, from those of parts."""
    pending: list[np.ndarray] = []
    for arrays, ends in results:
        for array, is_end in zip(arrays, ends, strict=True):
            pending.append(array)
            if is_end:
                yield pending[0] if len(pending) == 1 else np.concatenate(pending)
                pending = []


def _take(jobs: Iterator[Job], characters: int) -> tuple[list[Job], bool]:
    """The first jobs, up to so many characters, and whether there may be more."""
    taken: list[Job] = []
    for parts, ends in jobs:
        taken.append((parts, ends))
        characters -= sum(map(len, parts))
        if characters <= 0:
            return taken, True
    return taken, False
