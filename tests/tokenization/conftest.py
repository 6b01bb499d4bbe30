import json
import os
import subprocess
import sys

import pytest
from transformers import PreTrainedTokenizer

from tests.processes import CLEAN
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


class Words(PreTrainedTokenizer):
    """A tokenizer in Python, of three words; what is between words is lost."""

    words = ("[UNK]", "dog", "the")
    vocab_size = len(words)  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self):
        super().__init__(unk_token="[UNK]")

    def get_vocab(self):
        return {word: index for index, word in enumerate(self.words)}

    def _tokenize(self, text, **kwargs):
        return text.split()

    def _convert_token_to_id(self, token):
        return self.get_vocab().get(token, 0)

    def _convert_id_to_token(self, index):
        return self.words[index]

    def save_vocabulary(self, save_directory, filename_prefix=None):
        return ()


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def run_elsewhere(code, *arguments, folder):
    """What Python code prints in a fresh process that has the libraries, but not the checkout."""
    environment = os.environ | {"PYTHONPATH": CLEAN}
    environment |= {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "error::UserWarning"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


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


@pytest.fixture(scope="session")
def kinds(every_kind, fast):
    """Those, and the from-scratch class's vocabulary in the Rust backend."""
    return {**every_kind, "twin": fast}
