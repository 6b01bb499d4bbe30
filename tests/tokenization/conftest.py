import pytest

from tokenization import ScratchGPTTokenizer, train_bpe
from tokenization.fast import build_fast

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
