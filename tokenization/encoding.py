"""From texts to arrays of token ids, for token shards and evaluation."""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerBase

from tokenization.fast import is_from_scratch

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
        for text in texts:
            yield np.array(tokenizer.encode_ordinary(text), dtype=dtype)
        return
    for batch in _batches(texts):
        encoded = tokenizer(
            batch,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        for ids in encoded["input_ids"]:
            yield np.array(ids, dtype=dtype)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = iter(texts)
    while batch := list(islice(texts, 1)):
        characters = len(batch[0])
        while characters < BATCH_CHARACTERS and len(batch) < BATCH_TEXTS and (more := list(islice(texts, 1))):
            batch += more
            characters += len(more[0])
        yield batch
