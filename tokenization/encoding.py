"""From texts to arrays of token ids, for token shards and evaluation.

Our own merges run in tiktoken, which gives the ids of the from-scratch class at the speed of Rust.
"""

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import tiktoken
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from storage.text import replace_surrogates
from tokenization.bpe import parts_of
from tokenization.saving import build_fast
from tokenization.spans import SENTENCEPIECE_WORDS, is_from_scratch
from tokenization.tokenization_scratchgpt import BYTES, END_OF_TEXT, GPT4_SPLIT_PATTERN, ScratchGPTTokenizer
from tokenization.untrusted import without_panics

BATCH_TEXTS = 256
# For one thread of ours; libraries that share a batch among their threads get eight times it.
BATCH_CHARACTERS = 1 << 18
PART_CHARACTERS = 1 << 16
# tiktoken's regular expressions give up on a run of about a million whitespace characters.
LONG_WHITESPACE = 250_000
# From where a run begins alone: from each of its characters it would take quadratic time.
LONG_RUN = re.compile(rf"(?<!\s)\s{{{LONG_WHITESPACE}}}")

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
        tokenizer: the from-scratch tokenizer runs in tiktoken, characters are looked up in a table, and others are
            encoded by their own Rust backend, in as many threads as there are cores.
        texts: read as the arrays are taken, a few megabytes ahead. A long text is cut where that changes no id.
        workers: threads for the from-scratch tokenizer.

    Raises:
        ValueError: fewer workers than one.
    """
    if workers < 1:
        raise ValueError(f"expected workers of at least 1, got {workers}")
    encode, can_cut = build_encoder(tokenizer)
    is_ours = is_from_scratch(tokenizer)
    parts = _parts(texts, PART_CHARACTERS if can_cut else None)
    batches = _batches(parts, BATCH_CHARACTERS if is_ours else 8 * BATCH_CHARACTERS)
    pending: list[np.ndarray] = []
    for arrays, ends in _in_threads(encode, batches, workers if is_ours else 1):
        for ids, is_end in zip(arrays, ends, strict=True):
            pending.append(ids)
            if is_end:
                yield pending[0] if len(pending) == 1 else np.concatenate(pending)
                pending = []


def build_encoder(tokenizer: PreTrainedTokenizerBase) -> tuple[Encoder, bool]:
    """From texts to arrays of ids as `encode_corpus` makes them, and whether texts may be cut before a space.

    They may where no token and no rule of the tokenizer reaches from another character over a space behind it.
    """
    dtype = token_dtype(len(tokenizer))
    if is_from_scratch(tokenizer):
        ours = cast(ScratchGPTTokenizer, tokenizer)
        return direct_encoder(ours, dtype), ours.pattern == GPT4_SPLIT_PATTERN
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        call = cast(Callable[..., dict[str, list[list[int]]]], tokenizer)
        options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        return lambda texts: [np.array(ids, dtype=dtype) for ids in call(texts, **options)["input_ids"]], False
    written = backend.to_str()
    state = json.loads(written)
    only_special = all(token["special"] for token in state["added_tokens"])
    if only_special and _is_of_characters(state):
        return character_encoder(state["model"], dtype), True
    rust = Tokenizer.from_str(written)
    rust.encode_special_tokens = True
    rust.no_padding()
    rust.no_truncation()

    def encode(texts: list[str]) -> list[np.ndarray]:
        clean = list(map(replace_surrogates, texts))
        encodings = without_panics(rust.encode_batch_fast, clean, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=dtype) for encoding in encodings]

    return encode, only_special and _has_borders_at_spaces(state)


def direct_encoder(tokenizer: ScratchGPTTokenizer, dtype: type[np.unsignedinteger]) -> Encoder:
    """The from-scratch tokenizer: its merges in tiktoken, or its own code where tiktoken would not give the same."""
    is_same = is_same_in_tiktoken(tokenizer)
    # All copies of tiktoken's regular expressions share one cache, which is half as slow again for every thread but the
    # first that used it (benchmarks/encoding.py). So each thread has an encoding of its own.
    of_thread = threading.local()

    def encode(text: str) -> np.ndarray:
        if is_same and not (len(text) >= LONG_WHITESPACE and LONG_RUN.search(text)):
            if not hasattr(of_thread, "library"):
                of_thread.library = to_tiktoken(tokenizer)
            try:
                return of_thread.library.encode_to_numpy(text, disallowed_special=()).astype(dtype)
            except UnicodeEncodeError:
                pass  # a lone surrogate, which only the from-scratch class keeps
        return np.array(tokenizer.encode_ordinary(text), dtype=dtype)

    return lambda texts: list(map(encode, texts))


def is_same_in_tiktoken(tokenizer: ScratchGPTTokenizer) -> bool:
    """Whether tiktoken gives the ids of the from-scratch class."""
    # tiktoken leaves out what a pattern passes over, so it gets the one pattern that passes over nothing.
    return tokenizer.pattern == GPT4_SPLIT_PATTERN and is_reachable(tokenizer)


def to_tiktoken(tokenizer: ScratchGPTTokenizer) -> tiktoken.Encoding:
    """The tokenizer's merges in tiktoken."""
    ranks = {token: rank for rank, token in enumerate(tokenizer.token_bytes[: BYTES + len(tokenizer.merges)])}
    special = {END_OF_TEXT: len(ranks)}  # it needs one to search for, and is never allowed to take it
    return tiktoken.Encoding("scratchgpt", pat_str=GPT4_SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=special)


