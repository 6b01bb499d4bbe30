"""transformers' common tokenizer tests on our two tokenizers and on a peer of each. Run by `make hf-suite`.

The peers are ByT5 (written in Python, like our slow class, and without a vocabulary to download) and GPT-2's class with
our vocabulary (the Rust backend).
"""

import tempfile
import unittest
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, ByT5Tokenizer, GPT2Tokenizer, PreTrainedTokenizerFast
from transformers_tests.test_tokenization_common import TokenizerTesterMixin  # pyright: ignore[reportMissingImports]
from transformers_tests.test_tokenizers_backend_mixin import (  # pyright: ignore[reportMissingImports]
    TokenizersBackendTesterMixin,
)

from modeling import ScratchGPTConfig
from tokenization import ScratchGPTTokenizer, save_tokenizer, train_bpe
from tokenization.saving import SLOW

TEXT = (
    "The keeper of the lighthouse wrote a letter to her sister in the town, and then she went up the stairs again. "
    "This is a test of the words that are in these tests: hello, my name is what you see, how are you? "
)
AutoTokenizer.register(ScratchGPTConfig, slow_tokenizer_class=ScratchGPTTokenizer)


@cache
def folder() -> Path:
    """A folder of a tokenizer of 256 bytes, 180 merges and one special token."""
    made = Path(tempfile.mkdtemp()) / "tokenizer"
    save_tokenizer(ScratchGPTTokenizer.from_merges(train_bpe([TEXT * 3], 437)), made)
    ScratchGPTTokenizer.from_pretrained(made / SLOW).save_pretrained(made.parent / "slow")
    return made


class SlowSuite(TokenizerTesterMixin):
    """The tests of every tokenizer; `saved` says where one lies."""

    test_tokenizer_from_extractor = False
    saved: Any = None
    twin: Any = None

    @classmethod
    def setUpClass(cls) -> None:
        """Where there is a twin of the other backend, what it says is expected of this one."""
        cls.from_pretrained_id = [str(cls.saved())]
        super().setUpClass()
        if cls.twin is not None:
            other, text = cls.twin(), cls.integration_test_input_string
            cls.integration_expected_tokens = other.tokenize(text)
            cls.integration_expected_token_ids = other.encode(text, add_special_tokens=False)
            cls.integration_expected_decoded_text = text


class FastSuite(SlowSuite, TokenizersBackendTesterMixin):
    """The tests of a tokenizer of the Rust backend."""


class ScratchGPTTokenizerTest(SlowSuite, unittest.TestCase):
    tokenizer_class = ScratchGPTTokenizer
    saved = staticmethod(lambda: folder().parent / "slow")
    twin = staticmethod(lambda: AutoTokenizer.from_pretrained(folder()))


class ScratchGPTFastTokenizerTest(FastSuite, unittest.TestCase):
    tokenizer_class = rust_tokenizer_class = PreTrainedTokenizerFast
    saved = staticmethod(folder)
    twin = staticmethod(lambda: ScratchGPTTokenizer.from_pretrained(folder() / SLOW))


class ByT5TokenizerTest(SlowSuite, unittest.TestCase):
    tokenizer_class = ByT5Tokenizer

    @staticmethod
    def saved() -> Path:
        made = folder().parent / "byt5"
        ByT5Tokenizer().save_pretrained(made)
        return made


class GPT2TokenizerTest(FastSuite, unittest.TestCase):
    tokenizer_class = rust_tokenizer_class = GPT2Tokenizer

    @staticmethod
    def saved() -> Path:
        made, slow = folder().parent / "gpt2", folder() / SLOW
        GPT2Tokenizer(
            vocab=str(slow / "vocab.json"), merges=str(slow / "merges.txt"), pad_token="<|endoftext|>"
        ).save_pretrained(made)
        return made
