import copy
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from storage.text import replace_surrogates
from tests.tokenization.conftest import Words, ids_of
from tests.tokenization.texts import random_texts
from tokenization import ScratchGPTTokenizer, encode_corpus, train_bpe
from tokenization.bpe import parts_of
from tokenization.encoding import LONG_WHITESPACE, build_encoder, is_same_in_tiktoken, token_dtype
from tokenization.saving import build_fast
from tokenization.trainers import KINDS

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
TEXTS = st.lists(
    st.one_of(
        st.text(alphabet="a.1 \n\r\té\u2003\0\1\u0558", max_size=30),
        st.text(st.characters(codec=None)),
        st.just("one <|endoftext|> two<|end|>  three\n\n"),
    ),
    max_size=4,
)


@pytest.fixture(scope="module")
def unicode_vocabulary() -> ScratchGPTTokenizer:
    """Merges of every script, learnt from texts of the same kind as those that are encoded."""
    return ScratchGPTTokenizer.from_merges(train_bpe(random_texts(4000, seed=1), 1500))


def test_twenty_thousand_unicode_strings_have_the_ids_of_the_from_scratch_class(unicode_vocabulary):
    texts = ["", *random_texts(20_000, seed=2)]
    assert is_same_in_tiktoken(unicode_vocabulary)
    arrays = list(encode_corpus(unicode_vocabulary, iter(texts), workers=2))
    for text, ids in zip(texts, arrays, strict=True):
        assert ids.tolist() == unicode_vocabulary.encode_ordinary(text), repr(text)
        assert ids.dtype == np.uint16


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not there")
def test_nine_books_and_hostile_files():
    paths = [*sorted((SHARED / "data" / "scifi").glob("*.txt"))[:9], *(SHARED / "cases").glob("*.txt")]
    texts = [path.read_bytes().decode("utf-8", "surrogateescape") for path in paths]
    tokenizer = ScratchGPTTokenizer.from_merges(train_bpe(texts[:3], 4096))
    fast = build_fast(tokenizer)
    for text, ids in zip(texts, encode_corpus(tokenizer, texts), strict=True):
        assert ids.tolist() == tokenizer.encode_ordinary(text)
        if text == replace_surrogates(text):
            assert ids.tolist() == fast(text, split_special_tokens=True, verbose=False)["input_ids"]
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("run", ["a", "ACGT", "-", "1", "😀", " ", "\u2003 ", "\n"])
def test_long_runs(slow, run):
    # tiktoken panics on a run of 1.1 million blanks, so such texts do not go there.
    text = f"begin {run * (1_100_000 if run == ' ' else LONG_WHITESPACE + 10)}x end"
    (ids,) = encode_corpus(slow, [text])
    assert ids.tolist() == slow.encode_ordinary(text)


@given(pairs=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8), text=st.text("abc", max_size=12))
@example(pairs=[(0, 1), (1, 2), (0, 4)], text="abcaabc")  # abc begins with (a, b): the last token is never made
def test_any_merges(pairs, text):
    tokens = [b"a", b"b", b"c"]
    merges = []
    for first, second in pairs:
        pair = tokens[first % len(tokens)], tokens[second % len(tokens)]
        if b"".join(pair) not in tokens:
            merges.append(pair)
            tokens.append(b"".join(pair))
    tokenizer = ScratchGPTTokenizer.from_merges(merges)
    assert build_encoder(tokenizer)[0]([text])[0].tolist() == tokenizer.encode_ordinary(text)


def test_another_pattern_and_more_tokens_than_two_bytes_count():
    tokenizer = ScratchGPTTokenizer.from_merges([(b" ", b"a")], pattern=r"\w+")
    assert [ids.tolist() for ids in encode_corpus(tokenizer, ["b a", "-"], workers=2)] == [[98, 32, 97], [45]]
    merges = [(bytes([first]), bytes([second])) for first in range(256) for second in range(256)]
    large = ScratchGPTTokenizer.from_merges(merges)
    (array,) = encode_corpus(large, ["zz é"])
    assert array.dtype == np.uint32
    assert array.tolist() == large.encode_ordinary("zz é")


