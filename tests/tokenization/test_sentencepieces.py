import io
import random
from typing import Any

import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from tests.tokenization.conftest import ids_of
from tokenization import add_mask_token, encode_corpus, encoding, load_tokenizer, save_tokenizer
from tokenization.sentencepieces import convert_sentencepiece, train_sentencepiece, warnings_logged

TEXT = st.one_of(st.text(), st.text("  the quick1\n\t\u2581é你😀"), st.text("ab \u2581-="))
SETTINGS = {
    "model_type": "bpe",
    "vocab_size": 300,
    "byte_fallback": True,
    "allow_whitespace_only_pieces": True,
    "split_digits": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": False,
    "hard_vocab_limit": False,
    "minloglevel": 2,
}


def train_with_the_library(texts, **settings):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, **{**SETTINGS, **settings}
    )
    return model.getvalue()


def pieces_of(model):
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [(library.id_to_piece(index), library.get_score(index)) for index in range(library.get_piece_size())]


@pytest.fixture(scope="module")
def library(every_kind):
    return sentencepiece.SentencePieceProcessor(model_proto=every_kind["sentencepiece"].sentencepiece_model)


@given(text=TEXT)
@example("</s><s><unk><0x41>  two   spaces \n\n\tx ")
def test_gives_the_ids_and_the_text_of_the_library(every_kind, library, text):
    tokenizer = every_kind["sentencepiece"]
    ids = ids_of(tokenizer, text)
    assert ids == library.encode(text)
    assert tokenizer.decode(ids) == library.decode(ids) == text.replace("\u2581", " ")
    assert tokenizer.unk_token_id not in ids


@given(before=TEXT, after=TEXT)
def test_a_text_may_be_encoded_in_pieces(every_kind, before, after):
    tokenizer = every_kind["sentencepiece"]
    after = after.lstrip() or "."
    assert ids_of(tokenizer, before + "\n" + after) == ids_of(tokenizer, before + "\n") + ids_of(tokenizer, after)


@pytest.mark.parametrize("add_dummy_prefix", [False, True])
@pytest.mark.parametrize("alphabet", ["ab", "ab ", "abc  ", "aab -="])
def test_ties_between_pieces(alphabet, add_dummy_prefix):
    rng = random.Random(1)
    texts = ["".join(rng.choices(alphabet, k=rng.randint(1, 60))) for _ in range(200)]
    model = train_with_the_library(texts, add_dummy_prefix=add_dummy_prefix)
    tokenizer = convert_sentencepiece(model)
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    for _ in range(200):
        text = "".join(rng.choices(alphabet + "\n1", k=rng.randint(0, 80)))
        ids = ids_of(tokenizer, text)
        assert ids == library.encode(text)
        assert tokenizer.decode(ids) == library.decode(ids) == text


def test_counting_as_the_texts_come_gives_the_model_of_the_lines():
    rng = random.Random(2)
    lines = ["  ".join("".join(rng.choices("abcd ", k=9)) for _ in range(5)) for _ in range(200)]
    size = len(pieces_of(train_with_the_library(lines))) - 5
    tokenizer = train_sentencepiece(iter(["\n".join(lines[:99]), "\n".join(lines[99:])]), size)
    assert pieces_of(tokenizer.sentencepiece_model) == pieces_of(train_with_the_library(lines, vocab_size=size))


def test_the_files_are_those_of_the_library(tmp_path):
    texts = ["the quick brown fox jumps over the lazy dog\n" * 20]
    tokenizer = train_sentencepiece(texts, 310)
    save_tokenizer(tokenizer, tmp_path / "saved")
    folder = tmp_path / "saved"
    library = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    assert library.get_piece_size() == 310
    text = "The dog jumps\n  over 😀"
    assert library.encode(text) == ids_of(tokenizer, text) == ids_of(load_tokenizer(folder), text)
    sentencepiece.SentencePieceTrainer.train(
        **{**SETTINGS, "hard_vocab_limit": True, "vocab_size": 310},
        sentence_iterator=iter(texts[0].splitlines()),
        model_prefix=str(tmp_path / "theirs"),
    )
    theirs, ours = (
        path.read_text().splitlines() for path in (tmp_path / "theirs.vocab", tmp_path / "saved" / "tokenizer.vocab")
    )
    assert ours == theirs


