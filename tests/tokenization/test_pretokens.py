import sys
from collections import Counter

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from tokenization import GPT4_SPLIT_PATTERN, pretokens
from tokenization.pretokens import PretokenCounter, can_be_cut, count_pretokens, cut_at_borders, piece_text

FINDALL = regex.compile(GPT4_SPLIT_PATTERN).findall
WHITESPACE = " \n" + pretokens.OTHER_WHITESPACE
HARD_TEXTS = st.one_of(
    st.text(alphabet="ab '1.\n", max_size=30),
    st.text(alphabet="a.1 \u00e9\x1c\x1f\0\1" + WHITESPACE, max_size=30),
    st.text(max_size=30),
)


@given(st.lists(HARD_TEXTS, max_size=4))
@example(["x\n  y  \naa", " \na"])
@example(["end  ", " \nb", "\n b", "a\r b", "\0 a"])
def test_short_cut_counts_what_the_pattern_finds(texts):
    counter = PretokenCounter(GPT4_SPLIT_PATTERN)
    for text in texts:
        counter.update(text)
    assert counter.result() == Counter(pretoken for text in texts for pretoken in FINDALL(text))


@given(HARD_TEXTS.filter(can_be_cut))
def test_pieces_split_on_their_own_as_in_the_text(text):
    pieces = [piece_text(piece) for piece in cut_at_borders(text)]
    assert "".join(pieces) == text
    assert [pretoken for piece in pieces for pretoken in FINDALL(piece)] == FINDALL(text)


def test_other_whitespace_is_all_there_is():
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    assert set(regex.findall(r"\s", everything)) == {" ", *pretokens.OTHER_WHITESPACE}
    assert all(character.isascii() for character in pretokens.OTHER_WHITESPACE[: pretokens.ASCII_WHITESPACE])
    assert not any(character.isascii() for character in pretokens.OTHER_WHITESPACE[pretokens.ASCII_WHITESPACE :])


def test_blocks_and_workers_change_nothing(monkeypatch):
    monkeypatch.setattr(pretokens, "BLOCK_CHARACTERS", 50)
    monkeypatch.setattr(pretokens, "PARALLEL_CHARACTERS", 100)
    monkeypatch.setattr(pretokens, "PENDING_PIECES", 7)
    texts = ["One  fish, two fish.\n\n  Red fish! " * 9, "", "Blue " * 40, "x" * 120]
    expected = Counter(pretoken for text in texts for pretoken in FINDALL(text))
    for workers in (1, 2, 3):
        assert count_pretokens(iter(texts), GPT4_SPLIT_PATTERN, workers=workers) == expected


def test_a_worker_that_dies_is_an_error_that_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(pretokens, "PARALLEL_CHARACTERS", 1)
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('no memory left')")
    monkeypatch.setattr(pretokens, "__file__", str(broken))
    with pytest.raises(RuntimeError, match=r"counts pre-tokens ended early \(exit status 1\): no memory left"):
        count_pretokens(["a b c"] * 3, GPT4_SPLIT_PATTERN, workers=2)
