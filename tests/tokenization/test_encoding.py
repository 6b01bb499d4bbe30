import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokenization import ScratchGPTTokenizer, encode_corpus, encoding
from tokenization.encoding import token_dtype

TEXTS = st.lists(
    st.one_of(
        st.text(alphabet="a.1 \n\r\té\u2003\0\1\u0558", max_size=30),
        st.text(st.characters(codec=None)),
        st.just("one <|endoftext|> two<|end|>  three\n\n"),
    ),
    max_size=4,
)


@given(texts=TEXTS)
@example(["", " ", "a  b ", "\n a", "a\n", ""])
def test_equals_the_call(slow, texts):
    arrays = list(encode_corpus(slow, iter(texts)))
    assert [array.dtype for array in arrays] == [np.uint16] * len(texts)
    assert [array.tolist() for array in arrays] == [
        slow(text, split_special_tokens=True)["input_ids"] for text in texts
    ]


@given(texts=st.lists(st.text(), max_size=4))
def test_any_tokenizer(slow, fast, texts):
    ours, theirs = list(encode_corpus(slow, texts)), list(encode_corpus(fast, texts))
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(ours, theirs, strict=True))


def test_streams_in_batches(fast, monkeypatch):
    monkeypatch.setattr(encoding, "BATCH_TEXTS", 3)
    taken = []

    def texts():
        for number in range(8):
            taken.append(number)
            yield f"text {number}"

    arrays = encode_corpus(fast, texts())
    assert fast.decode(next(arrays)) == "text 0"
    assert taken == [0, 1, 2]
    assert len(list(arrays)) == 7


def test_arrays_can_be_written_to(slow):
    (array,) = encode_corpus(slow, ["the dog"])
    array += 1


def test_caches_are_bounded(slow, monkeypatch):
    monkeypatch.setattr(encoding, "CACHE_ENTRIES", 10)
    text = " ".join(f"word{number}" for number in range(100))
    assert next(encode_corpus(slow, [text])).tolist() == slow.encode_ordinary(text)


@pytest.mark.parametrize(("size", "dtype"), [(257, np.uint16), (65_536, np.uint16), (65_537, np.uint32)])
def test_the_type_of_ids(size, dtype):
    assert token_dtype(size) is dtype


def test_another_pattern_takes_the_plain_path():
    tokenizer = ScratchGPTTokenizer.from_merges([(b" ", b"a")], pattern=r"\w+|\W+")
    (array,) = encode_corpus(tokenizer, ["b a"])
    assert array.tolist() == [98, 32, 97]
