import sys

import regex
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex
from tokenizers.normalizers import Replace

from tokenization import ScratchGPTTokenizer
from tokenization.encoding import build_encoder
from tokenization.saving import build_fast
from tokenization.tokenization_scratchgpt import LATER_CHARACTERS, Splitter

LATER = [int(part.split("-")[0], 16) for part in LATER_CHARACTERS.split()]
BYTE_RANKS = {bytes([byte]): byte for byte in range(256)}
PARTS = (
    *("<|endoftext|>", "<|end|>", "<|end", "oftext|>", "|>", "'S", "'ll", "ſ"),
    *(" ", "  ", "\n", "\r\n", "1234", "é", "!"),
)
TEXTS = st.one_of(
    st.text(),
    st.lists(st.one_of(st.sampled_from(PARTS), st.sampled_from(LATER).map(chr), st.characters(codec="utf-8"))).map(
        "".join
    ),
)


@settings(max_examples=400)
@given(text=TEXTS)
@example("x\u0558\n \U00033479'\U00011de0")
@example("<|endoftext|<|endoftext|>|> <|end|>oftext|>")
def test_ids_equal_the_from_scratch_class(slow, fast, text):
    assert fast(text)["input_ids"] == slow(text)["input_ids"]
    assert fast(text, split_special_tokens=True)["input_ids"] == slow.encode_ordinary(text)
    assert fast.decode(slow.encode_ordinary(text)) == text


@given(ids=st.lists(st.integers(0, 399), max_size=20))
def test_decoding_any_ids_equals_the_from_scratch_class(slow, fast, ids):
    for skip_special_tokens in (False, True):
        ours = slow.decode(ids, skip_special_tokens=skip_special_tokens)
        if not any("\ud800" <= character <= "\udfff" for character in ours):
            assert ours == fast.decode(ids, skip_special_tokens=skip_special_tokens)


def test_all_three_libraries_class_every_character_alike():
    everything = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF)
    masked = Splitter(".").later.sub(Splitter.SYMBOL, everything)
    for pattern in (r"\p{L}", r"\p{N}", r"\s", "(?i:[sdmt]|ll|ve|re)"):
        # tiktoken leaves out what its pattern does not match.
        matched = tiktoken.Encoding("classes", pat_str=pattern, mergeable_ranks=BYTE_RANKS, special_tokens={"<>": 256})
        found = matched.decode(matched.encode_ordinary(everything))
        python = [match.start() for match in regex.finditer(pattern, masked)]
        kept = set(Replace(Regex(pattern), "").normalize_str(everything))
        rust = [at for at, character in enumerate(everything) if character not in kept]
        differing = [hex(ord(everything[at])) for at in sorted(set(python) ^ set(rust))]
        differing += [hex(ord(one)) for one in sorted({masked[at] for at in python} ^ set(found))]
        assert not differing, (
            f"the Unicode tables of regex, tokenizers and tiktoken differ here: put into LATER_CHARACTERS {differing}"
        )


def test_characters_beside_those_of_a_later_unicode(slow, fast):
    encode, _ = build_encoder(slow)
    for part in LATER_CHARACTERS.split():
        for code in {int(end, 16) + step for end in part.split("-") for step in (-1, 0, 1)}:
            text = f"a{chr(code)}b 1{chr(code)}2  {chr(code)}\n'{chr(code)}s"
            ids = slow.encode_ordinary(text)
            assert fast(text)["input_ids"] == ids, hex(code)
            assert encode([text])[0].tolist() == ids, hex(code)


def test_same_vocabulary_and_settings(slow, fast):
    assert fast.get_vocab() == slow.get_vocab()
    assert len(fast) == len(slow)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "all_special_tokens", "model_input_names"):
        assert getattr(fast, name) == getattr(slow, name)


def test_without_special_tokens():
    slow = ScratchGPTTokenizer.from_merges([(b"a", b"b")], ())
    fast = build_fast(slow)
    assert fast("ab<|endoftext|>")["input_ids"] == slow("ab<|endoftext|>")["input_ids"]
    assert len(fast) == len(slow) == 257
    assert fast.eos_token is slow.eos_token is None
