import json

import pytest

from tokenization import ScratchGPTTokenizer, train_bpe, train_vocabulary
from tokenization.saving import build_fast
from tokenization.tokenization_scratchgpt import byte_alphabet
from tokenization.trainers import load_gpt2

TEXTS = [
    "The quick brown fox jumps over the lazy dog. It's the dog's day; they'll say we've won, won't they?\n\n" * 5,
    "  Numbers: 1, 22, 333, 4444 and 1234567.\n\tTabs,  double spaces   and more...\r\n" * 5,
    "Привет, мир! 你好，世界。 naïve café déjà vu 😀😃🏳️‍🌈 <|endoftext|> <|end" * 5,
]
SPECIAL_TOKENS = ("<|endoftext|>", "<|end|>")


@pytest.fixture(scope="session")
def merges():
    return train_bpe(TEXTS, 400, special_tokens=SPECIAL_TOKENS)


@pytest.fixture(scope="session")
def slow(merges):
    return ScratchGPTTokenizer.from_merges(merges, SPECIAL_TOKENS)


@pytest.fixture(scope="session")
def fast(slow):
    return build_fast(slow)


@pytest.fixture(scope="session")
def gpt2_folder(merges, tmp_path_factory):
    """A small vocabulary in the form of GPT-2's files: its order of bytes, merges, `<|endoftext|>` last."""
    folder = tmp_path_factory.mktemp("gpt2")
    alphabet = byte_alphabet()
    pairs = [tuple("".join(alphabet[byte] for byte in part) for part in pair) for pair in merges]
    tokens = [*sorted(alphabet), *(first + second for first, second in pairs), "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    lines = ["#version: 0.2", *map(" ".join, pairs), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def every_kind(slow, gpt2_folder):
    """One small tokenizer of each kind."""
    learnt = {
        kind: train_vocabulary(kind, TEXTS, size)
        for kind, size in (("characters", 0), ("wordpiece", 250), ("sentencepiece", 400))
    }
    return {"bpe": slow, "gpt2": load_gpt2(gpt2_folder), **learnt}
