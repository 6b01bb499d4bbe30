import gc
import logging
import random
import sys
from collections import Counter
from itertools import pairwise
from unittest import mock

import pytest
import regex
import rustbpe  # pyright: ignore[reportMissingImports]
from hypothesis import example, given
from hypothesis import strategies as st

from tokenization import GPT4_SPLIT_PATTERN, bpe, train_bpe
from tokenization.bpe import count_pieces, count_pretokens, mark_borders, parts_of, piece_text
from tokenization.tokenization_scratchgpt import Splitter, text_to_bytes

# Few characters, so that pairs repeat, overlap and tie.
TEXTS = st.lists(st.text(alphabet="aab c.\n1é", max_size=40), min_size=1, max_size=6)

SPLIT = Splitter(GPT4_SPLIT_PATTERN)
HARD_TEXTS = st.one_of(
    st.text(alphabet="ab '1.\n", max_size=30),
    st.text(alphabet="a.1 \u00e9\x1c\x1f\0\1\u0558 \n" + bpe.OTHER_WHITESPACE, max_size=30),
    st.text(max_size=30),
)


def train_naively(texts: list[str], merges: int) -> list[tuple[int, bytes, bytes, int]]:
    """The textbook: count all pairs again for every merge."""
    words = Counter(tuple(text_to_bytes(word)) for text in texts for word in SPLIT(text))
    token_bytes = {byte: bytes([byte]) for byte in range(256)}
    learnt = []
    for new in range(256, 256 + merges):
        pairs = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        first, second = min(pairs, key=lambda pair: (-pairs[pair], pair))
        token_bytes[new] = token_bytes[first] + token_bytes[second]
        learnt.append((new, token_bytes[first], token_bytes[second], pairs[first, second]))
        merged = Counter()
        for word, count in words.items():
            tokens, at = [], 0
            while at < len(word):
                joins = word[at : at + 2] == (first, second)
                tokens.append(new if joins else word[at])
                at += 2 if joins else 1
            merged[tuple(tokens)] += count
        words = merged
    return learnt


@given(
    TEXTS | st.lists(st.text("ab", max_size=90) | st.text("-", max_size=90), max_size=3),
    st.integers(0, 60),
    st.sampled_from([0, 2, bpe.FEW_PLACES]),
)
@example(["ba ab"], 2, 0)  # ties go to the smaller ids
@example(["\ud800 a\ud800 a", "\U0010ffff"], 9, 0)
def test_equals_the_naive_trainer(texts, merges, few_places):
    if any(texts):
        reported = []
        with mock.patch.object(bpe, "FEW_PLACES", few_places):
            learnt = train_bpe(texts, 256 + merges, special_tokens=(), on_merge=lambda *merge: reported.append(merge))
        assert reported == train_naively(texts, merges)
        assert learnt == [(first, second) for _, first, second, _ in reported]
        assert len({first + second for first, second in learnt}) == len(learnt)


def test_long_words_have_the_merges_of_rustbpe():
    texts = ["-" * 20_000, "".join(random.Random(4).choices("ACGT", k=100_000)), "ab" * 3_000 + "a"]
    peer = rustbpe.Tokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    peer.train_from_iterator(iter(texts), 256 + 4000)
    theirs = [bytes(token) for token, _ in sorted(peer.get_mergeable_ranks(), key=lambda ranked: ranked[1])[256:]]
    assert [first + second for first, second in train_bpe(texts, 256 + 4000, special_tokens=())] == theirs


def test_the_count_of_each_merge_is_reported():
    # https://en.wikipedia.org/wiki/Byte-pair_encoding: Z=aa, Y=ab, X=ZY.
    reported = []
    merges = train_bpe(["aaabdaaabac"], 260, on_merge=lambda *merge: reported.append(merge))
    assert reported == [(256, b"a", b"a", 4), (257, b"a", b"b", 2), (258, b"aa", b"ab", 2)]
    assert merges == [(b"a", b"a"), (b"a", b"b"), (b"aa", b"ab")]


def test_vocabulary_size_counts_bytes_merges_and_special_tokens():
    text = "the cat sat on the mat and the rat " * 3
    assert len(train_bpe([text], 266, special_tokens=("<a>", "<b>"))) == 8
    assert train_bpe([text], 257) == []


def test_an_iterator_is_enough_and_pairs_do_not_cross_documents():
    texts = ["ab", "ab", "ba"]
    assert train_bpe(iter(texts), 260) == train_bpe(texts, 260) == [(b"a", b"b"), (b"b", b"a")]


