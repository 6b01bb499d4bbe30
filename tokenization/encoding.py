"""From texts to arrays of token ids, for token shards and evaluation."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import cast

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizerBase

from tokenization.fast import is_from_scratch
from tokenization.pretokens import can_be_cut, cut_at_borders, piece_text
from tokenization.tokenization_scratchgpt import CACHE_ENTRIES, LONG_WORD, ScratchGPTTokenizer

BATCH_TEXTS = 256
BATCH_CHARACTERS = 1 << 20


def token_dtype(vocabulary_size: int) -> type[np.unsignedinteger]:
    """The smallest type that shards use for ids below `vocabulary_size`: uint16 up to 65,536 tokens, else uint32."""
    return np.uint16 if vocabulary_size <= 1 << 16 else np.uint32


def encode_corpus(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Iterator[np.ndarray]:
    """Yields the token ids of each text, in order: one array [tokens] of `token_dtype(len(tokenizer))` a text.

    Nothing in a text is special (what looks like a special token is text) and no special token is added. The
    from-scratch tokenizer goes its direct path; others encode batches of texts.
    """
    dtype = token_dtype(len(tokenizer))
    if is_from_scratch(tokenizer):
        yield from _encode_directly(cast(ScratchGPTTokenizer, tokenizer), texts, dtype)
        return
    for batch in _batches(texts):
        encoded = cast(Callable[..., BatchEncoding], tokenizer)(
            batch,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        for ids in encoded["input_ids"]:
            yield np.array(ids, dtype=dtype)


def without_surrogates(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, which UTF-8 and so the Rust and C++ libraries cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


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


def _encode_directly(
    tokenizer: ScratchGPTTokenizer, texts: Iterable[str], dtype: type[np.unsignedinteger]
) -> Iterator[np.ndarray]:
    """Ids by larger pieces than pre-tokens, where the split pattern is known to have borders between them."""
    cache = PieceCache(tokenizer, dtype)
    for text in texts:
        if can_be_cut(text) and tokenizer.split.is_plain(text):
            data = bytearray().join(map(cache.__getitem__, cut_at_borders(text)))
        else:
            data = bytearray(cache.encode(text))
        yield np.frombuffer(data, dtype=dtype)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = iter(texts)
    while batch := list(islice(texts, 1)):
        characters = len(batch[0])
        while characters < BATCH_CHARACTERS and len(batch) < BATCH_TEXTS and (more := list(islice(texts, 1))):
            batch += more
            characters += len(more[0])
        yield batch
