import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenization.conftest import TEXTS
from tokenization import ScratchGPTTokenizer, add_mask_token, load_tokenizer, save_tokenizer, train_vocabulary
from tokenization.merge_trace import NO_MERGES, OTHERWISE, SORTS, merge_counts, replay
from tokenization.saving import COUNTS_FILE, SLOW
from tokenization.spans import pieces
from tokenization.tokenization_scratchgpt import text_to_bytes

TEXT = st.one_of(st.text(), st.text(alphabet="the dog's é😀\n\t 12", max_size=60))


@pytest.fixture(scope="module")
def counted():
    """Our own vocabulary, with the counts of its merges."""
    return train_vocabulary("bpe", TEXTS, 400)


def ids_of(words):
    return [token_id for word in words for token_id in word]


@pytest.mark.parametrize("kind", ["bpe", "twin", "gpt2", "sentencepiece"])
@given(text=TEXT)
def test_ends_with_the_tokenizers_own_tokens(kinds, kind, text):
    told = replay(kinds[kind], text)
    assert told.message is None
    states = [*told.states()]
    if kind in ("bpe", "twin"):
        safe = text if kind == "bpe" else text.encode("utf-8", "replace").decode()
        assert bytes(ids_of(states[0])) == text_to_bytes(safe)
    assert ids_of(states[-1]) == [piece.token_id for piece in pieces(kinds[kind], text)]
    assert [merge.rank for merge in told.merges] == sorted({merge.rank for merge in told.merges})
    assert len(states) == len(told.merges) + 1
    for merge, before, after in zip(told.merges, states, states[1:], strict=False):
        assert len(ids_of(before)) - len(ids_of(after)) == merge.places > 0
        assert 1 <= merge.rank <= told.learnt
        assert {merge.first, merge.second, merge.made, *ids_of(before)} <= told.labels.keys()


def test_steps_of_a_known_example():
    # aaabdaaabac: aa, then ab (both twice, ids smaller), then aa+ab.
    tokenizer = train_vocabulary("bpe", ["aaabdaaabac"], 260)
    told = replay(tokenizer, "aaab")
    assert told.words == [[97, 97, 97, 98]]
    names = [[told.labels[index] for index in (merge.first, merge.second, merge.made)] for merge in told.merges]
    assert names == [["a", "a", "aa"], ["a", "b", "ab"], ["aa", "ab", "aaab"]]
    assert [merge.count for merge in told.merges] == merge_counts(tokenizer) == [4, 2, 2]
    assert [merge.places for merge in replay(tokenizer, "aaab aa aa").merges] == [3, 1, 1]
    assert told.learnt == 3
    assert [*told.states()] == [[[97, 97, 97, 98]], [[256, 97, 98]], [[256, 257]], [[258]]]


def test_counts_given_or_missing(kinds, slow, counted):
    assert merge_counts(slow) is None
    assert merge_counts(kinds["gpt2"]) is None
    for kind in ("bpe", "gpt2"):
        assert {merge.count for merge in replay(kinds[kind], "the dog").merges} == {None}
    given_counts = list(range(len(slow.merges)))
    assert all(merge.count == merge.rank - 1 for merge in replay(slow, "the dog", given_counts).merges)
    assert merge_counts(add_mask_token(counted)) == merge_counts(counted)


def test_counts_are_kept_in_the_folder(counted, slow, tmp_path):
    save_tokenizer(counted, tmp_path / "once")
    loaded = load_tokenizer(tmp_path / "once")
    assert merge_counts(loaded) == merge_counts(counted)
    save_tokenizer(loaded, tmp_path / "twice")
    for folder in ("once", "twice"):
        assert json.loads((tmp_path / folder / SLOW / COUNTS_FILE).read_text()) == merge_counts(counted)
    save_tokenizer(slow, tmp_path / "once")
    assert not (tmp_path / "once" / SLOW / COUNTS_FILE).exists()


@pytest.mark.parametrize("content", ["[1, 2]", '{"a": 1}', '["x"]', "[1,"])
def test_counts_that_do_not_fit(counted, tmp_path, content):
    save_tokenizer(counted, tmp_path / "made")
    (tmp_path / "made" / SLOW / COUNTS_FILE).write_text(content)
    expected = rf"merge_counts.json: expected a JSON list of {len(counted.merges)} counts.*; delete the file"
    with pytest.raises(ValueError, match=expected):
        load_tokenizer(tmp_path / "made")


def test_vocabularies_without_merges(kinds):
    assert replay(kinds["wordpiece"], "the dog").message == SORTS["WordPiece"]
    assert replay(kinds["characters"], "the dog").message == NO_MERGES
    assert replay(ScratchGPTTokenizer.from_merges([]), "ab").words == [[97, 98]]


def test_unknown_characters_become_what_the_tokenizer_makes_of_them():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {"<unk>": 0, "a": 1, "b": 2, "ab": 3}
    for fuse_unk in (False, True):
        rust = Tokenizer(models.BPE(vocab=vocab, merges=[("a", "b")], unk_token="<unk>", fuse_unk=fuse_unk))
        rust.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="<unk>")
        told = replay(tokenizer, "abxyab ab")
        assert told.message is None
        assert told.words == [[1, 2, 0, 1, 2] if fuse_unk else [1, 2, 0, 0, 1, 2], [1, 2]]


def test_a_tokenizer_that_does_more_than_merging(fast):
    import copy

    grown = copy.deepcopy(fast)
    grown.add_tokens(["quick brown"])
    assert replay(grown, "the dog").message is None
    assert replay(grown, "the quick brown dog").message == OTHERWISE