def is_reachable(tokenizer: ScratchGPTTokenizer) -> bool:
    """Whether the merges, in order, make each token of its own bytes. Learned merges do; others need not.

    tiktoken merges by what two tokens make together, the from-scratch class by pairs. Where each token is reachable
    that is the same: neighbours that make a token together were once the text of that token, so they are its pair.
    """
    model = build_fast(tokenizer).backend_tokenizer.model
    tokens = tokenizer.convert_ids_to_tokens(list(range(BYTES, BYTES + len(tokenizer.merges))))
    return all(len(model.tokenize(token)) == 1 for token in tokens)


def character_encoder(model: dict[str, Any], dtype: type[np.unsignedinteger]) -> Encoder:
    """A vocabulary of single characters as an array from code point to id."""
    vocab: dict[str, int] = model["vocab"]
    ids = np.full(0x110000, vocab[model["unk_token"]], dtype=dtype)
    for token, index in vocab.items():
        if len(token) == 1:
            ids[ord(token)] = index

    def encode(texts: list[str]) -> list[np.ndarray]:
        return [ids[np.frombuffer(replace_surrogates(text).encode("utf-32-le"), dtype="<u4")] for text in texts]

    return encode


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
    normalizer: dict[str, Any] = state["normalizer"] or {"type": "Sequence", "normalizers": []}
    rules: set[str] = {rule["type"] for rule in normalizer.get("normalizers", [normalizer])}
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
        case _:
            return False


def _parts(texts: Iterable[str], characters: int | None) -> Iterator[tuple[str, bool]]:
    """The texts, a long one in parts, each with whether its text ends there."""
    for text in texts:
        *parts, last = [text] if characters is None else parts_of(text, characters)
        yield from ((part, False) for part in parts)
        yield last, True


def _batches(parts: Iterable[tuple[str, bool]], characters: int) -> Iterator[tuple[list[str], list[bool]]]:
    """Lists of parts of about so many characters together, and whether a text ends with each."""
    texts: list[str] = []
    ends: list[bool] = []
    length = 0
    for text, is_end in parts:
        texts.append(text)
        ends.append(is_end)
        length += len(text)
        if length >= characters or len(texts) >= BATCH_TEXTS:
            yield texts, ends
            texts, ends, length = [], [], 0
    if texts:
        yield texts, ends


def _in_threads(
    encode: Encoder, batches: Iterable[tuple[list[str], list[bool]]], workers: int
) -> Iterator[tuple[list[np.ndarray], list[bool]]]:
    """The arrays of each batch, in order; at most two batches a thread are read ahead."""
    if workers == 1:
        yield from ((encode(texts), ends) for texts, ends in batches)
        return
    with ThreadPoolExecutor(workers) as threads:
        running: deque[tuple[Future[list[np.ndarray]], list[bool]]] = deque()
        for texts, ends in batches:
            running.append((threads.submit(encode, texts), ends))
            if len(running) > 2 * workers:
                future, first_ends = running.popleft()
                yield future.result(), first_ends
        for future, ends in running:
            yield future.result(), ends