def test_runs_out_of_pairs(caplog):
    with caplog.at_level(logging.WARNING):
        assert train_bpe(["abc"], 259) == [(b"a", b"b"), (b"ab", b"c")]
        assert caplog.text == ""
        assert train_bpe(["abc"], 500) == [(b"a", b"b"), (b"ab", b"c")]
    assert "no more pairs to merge: the vocabulary has 259 tokens instead of 500" in caplog.text


def test_another_pattern_and_what_it_passes_over():
    assert train_bpe(["ab-ab-cd"], 259, pattern="[a-z]+") == [(b"a", b"b"), (b"c", b"d")]


def test_the_progress_bars(capfd):
    assert train_bpe(["aaabdaaabac"], 259, progress=True)
    said = capfd.readouterr().err
    assert "merging pairs" in said
    assert "counting words" in said
    assert train_bpe(["aaabdaaabac"], 259)
    assert [*bpe.merge_words(["ab"], [3], 256, 1)] == [(97, 98, 3)]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("texts", "vocab_size", "message"),
    [
        (["abc"], 256, r"expected vocab_size of at least 257 \(256 bytes and 1 special tokens\).*got 256"),
        (["abc"], 2_000_000, "at most 1114111, got 2000000"),
        ([], 300, "expected texts to learn from, got none or only empty ones: check the corpus"),
        (["", ""], 300, "got none or only empty ones"),
        ("abc", 300, "expected texts as a list or iterator of strings, got one string: put it into a list"),
    ],
)
def test_errors_say_what_was_expected(texts, vocab_size, message):
    with pytest.raises(ValueError, match=message):
        train_bpe(texts, vocab_size)


@given(st.lists(HARD_TEXTS, max_size=4))
@example(["x\n  y  \naa", " \na"])
@example(["end  ", " \nb", "\n b", "a\r b", "\0 a"])
def test_counts_are_those_of_what_the_pattern_finds(texts):
    assert count_pretokens(texts, SPLIT) == Counter(pretoken for text in texts for pretoken in SPLIT(text))


@given(HARD_TEXTS.filter(lambda text: not {"\0", "\1"} & {*text}))
def test_pieces_and_parts_split_on_their_own_as_in_the_text(text):
    for pieces in (list(map(piece_text, mark_borders(text).split(" "))), [*parts_of(text, 3)]):
        assert "".join(pieces) == text
        assert [pretoken for piece in pieces for pretoken in SPLIT(piece)] == SPLIT(text)


@given(st.lists(st.text(alphabet="ab\0\1\u00e9\u201c\ud800\U0010ffff", max_size=12).map(lambda piece: piece + "a")))
@example(["a" * 7, "a" * 8, "a" * 9, "\0\0a", "a" * 8, "a" * 9])
def test_pieces_are_counted_whatever_their_length(pieces):
    assert count_pieces(" ".join(pieces) or "a") == Counter(pieces or ["a"])


def test_other_whitespace_is_all_there_is():
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    assert set(regex.findall(r"\s", everything)) == {" ", *bpe.OTHER_WHITESPACE}
    assert [character.isascii() for character in bpe.OTHER_WHITESPACE].index(False) == bpe.ASCII_WHITESPACE


@pytest.mark.parametrize("is_on", [True, False])
def test_the_garbage_collector_is_left_as_it_was(is_on):
    was_on = gc.isenabled()
    try:
        gc.enable() if is_on else gc.disable()
        assert train_bpe(["abc"], 258)
        assert gc.isenabled() is is_on
    finally:
        gc.enable() if was_on else gc.disable()


def test_long_texts_and_many_pieces_are_counted_in_parts(monkeypatch):
    monkeypatch.setattr(bpe, "PENDING_PIECES", 7)
    monkeypatch.setattr(bpe, "BLOCK_CHARACTERS", 100)
    texts = ["One  fish, two fish.\n\n  Red fish! " * 40_000, "", "Blue " * 40, "x" * 120]
    assert count_pretokens(iter(texts), SPLIT) == Counter(word for text in texts for word in SPLIT(text))
    words = Splitter(r"\w+ \w+")  # of another pattern nothing is known, so its texts are not cut
    assert count_pretokens(["ab cd " * 200_000], words) == {"ab cd": 200_000, " ": 200_000}
