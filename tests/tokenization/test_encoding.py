import copy

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers
from transformers import PreTrainedTokenizer

from storage.text import replace_surrogates
from tokenization import ScratchGPTTokenizer, encode_corpus, encoding
from tokenization.encoding import token_dtype
from tokenization.trainers import KINDS

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


@pytest.mark.parametrize("kind", KINDS)
@given(texts=TEXTS)
def test_long_texts_are_cut_where_it_changes_nothing(every_kind, kind, texts):
    tokenizer = every_kind[kind]
    texts = [replace_surrogates(text) for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "PART_CHARACTERS", 3)
        patch.setattr(encoding, "BATCH_CHARACTERS", 10)
        arrays = [array.tolist() for array in encode_corpus(tokenizer, texts)]
    calls = [tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in texts]
    assert arrays == calls


def test_which_tokenizers_have_borders_at_spaces(every_kind, fast):
    assert all(encoding.build_encoder(tokenizer)[1] for tokenizer in (*every_kind.values(), fast))
    other = copy.deepcopy(every_kind["wordpiece"])
    other.add_tokens(["the dog"])
    assert not encoding.build_encoder(other)[1]
    other = copy.deepcopy(every_kind["gpt2"])
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert not encoding.build_encoder(other)[1]
    other.backend_tokenizer.pre_tokenizer = None
    assert not encoding.build_encoder(other)[1]
    other = copy.deepcopy(every_kind["wordpiece"])
    other.backend_tokenizer.normalizer = normalizers.Strip()
    assert not encoding.build_encoder(other)[1]


def test_lone_surrogates_where_the_library_has_none(every_kind):
    for kind in ("characters", "wordpiece", "sentencepiece", "gpt2"):
        surrogate, replacement = encode_corpus(every_kind[kind], ["a \ud800 b", "a \ufffd b"])
        assert surrogate.tolist() == replacement.tolist(), kind
    assert replace_surrogates("\ud83d\ude00 \ud800") == "😀 \ufffd"


def test_settings_of_the_tokenizer_stay_as_they_are(fast):
    tokenizer = copy.deepcopy(fast)
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding()
    (array,) = encode_corpus(tokenizer, ["one <|endoftext|> two"])
    assert tokenizer.decode(array) == "one <|endoftext|> two"
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 2
    assert not tokenizer.backend_tokenizer.encode_special_tokens


def test_a_tokenizer_in_python_goes_through_its_call():
    class Letters(PreTrainedTokenizer):
        vocab_size = 26

        def get_vocab(self):
            return {chr(97 + index): index for index in range(26)} | self.added_tokens_encoder

        def _tokenize(self, text, **kwargs):
            return list(text)

        def _convert_token_to_id(self, token):
            return ord(token) - 97

        def _convert_id_to_token(self, index):
            return chr(97 + index)

    assert [array.tolist() for array in encode_corpus(Letters(), ["cab", "z"])] == [[2, 0, 1], [25]]
