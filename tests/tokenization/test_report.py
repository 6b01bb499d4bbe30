import numpy as np
import pytest

from tokenization.report import Difference, as_table, compare, decode_ids, difference
from tokenization.trainers import train_characters, train_wordpiece

TEXT = "the fox;\n\nthe déer\n"


@pytest.fixture(scope="module")
def measured():
    tokenizers = [("chars", train_characters(["the fox\n"])), ("words", train_wordpiece(["the fox;"] * 3, 99))]
    return compare(tokenizers, iter([("a.txt", TEXT), ("b.txt", "fox")]))


def test_golden(measured):
    chars, words = measured
    # "the fox;\n\nthe déer\nfox": 22 characters, of which `;`, `d`, `é` and `r` are unknown.
    assert (chars.vocabulary, chars.tokens, chars.unknown, chars.used) == (10, 22, 4, 9)
    assert chars.bytes_per_token == pytest.approx(23 / 22)
    assert chars.characters_per_token == 1
    assert chars.fertility == 22 / 5
    assert chars.unknown_share == 4 / 22
    assert chars.used_share == 9 / 10
    assert (chars.exact_texts, chars.exact_lines) == (1 / 2, 1 / 3)
    assert chars.first_difference == Difference(
        text="a.txt", character=7, expected=TEXT, got="the fox[UNK]\n\nthe [UNK][UNK]e[UNK]\n"[:27]
    )
    # the, fox, ;, the, [UNK], fox
    assert (words.tokens, words.unknown, words.used) == (6, 1, 4)
    assert (words.exact_texts, words.exact_lines) == (1 / 2, 1 / 3)


def test_what_gives_everything_back(every_kind):
    (gpt2, bpe) = compare(
        [(kind, every_kind[kind]) for kind in ("gpt2", "bpe")], [("x", TEXT), ("y", "\ud83d <|end|>")]
    )
    assert bpe.first_difference is None
    assert (bpe.exact_texts, bpe.exact_lines, bpe.unknown) == (1, 1, 0)
    # A lone surrogate is no text for the library of the other.
    assert gpt2.first_difference == Difference(text="y", character=0, expected="\ud83d <|end|>", got="\ufffd <|end|>")


def test_the_table_is_aligned(measured):
    table, *differences = as_table(measured).split("\n\n")
    lines = table.splitlines()
    assert lines[0].split() == ["chars", "words"]
    assert len({len(line) for line in lines}) == 1
    assert "unknown tokens            4 (18.18%)  1 (16.67%)" in lines
    assert differences[0].startswith(
        "chars: a.txt, character 7\n  text  'the fox;\\n\\nthe déer\\n'\n  back  'the fox[UNK]"
    )


def test_no_text(every_kind):
    for texts in ([], [("a", "")]):
        with pytest.raises(ValueError, match="expected a text to measure on, got none or only empty ones"):
            compare([("bpe", every_kind["bpe"])], texts)


def test_decoding_of_arrays(every_kind):
    for tokenizer in every_kind.values():
        ids = np.arange(len(tokenizer), dtype=np.uint16)
        assert decode_ids(tokenizer, ids) == tokenizer.decode(ids.tolist())
        assert decode_ids(tokenizer, ids[:0]) == ""


def test_a_text_that_ends_early():
    assert difference("a", "abc", "ab") == Difference(text="a", character=2, expected="abc", got="ab")