@pytest.mark.parametrize("workers", [1, 3])
def test_streams_in_order_and_in_bounded_memory(slow, workers):
    """Ten million characters, of which a few hundred thousand a thread are read ahead, and none is kept."""
    block = "It's 12 <|endoftext|>  déjà vu 😀\n" * 3000
    taken = 0

    def texts():
        nonlocal taken
        for number in range(100):
            taken += 1
            yield f"{number}{block}"

    tracemalloc.start()
    try:
        for done, ids in enumerate(encode_corpus(slow, texts(), workers=workers)):
            assert slow.decode(ids[:20]).startswith(f"{done}It's")
            assert taken - done < 30
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert taken == 100


def test_closing_early_and_short_texts(slow, fast):
    for tokenizer in (slow, fast):
        arrays: Any = encode_corpus(tokenizer, (f"text {number}" for number in range(10_000)), workers=2)
        assert tokenizer.decode(next(arrays)) == "text 0"
        arrays.close()
        assert [array.tolist() for array in encode_corpus(tokenizer, ["a", "", "b"], workers=8)] == [[97], [], [98]]


def test_fewer_workers_than_one(slow):
    with pytest.raises(ValueError, match="expected workers of at least 1, got 0"):
        next(encode_corpus(slow, ["a"], workers=0))


@pytest.mark.parametrize(("size", "dtype"), [(257, np.uint16), (65_536, np.uint16), (65_537, np.uint32)])
def test_the_type_of_ids(size, dtype):
    assert token_dtype(size) is dtype


@pytest.mark.parametrize("kind", [*KINDS, "twin"])
@given(texts=TEXTS)
@example(["", " ", "a  b ", "\n a", "a\n", "", "a \ud800 b"])
def test_every_kind_equals_its_call_and_long_texts_are_cut_where_it_changes_nothing(kinds, kind, texts):
    tokenizer = kinds[kind]
    given_texts = texts
    if kind != "bpe":  # the libraries take no lone surrogates
        texts = list(map(replace_surrogates, texts))
    encode, can_cut = build_encoder(tokenizer)
    assert can_cut
    calls = [ids_of(tokenizer, text) for text in texts]
    assert [array.tolist() for array in encode_corpus(tokenizer, given_texts)] == calls
    parts = [np.concatenate(encode([*parts_of(text, 3)])).tolist() for text in texts]
    assert parts == calls


def test_a_text_longer_than_a_part(slow, fast):
    text = "It's a long text, 1234 words of it.\n" * 6000
    for tokenizer in (slow, fast):
        first, short = encode_corpus(tokenizer, [text, "short"], workers=2)
        assert first.tolist() == slow.encode_ordinary(text)
        assert short.tolist() == slow.encode_ordinary("short")


def test_which_tokenizers_have_borders_at_spaces(every_kind):
    other = copy.deepcopy(every_kind["wordpiece"])
    other.add_tokens(["the dog"])
    assert not build_encoder(other)[1]
    other = copy.deepcopy(every_kind["gpt2"])
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert not build_encoder(other)[1]
    other.backend_tokenizer.pre_tokenizer = None
    assert not build_encoder(other)[1]
    other = copy.deepcopy(every_kind["wordpiece"])
    other.backend_tokenizer.normalizer = normalizers.Strip()
    assert not build_encoder(other)[1]


def test_settings_of_the_tokenizer_stay_as_they_are(fast):
    tokenizer = copy.deepcopy(fast)
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding()
    (array,) = encode_corpus(tokenizer, ["one <|endoftext|> two"])
    assert tokenizer.decode(array) == "one <|endoftext|> two"
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 2
    assert not tokenizer.backend_tokenizer.encode_special_tokens


def test_a_tokenizer_in_python_goes_through_its_call():
    assert [array.tolist() for array in encode_corpus(Words(), ["the  dog", "big"])] == [[2, 1], [0]]
