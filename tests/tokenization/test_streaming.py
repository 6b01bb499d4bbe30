import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tokenization import StreamingDecoder
from tokenization.streaming import incomplete_tail
from tokenization.trainers import KINDS


def stream(tokenizer, ids, **options):
    decoder = StreamingDecoder(tokenizer, **options)
    return [*map(decoder.push, ids), decoder.finish()]


@pytest.fixture(scope="module")
def metaspace():
    """A tokenizer of words with byte fallback, as SentencePiece's are: no tokens of bytes alone."""
    words = ["▁the", "▁fox", "▁", "é", "s", "\ufffd", *(f"<0x{byte:02X}>" for byte in range(256)), "<0xc3>", "<0xa9>"]
    model = models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=[], byte_fallback=True)
    rust = Tokenizer(model)
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    rust.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=rust, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_adds_up_for_every_kind(every_kind, kind, data):
    tokenizer = every_kind[kind]
    some_ids = st.lists(st.integers(0, len(tokenizer) - 1), max_size=25)
    of_texts = st.text("the fox's d. 1\n\té😀").map(lambda text: tokenizer(text)["input_ids"])
    ids = data.draw(st.one_of(some_ids, of_texts))
    skip_special_tokens = data.draw(st.booleans())
    chunks = stream(tokenizer, ids, skip_special_tokens=skip_special_tokens)
    assert "".join(chunks) == tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_takes_constant_time_for_every_kind(every_kind, kind):
    decoder = StreamingDecoder(every_kind[kind])
    for token_id in every_kind[kind]("the dog " * 50)["input_ids"]:
        decoder.push(token_id)
    assert len(decoder._ids) <= 2


def test_a_decoder_that_is_not_known_sees_all_ids(every_kind):
    tokenizer = copy.deepcopy(every_kind["wordpiece"])
    tokenizer.backend_tokenizer.decoder = decoders.CTC()
    ids = tokenizer("the dog's day")["input_ids"]
    decoder = StreamingDecoder(tokenizer)
    assert "".join([*map(decoder.push, ids), decoder.finish()]) == tokenizer.decode(ids)
    assert len(decoder._ids) == len(ids)


def test_words_come_with_their_spaces(every_kind):
    tokenizer = every_kind["wordpiece"]
    ids = tokenizer.convert_tokens_to_ids(["the", "dog", "##s", ".", "the"])
    assert [chunk for chunk in stream(tokenizer, ids) if chunk] == ["the", " dog", "s", ".", " the"]


@given(text=st.text(st.characters(codec=None)))
def test_shows_no_half_characters(slow, text):
    chunks = stream(slow, slow.encode_ordinary(text))
    assert "".join(chunks) == text
    assert chunks[-1] == ""
    assert "\ufffd" in text or not any("\ufffd" in chunk for chunk in chunks)


def test_gives_each_character_with_its_last_byte(slow):
    assert stream(slow, [0xF0, 0x9F, 0x98, 0x80, 33]) == ["", "", "", "😀", "!", ""]
    assert stream(slow, [0xF0, 0x9F, 33, 0xC3]) == ["", "", "\ufffd!", "", "\ufffd"]


BYTES = [f"<0x{byte:02X}>" for byte in b"\xf0\x9f\x98\x80\xe4\xbd\xed\xa0 A"]
RUNS = ["▁the", "▁", "s", "\ufffd", *BYTES, "<0xc3>", "<0xa9>"]


@pytest.mark.parametrize("words", [None, RUNS], ids=["any", "runs"])
@given(data=st.data())
def test_words_with_bytes_of_a_fallback(metaspace, words, data):
    ids_of_words = range(len(metaspace)) if words is None else metaspace.convert_tokens_to_ids(words)
    some_ids = st.lists(st.sampled_from([*ids_of_words, len(metaspace)]), max_size=15)  # the last is that of no token
    of_texts = st.text("你😀é s").map(lambda text: metaspace(text)["input_ids"])
    ids = data.draw(st.one_of(some_ids, of_texts))
    assert "".join(stream(metaspace, ids)) == metaspace.decode(ids)


def test_bytes_of_a_fallback_wait_for_the_end_of_their_run(metaspace):
    ids = metaspace.convert_tokens_to_ids(["▁fox", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "s"])
    assert stream(metaspace, ids) == ["fox", "", "", "", "", "😀s", ""]


def test_a_wrong_byte_settles_its_run(metaspace):
    ids = metaspace.convert_tokens_to_ids(["▁fox", "<0xC3>", "<0xA9>", "<0xFF>", "<0xC3>", "<0xA9>", "s", "<0xC3>"])
    assert stream(metaspace, ids) == ["fox", "", "", "\ufffd\ufffd\ufffd", "\ufffd", "\ufffd", "s", "", "\ufffd"]
    decoder = StreamingDecoder(metaspace)
    assert [(decoder.push(token_id), decoder.is_open)[1] for token_id in ids[:6]] == [False, True, True] + [False] * 3


@pytest.mark.parametrize(
    "words",
    [["<0xE4>", "<0xBD>", "<0xA0>"], ["<0xC3>", "<0xA9>", "<0xFF>"], ["\ufffd", "\ufffd", "\ufffd"]],
    ids=["characters", "wrong bytes", "replacement characters"],
)
def test_a_run_is_decoded_in_linear_time(metaspace, monkeypatch, words):
    ids = metaspace.convert_tokens_to_ids(words * 200)
    expected, decode, decoded = metaspace.decode(ids), metaspace.decode, []

    def counted(some_ids, **options):
        decoded.append(len(some_ids))
        return decode(some_ids, **options)

    monkeypatch.setattr(metaspace, "decode", counted)
    assert "".join(stream(metaspace, ids)) == expected
    assert sum(decoded) <= 4 * len(ids)


@given(st.text(min_size=1))
def test_incomplete_tail(text):
    data = text.encode()
    assert incomplete_tail(data) == 0
    width = len(text[-1].encode())
    assert [incomplete_tail(data[: len(data) - cut]) for cut in range(1, width)] == list(range(width - 1, 0, -1))
