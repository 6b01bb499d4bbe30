"""Random cases for all ways through a vocabulary; `python -m tests.fuzz tokenizer` is guided by coverage."""

import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.tokenizer import SIZES as FUZZED
from tests.fuzz.tokenizer import decode_case, report, run_tokenizer
from tests.tokenization.agreement import SPECIAL_TOKENS, Vocabulary, random_merges
from tests.tokenization.conftest import TEXTS
from tokenization import train_bpe

PIECES = (*SPECIAL_TOKENS, "<|endoftext", "|>", "\ud83d", "\ude00", "😀", "the", " ", "\n", "\u0558", "é", "'s")
ANY_TEXT = st.one_of(
    st.text(st.characters(codec=None), max_size=60), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
)
SIZES = (257, 259, 400, 320, 1500, 65_536)

COUNT = len(FUZZED) + 2
PATTERN = " ?[a-z]+|[0-9]{1,2}"
"""Passes over much, which are then pre-tokens of their own."""


@pytest.fixture(scope="module")
def vocabularies():
    """By size: bytes alone; three special tokens; learnt; another pattern; unlearnt; pairs of bytes, 64k."""
    pairs = [(bytes([first]), bytes([second])) for first in range(256) for second in range(256)]
    made = [
        Vocabulary([], ("<|endoftext|>",)),
        Vocabulary([], ("<|endoftext|>", "<|", "|>")),
        Vocabulary(train_bpe(TEXTS, 400, special_tokens=SPECIAL_TOKENS)),
        Vocabulary(train_bpe(TEXTS, 320, special_tokens=SPECIAL_TOKENS, pattern=PATTERN), pattern=PATTERN),
        Vocabulary(random_merges(1500 - 256 - len(SPECIAL_TOKENS), seed=5)),
        Vocabulary(pairs[: 65_536 - 256 - len(SPECIAL_TOKENS)]),
    ]
    return {size: vocabulary for size, vocabulary in zip(SIZES, made, strict=True)}


@pytest.mark.parametrize("size", SIZES)
@given(text=ANY_TEXT, cut=st.integers(0, 60))
@example("a<|début|>b <|end|><|endoftext", 5)
@example("\ud83d\ude00\ud83d", 1)
def test_all_ways_give_equal_ids_and_texts(vocabularies, size, text, cut):
    vocabularies[size].check_text(text, cut)


@pytest.mark.parametrize("size", SIZES)
@given(data=st.data())
def test_all_ways_decode_any_ids_alike(vocabularies, size, data):
    vocabulary = vocabularies[size]
    any_id = st.one_of(st.integers(0, 255), st.integers(0, len(vocabulary) + 9))
    vocabulary.check_ids(data.draw(st.lists(any_id, max_size=20)))


def test_what_differs_is_named(vocabularies):
    assert [len(vocabulary) for vocabulary in vocabularies.values()] == [*SIZES]
    other = Vocabulary([], ("<|endoftext|>",))
    other.encode = vocabularies[65_536].encode
    with pytest.raises(AssertionError, match=r"the path of corpora, 257 tokens: 'ab': expected \[97, 98\]"):
        other.check_text("ab")


def test_cases_of_the_fuzzer_are_texts_and_ids():
    assert decode_case(b"") == (0, True, "", 0)
    assert decode_case("\1\7dé".encode()) == (1, True, "dé", 7)
    assert decode_case(b"\x41\0\xed\xa0\xbd") == (0x41 % COUNT, True, "\ud83d", 0)
    assert decode_case(b"\0\0a\xff") == (0, True, "a\udcff", 0)
    assert decode_case(b"\x80\3\0\xff") == (0x80 % COUNT, False, [0, 255], 3)
    assert decode_case(b"\xc0\0\1\2\3\4\5") == (0xC0 % COUNT, False, [0x201, 0x403], 0)


def test_the_report_of_the_fuzzer():
    said = "#2 INITED cov: 50 ft: 60 corp: 1/1b exec/s: 0\n#9 NEW cov: 70 ft: 95 corp: 4/9b lim: 4 exec/s: 9\n"
    assert report(f"{said}stat::number_of_executed_units: 1234\n") == (
        "1234 cases, none failed; branches of tokenization and transformers.tokenization_python: 50 by the first, "
        "70 by all (95 with their counts); 4 cases kept for what they added"
    )
    with pytest.raises(SystemExit, match="Killed\nerror: the fuzzer ended without its statistics"):
        report("Killed")


def test_the_fuzzer_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "atheris", None)
    with pytest.raises(SystemExit, match=r"needs atheris \(Linux.*pip install -r requirements-fuzz.txt.*without it: "):
        run_tokenizer(tmp_path, minutes=0.1, seed=1)
