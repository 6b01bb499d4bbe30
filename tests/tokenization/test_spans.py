import sys
from itertools import zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenization.conftest import TEXTS, Words, ids_of
from tokenization import add_mask_token, train_vocabulary
from tokenization.spans import Piece, label, pieces, plain_ids, token_bytes, visible_bytes
from tokenization.tokenization_scratchgpt import text_to_bytes

NASTY = [
    "",
    "a",
    " ",
    "\x00\x07\x7f\u202e\u200b",
    "<img src=x onerror=alert(1)></script>",
    "one <|endoftext|> <|EOS|> </s> [UNK] <|mask|>",
    "שלום עולم e\u0301\u0301 😀🏳️‍🌈",
    "".join(map(chr, range(256))),
    "\ud800 x \udc00",
]
LOSSLESS = ("bpe", "twin", "gpt2", "sentencepiece")


def known_only(kind, text):
    """The text without what a vocabulary cannot keep: U+2581 of SentencePiece, surrogates of the Rust backend."""
    text = text.replace("\u2581", "_") if kind == "sentencepiece" else text
    return text if kind == "bpe" else text.encode("utf-8", "replace").decode()


def places(found):
    return [(piece.label, piece.start, piece.end) for piece in found]


@pytest.mark.parametrize("kind", LOSSLESS)
@given(text=st.one_of(st.text(), st.text(alphabet="the dog's é😀\n\t 12")))
def test_bytes_and_places_add_up_to_the_text(kinds, kind, text):
    text = known_only(kind, text)
    found = pieces(kinds[kind], text)
    ids = [piece.token_id for piece in found]
    assert ids == ids_of(kinds[kind], text) == plain_ids(kinds[kind], text)
    assert b"".join(token_bytes(kinds[kind], token_id) or b"?" for token_id in ids) == text_to_bytes(text)
    covered: set[int] = set()
    for piece, after in zip_longest(found, found[1:]):
        content = token_bytes(kinds[kind], piece.token_id)
        assert piece.byte_count == len(content or b"")
        assert 0 <= piece.start < piece.end <= len(text)
        assert text_to_bytes(text[piece.start : piece.end]).find(content or b"?") >= 0
        assert after is None or piece.start <= after.start <= piece.end
        covered.update(range(piece.start, piece.end))
    assert covered == set(range(len(text)))


@pytest.mark.parametrize("kind", ["bpe", "twin", "gpt2", "sentencepiece", "characters", "wordpiece"])
def test_any_text_gives_the_tokenizers_own_ids_at_places_in_the_text(kinds, kind):
    for text in [*NASTY, *TEXTS]:
        found = pieces(kinds[kind], text)
        safe = text if kind == "bpe" else text.encode("utf-8", "replace").decode().replace("?", "\ufffd")
        if "?" not in text:
            assert [piece.token_id for piece in found] == ids_of(kinds[kind], safe)
        assert all(0 <= piece.start <= piece.end <= len(text) and piece.label for piece in found)
        assert [piece.start for piece in found] == sorted(piece.start for piece in found)
        assert all(character.isprintable() for piece in found for character in piece.label)


def test_labels(kinds):
    labels = [piece.label for piece in pieces(kinds["bpe"], "The naïve dog\t\n\x07 \u202e")]
    assert labels == ["The", "␣na⟨c3⟩", "⟨af⟩ve", "␣dog", "⇥", "↵", "\\x07", "␣", "⟨e2⟩", "⟨80⟩", "⟨ae⟩"]
    assert [piece.label for piece in pieces(kinds["wordpiece"], "dogs lazily")][:2] == ["dog", "##s"]
    assert [piece.label for piece in pieces(kinds["sentencepiece"], " dog ☃")] == ["␣dog", "␣", "⟨e2⟩", "⟨98⟩", "⟨83⟩"]
    assert [piece.label for piece in pieces(kinds["characters"], "d☃ ")] == ["d", "[UNK]", "␣"]
    assert label(kinds["bpe"], 255) == label(kinds["twin"], 255) == "⟨ff⟩"
    assert visible_bytes("\u0301e".encode()) == "◌\u0301e"
    assert visible_bytes("a\u202eb\u200d".encode()) == "a\\u202eb\\u200d"
    assert visible_bytes(b"") == ""


def test_tokens_that_are_no_text(kinds):
    for tokenizer in kinds.values():
        assert token_bytes(tokenizer, tokenizer.eos_token_id) is None
        assert label(tokenizer, tokenizer.eos_token_id) == tokenizer.eos_token
        for token_id in (-1, len(tokenizer), 10**9):
            assert token_bytes(tokenizer, token_id) is None
            assert label(tokenizer, token_id) == "⟨no token⟩"


def test_a_piece_that_is_unknown_counts_the_bytes_it_covers(kinds):
    assert pieces(kinds["characters"], "d☃")[1] == Piece(
        token_id=kinds["characters"].unk_token_id, label="[UNK]", start=1, end=2, byte_count=3
    )
    accents = pieces(kinds["wordpiece"], "déjà")
    assert (accents[0].start, accents[-1].end) == (0, 4)


def test_tokens_added_later():
    tokenizer = train_vocabulary("bpe", ["abab"], 258)
    assert token_bytes(tokenizer, 258) is None
    assert label(tokenizer, 258) == "⟨no token⟩"
    tokenizer = add_mask_token(tokenizer)
    assert token_bytes(tokenizer, 258) is None
    assert label(tokenizer, 258) == "<|mask|>"
    tokenizer.add_tokens(["déjà"])
    assert token_bytes(tokenizer, 259) == "déjà".encode()


def test_vocabularies_that_mark_the_beginning_of_words():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {"<unk>": 0, "▁the": 1, "▁": 2, "dog": 3, "s": 4}
    rust = Tokenizer(models.Unigram([(token, -1.0 - index) for token, index in vocab.items()], unk_id=0))
    rust.pre_tokenizer, rust.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="<unk>")
    found = pieces(tokenizer, "the dogs")
    assert places(found) == [("␣the", 0, 3), ("␣", 3, 4), ("dog", 4, 7), ("s", 7, 8)]
    assert token_bytes(tokenizer, 1) == b" the"


def test_a_tokenizer_in_python_that_keeps_only_words():
    found = pieces(Words(), "the  big dog")
    assert places(found) == [("the", 0, 3), ("[UNK]", 3, 3), ("dog", 9, 12)]


@pytest.mark.skipif(sys.flags.dev_mode, reason="times")
def test_long_texts_are_quick(kinds):
    import time

    text = (TEXTS[0] * 300)[:100_000]
    began = time.perf_counter()
    assert len(pieces(kinds["bpe"], text)) > 1000
    assert time.perf_counter() - began < 5
