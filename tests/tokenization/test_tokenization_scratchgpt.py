import copy
import json
import pickle
import random
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LogitsProcessor

from tokenization import GPT4_SPLIT_PATTERN, ScratchGPTTokenizer
from tokenization.tokenization_scratchgpt import (
    LONG_WORD,
    Splitter,
    byte_alphabet,
    bytes_to_text,
    read_vocabulary,
    text_to_bytes,
)

# Every string that Python has, lone surrogates too.
ANY_TEXT = st.one_of(
    st.text(st.characters(codec=None)),
    st.lists(
        st.sampled_from(["<|endoftext|>", "<|end|>", "<|", "end", "it's ", "\ud83d", "\ude00", "😀", "\n", " "])
    ).map("".join),
)


@given(text=ANY_TEXT)
@example("\ud83d\ude00")
@example("\ufffd \U0010ffff \0")
def test_every_string_survives(slow, text):
    ids = slow.encode_ordinary(text)
    assert slow.decode(ids) == text
    assert slow(text, split_special_tokens=True)["input_ids"] == ids
    assert slow.decode(slow(text)["input_ids"]) == text


@given(text=ANY_TEXT)
def test_every_character_is_in_one_pretoken(text):
    assert "".join(Splitter(GPT4_SPLIT_PATTERN)(text)) == text
    assert "".join(Splitter(r"\d(a)?|x*")(text)) == text


@pytest.mark.parametrize(
    ("text", "pretokens"),
    [
        ("It's THEY'LL o'er", ["It", "'s", " THEY", "'LL", " o", "'er"]),
        ("a1234567b", ["a", "123", "456", "7", "b"]),
        ("x  y\n\n  z \n", ["x", " ", " y", "\n\n", " ", " z", " \n"]),
        ("(hello)!\n\nWorld", ["(hello", ")!\n\n", "World"]),
        ("naïve 你好，世界", ["naïve", " 你好", "，世界"]),
        ("tail  ", ["tail", "  "]),
    ],
)
def test_the_split_of_gpt4(text, pretokens):
    assert Splitter(GPT4_SPLIT_PATTERN)(text) == pretokens


def test_ids_are_bytes_then_merges_then_special_tokens(slow, merges):
    assert slow.token_bytes[:256] == [bytes([byte]) for byte in range(256)]
    assert slow.token_bytes[256:398] == [first + second for first, second in merges]
    assert slow.convert_ids_to_tokens([32, 398]) == ["Ġ", "<|endoftext|>"]
    assert slow.convert_tokens_to_ids(["Ġ", "no such token"]) == [32, None]
    text = "a<|endoftext|><|end|>"
    assert slow(text)["input_ids"] == [97, 398, 399]
    assert 398 not in slow.encode_ordinary(text)
    assert slow.decode([97, 398, 98], skip_special_tokens=True) == "ab"
    assert (slow.bos_token_id, slow.eos_token_id, slow.pad_token_id) == (398, 398, 398)
    assert slow.all_special_tokens == ["<|endoftext|>", "<|end|>"]
    assert slow.vocab_size == len(slow) == 400
    assert slow("")["input_ids"] == []


