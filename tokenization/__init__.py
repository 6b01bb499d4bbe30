"""Tokenizers: the from-scratch byte-level BPE, the four others, their files, corpus encoding, streaming decoding.

Names are looked up on first use, so importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenization.bpe import train_bpe
    from tokenization.encoding import encode_corpus
    from tokenization.saving import load_tokenizer, save_tokenizer
    from tokenization.spans import plain_ids
    from tokenization.streaming import StreamingDecoder
    from tokenization.tokenization_scratchgpt import GPT4_SPLIT_PATTERN, ScratchGPTTokenizer
    from tokenization.trainers import add_mask_token, train_vocabulary

__all__ = [
    "GPT4_SPLIT_PATTERN",
    "ScratchGPTTokenizer",
    "StreamingDecoder",
    "add_mask_token",
    "encode_corpus",
    "load_tokenizer",
    "plain_ids",
    "save_tokenizer",
    "train_bpe",
    "train_vocabulary",
]

_HOMES = {
    "GPT4_SPLIT_PATTERN": "tokenization_scratchgpt",
    "ScratchGPTTokenizer": "tokenization_scratchgpt",
    "StreamingDecoder": "streaming",
    "add_mask_token": "trainers",
    "encode_corpus": "encoding",
    "load_tokenizer": "saving",
    "plain_ids": "spans",
    "save_tokenizer": "saving",
    "train_bpe": "bpe",
    "train_vocabulary": "trainers",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