def test_a_mask_token_stays_beside_the_model(tmp_path):
    tokenizer: Any = add_mask_token(train_sentencepiece(["a b c"], 265))
    save_tokenizer(tokenizer, tmp_path)
    loaded: Any = load_tokenizer(tmp_path)
    assert (loaded.mask_token_id, len(loaded)) == (265, 266)
    assert loaded.sentencepiece_model == tokenizer.sentencepiece_model


def test_sizes():
    with pytest.raises(
        ValueError, match=r"^expected vocab_size of at most \d+, which is all .*, got 5000: take"
    ) as error:
        train_sentencepiece(["the fox the dog"], 5000)
    largest = int(str(error.value).split("at most ")[1].split(",")[0])
    assert len(train_sentencepiece(["the fox the dog"], largest)) == largest
    with pytest.raises(ValueError, match=r"^expected vocab_size of at least \d+ .*, got 200$") as error:
        train_sentencepiece(["the fox the dog"], 200)
    smallest = int(str(error.value).split("at least ")[1].split(" ")[0])
    assert len(train_sentencepiece(["the fox the dog"], smallest)) == smallest


def test_what_is_no_model(every_kind, tmp_path):
    (tmp_path / "wrong.model").write_bytes(b"This is a text and no model.")
    with pytest.raises(ValueError, match=r"wrong.model: expected a SentencePiece model, got 28 bytes that are none"):
        load_tokenizer(tmp_path / "wrong.model")
    save_tokenizer(every_kind["sentencepiece"], tmp_path / "folder")
    (tmp_path / "folder" / "tokenizer.model").write_bytes(b"\0")
    with pytest.raises(ValueError, match=r"tokenizer.model: expected a SentencePiece model, got 1 bytes"):
        load_tokenizer(tmp_path / "folder")


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "unigram"},
        {"normalization_rule_name": "nmt_nfkc"},
        {"remove_extra_whitespaces": True},
    ],
)
def test_models_that_change_the_text_are_refused(settings):
    model = train_with_the_library(["the quick brown fox ﬁ Å １２"] * 5, **settings)
    with pytest.raises(ValueError, match="expected a SentencePiece model of type BPE that leaves the text as it is"):
        convert_sentencepiece(model, name="wiki.model")


def test_a_model_with_a_space_before_the_text(tmp_path):
    model = train_with_the_library(["the quick brown fox"] * 5, add_dummy_prefix=True)
    (tmp_path / "wiki.model").write_bytes(model)
    tokenizer = load_tokenizer(tmp_path / "wiki.model")
    text = "the fox " * 30_000
    (array,) = encode_corpus(tokenizer, [text])
    assert array.tolist() == sentencepiece.SentencePieceProcessor(model_proto=model).encode(text)
    assert not encoding.build_encoder(tokenizer)[1]


def test_words_too_long_for_the_library_are_learned_from():
    rng = random.Random(3)
    characters = list(map(chr, range(0x4E00, 0x4E64)))
    texts = ["".join(rng.choices(characters, k=1500)), " " * 5000 + "😀" * 2000]
    tokenizer = train_sentencepiece(texts, 420)
    assert {*characters, "😀😀", "▁▁"} <= tokenizer.get_vocab().keys()


def test_what_the_library_warns_of_is_logged_in_one_line(caplog):
    with warnings_logged():
        train_with_the_library(["the quick brown fox"] * 5 + ["x" * 5000], minloglevel=1)
    (line,) = caplog.messages
    assert line.startswith("SentencePiece warns: ")
    assert "Found too long line (5000 > 4192). Too long lines are skipped in the training." in line
    assert "\n" not in line