def encode_by_the_book(merges, text):
    """The lowest merge that applies, one place at a time from the left, until none does."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    word = [bytes([byte]) for byte in text_to_bytes(text)]
    while pairs := [(ranks[pair], at) for at, pair in enumerate(pairwise(word)) if pair in ranks]:
        _, at = min(pairs)
        word[at : at + 2] = [word[at] + word[at + 1]]
    return word


@given(word=st.text(alphabet="thequickbrownжи", min_size=1, max_size=40), times=st.integers(1, 30))
def test_merges_apply_in_the_order_learnt(slow, merges, word, times):
    text = word * times
    assert [slow.token_bytes[token_id] for token_id in slow.encode_ordinary(text)] == encode_by_the_book(merges, text)


def test_long_words_take_the_other_way_and_are_not_kept(slow, merges):
    word = "".join(random.Random(0).choices("thequickbrownfox", k=3 * LONG_WORD))
    ids = slow.encode_ordinary(word)
    assert [slow.token_bytes[token_id] for token_id in ids] == encode_by_the_book(merges, word)
    assert word not in slow._cache


def test_words_are_kept(slow):
    tokenizer = pickle.loads(pickle.dumps(slow))
    assert not tokenizer._cache
    tokenizer.encode_ordinary("one two one")
    assert {**tokenizer._cache} == {word: tuple(slow.encode_ordinary(word)) for word in ("one", " two", " one")}


def test_the_cache_is_bounded(slow, monkeypatch):
    monkeypatch.setattr("tokenization.tokenization_scratchgpt.CACHE_ENTRIES", 10)
    tokenizer = pickle.loads(pickle.dumps(slow))
    text = " ".join(f"word{number}" for number in range(100))
    assert tokenizer.encode_ordinary(text) == slow.encode_ordinary(text)
    assert len(tokenizer._cache) <= 10


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_tensors": "pt"},
        {"split_special_tokens": True},
        {"truncation": True, "max_length": 4},
        {"padding": "max_length", "max_length": 60, "return_tensors": "np"},
        {"padding": "max_length", "max_length": 60, "padding_side": "left"},
        {"padding": "max_length", "max_length": 60, "padding_side": "right"},
    ],
)
def test_calls_with_offsets_equal_the_fast_class(slow, fast, side, options):
    slow, fast = copy.deepcopy(slow), copy.deepcopy(fast)
    for tokenizer in (slow, fast):
        tokenizer.truncation_side = tokenizer.padding_side = side
    text = "The déjà 😀x<|endoftext|>dog"
    batched = {"padding": True, **options}
    if "max_length" not in options:
        batched["pad_to_multiple_of"] = 8
    for given_text, given_options in ((text, options), ([text, "fox"], batched)):
        ours = slow(given_text, return_offsets_mapping=True, **given_options)
        theirs = fast(given_text, return_offsets_mapping=True, **given_options)
        assert list(ours) == list(theirs)
        assert {name: str(value) for name, value in ours.items()} == {name: str(v) for name, v in theirs.items()}


@given(text=st.text())
def test_offsets_equal_the_fast_class(slow, fast, text):
    theirs = fast(text, return_offsets_mapping=True)
    assert slow.offsets(theirs["input_ids"]) == theirs["offset_mapping"]


def test_offsets_of_pairs_are_refused(slow):
    with pytest.raises(ValueError, match=r"expected single texts.*use the fast tokenizer"):
        slow("a", "b", return_offsets_mapping=True)


def test_prefix_space(slow, merges):
    assert slow.tokenize("dog", add_prefix_space=True) == slow.tokenize(" dog")
    assert slow.tokenize(" dog", add_prefix_space=True) == slow.tokenize(" dog")
    assert slow.tokenize("dog", is_split_into_words=True) == slow.tokenize(" dog")


@given(st.binary(max_size=12))
def test_bytes_that_are_no_text_decode_as_everywhere(data):
    text = bytes_to_text(data)
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert text == data.decode("utf-8", "replace")


def test_ids_beyond_the_vocabulary(slow):
    assert slow.decode([97, 5000, 98]) == "ab"
    with pytest.raises(ValueError, match="expected token ids from 0 to 399, got -100"):
        slow.decode([-100])


def test_the_alphabet_is_gpt2s():
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    assert {byte: character for byte, character in enumerate(byte_alphabet())} == bytes_to_unicode()


def test_save_pretrained_and_back(slow, tmp_path):
    slow.save_pretrained(tmp_path / "once")
    once = ScratchGPTTokenizer.from_pretrained(tmp_path / "once")
    once.save_pretrained(tmp_path / "twice")
    config = json.loads((tmp_path / "twice" / "tokenizer_config.json").read_text())
    assert not {"is_local", "local_files_only", "name_or_path"} & config.keys()
    assert once.merges == slow.merges
    assert once.special_tokens == slow.special_tokens
    text = "It's <|endoftext|> déjà vu\r\n\u2028 \x85 1234<|end|>"
    assert once(text)["input_ids"] == slow(text)["input_ids"]


def test_from_its_two_files_alone(slow, tmp_path):
    tokenizer = ScratchGPTTokenizer(*slow.save_vocabulary(str(tmp_path)))
    text = "It's <|endoftext|> déjà vu 1234<|end|>"
    assert tokenizer(text)["input_ids"][:3] == slow(text)["input_ids"][:3]
    assert tokenizer.encode_ordinary(text) == slow.encode_ordinary(text)
    assert (tokenizer.merges, tokenizer.special_tokens) == (slow.merges, slow.special_tokens)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<|endoftext|>",) * 3


def test_which_special_token_is_which():
    end_first = ScratchGPTTokenizer.from_merges([], ("<|mask|>", "<|a|>", "<|endoftext|>"))
    assert (end_first.mask_token_id, end_first.eos_token_id) == (256, 258)
    assert end_first.all_special_tokens == ["<|endoftext|>", "<|mask|>", "<|a|>"]
    another = ScratchGPTTokenizer.from_merges([], ("<|mask|>", "<|a|>"))
    assert (another.mask_token, another.eos_token, another.pad_token) == (None, "<|mask|>", "<|mask|>")
    assert ScratchGPTTokenizer.from_merges([], ("<|a|>", "<|mask|>")).mask_token == "<|mask|>"


def test_every_token_survives_the_files(tmp_path):
    merges = [(bytes([first]), bytes([second])) for first in range(256) for second in (0, 10, 13, 32, 133, 173)]
    tokenizer = ScratchGPTTokenizer.from_merges(merges, ())
    files = tokenizer.save_vocabulary(str(tmp_path))
    assert read_vocabulary(*files) == (merges, [])
    # GPT-2's readers leave the first line out.
    assert (tmp_path / "merges.txt").read_text(encoding="utf-8").startswith("#version: 0.2\nĀ Ā\n")


@pytest.mark.parametrize(
    ("merges", "special_tokens", "message"),
    [
        ([(b"a", b"b"), (b"a", b"b")], (), "expected merges that each make a new token, got b'ab' twice"),
        ([(b"ab", b"c")], (), "b'ab' is no byte and no earlier merge makes it: .* must be in the order learned"),
        ([(b"a", b"b")], ("ab",), "expected special tokens that are no other token, got 'ab': choose another name"),
    ],
)
def test_merges_that_make_no_vocabulary(merges, special_tokens, message):
    with pytest.raises(ValueError, match=message):
        ScratchGPTTokenizer.from_merges(merges, special_tokens)


def test_files_that_do_not_fit(slow, tmp_path):
    vocab_file, merges_file = slow.save_vocabulary(str(tmp_path))
    lines = (tmp_path / "merges.txt").read_text(encoding="utf-8").split("\n")
    (tmp_path / "merges.txt").write_text("\n".join([lines[0], *lines[2:]]), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"does not fit.*expected ids 0 to 255 for the bytes in order, then 141 merges"
    ):
        read_vocabulary(vocab_file, merges_file)


@pytest.mark.parametrize("end", ["дня.", "世界", "😀", "🏽!", "<|end|>"])
@pytest.mark.parametrize("name", ["slow", "fast"])
def test_generate_stops_at_a_text_in_any_script(request, name, end):
    tokenizer = request.getfixturevalue(name)
    ids = tokenizer(f"Доброго {end} And this is too much.")["input_ids"]
    expected = next(length for length in range(len(ids)) if end in tokenizer.decode(ids[:length]))
    assert expected > 10
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=4, n_layer=1, n_head=1, n_positions=100, eos_token_id=None)

    class Script(LogitsProcessor):
        """The model writes those ids, whatever it has learned."""

        def __call__(self, input_ids, scores):  # pyright: ignore[reportIncompatibleMethodOverride]
            return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([ids[input_ids.shape[1]]]), 0)

    model: Any = GPT2LMHeadModel(config)
    written = model.generate(
        torch.tensor([ids[:1]]),
        attention_mask=torch.ones(1, 1),
        logits_processor=[Script()],
        max_length=len(ids),
        do_sample=False,
        tokenizer=tokenizer,
        stop_strings=["no such text", end],
    )
    assert written[0].tolist() == ids[:expected]
