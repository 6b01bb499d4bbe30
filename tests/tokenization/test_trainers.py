import ast
import copy
import json
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, trainers
from transformers import AutoTokenizer, GPT2TokenizerFast  # pyright: ignore[reportAttributeAccessIssue]

from tests.tokenization.conftest import ids_of, run_elsewhere
from tokenization import ScratchGPTTokenizer, add_mask_token, load_tokenizer, save_tokenizer, train_vocabulary
from tokenization.saving import build_fast
from tokenization.tokenization_scratchgpt import byte_alphabet
from tokenization.trainers import KINDS, load_gpt2, train_characters, train_wordpiece

END = {"bpe": "<|endoftext|>", "characters": "<|endoftext|>", "gpt2": "<|endoftext|>"}
END |= {"wordpiece": "<|EOS|>", "sentencepiece": "</s>"}
UNKNOWN = {"bpe": None, "gpt2": None, "characters": "[UNK]", "wordpiece": "[UNK]", "sentencepiece": "<unk>"}
SPECIAL = "one <|endoftext|> <|EOS|> </s> <s> <unk> [UNK] <|mask|>  déjà\tvu 😀\n"
ELSEWHERE = """
import json, sys
from transformers import AutoTokenizer
for folder in sys.argv[2:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(sys.argv[1], split_special_tokens=True)["input_ids"]
    roles = [tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token, tokenizer.unk_token, tokenizer.mask_token]
    print(json.dumps([type(tokenizer).__name__, len(tokenizer), ids, roles]))
"""


def test_load_for_everybody_in_a_fresh_process(every_kind, tmp_path):
    expected = []
    for kind in KINDS:
        tokenizer = add_mask_token(copy.deepcopy(every_kind[kind]))
        save_tokenizer(tokenizer, tmp_path / kind)
        begin = "<s>" if kind == "sentencepiece" else END[kind]
        roles = [END[kind], begin, END[kind], UNKNOWN[kind], "<|mask|>"]
        ids = tokenizer(SPECIAL, split_special_tokens=True)["input_ids"]
        expected.append(["TokenizersBackend", len(tokenizer), ids, roles])
    printed = run_elsewhere(ELSEWHERE, SPECIAL, *(tmp_path / kind for kind in KINDS), folder=tmp_path)
    assert list(map(json.loads, printed.splitlines())) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_saved_loaded_and_saved_again(every_kind, kind, tmp_path):
    save_tokenizer(every_kind[kind], tmp_path / "once")
    loaded = load_tokenizer(tmp_path / "once")
    assert (type(loaded) is ScratchGPTTokenizer) == (kind == "bpe")
    assert ids_of(loaded, SPECIAL) == ids_of(every_kind[kind], SPECIAL)
    save_tokenizer(loaded, tmp_path / "twice")
    for path in (path for path in (tmp_path / "once").rglob("*") if path.is_file()):
        again = tmp_path / "twice" / path.relative_to(tmp_path / "once")
        assert path.read_bytes() == again.read_bytes(), path.name


def test_a_tokenizer_of_another_kind_replaces_all_of_the_one_before(every_kind, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for kind in ("sentencepiece", "bpe", "characters"):
        save_tokenizer(every_kind[kind], tmp_path)
    names = ["config.json", "tokenization_scratchgpt.py", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert load_tokenizer(tmp_path).get_vocab() == every_kind["characters"].get_vocab()


@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_token_is_the_last_id(every_kind, kind):
    plain = every_kind[kind]
    masked = add_mask_token(copy.deepcopy(plain))
    assert (masked.mask_token, masked.mask_token_id, len(masked)) == ("<|mask|>", len(plain), len(plain) + 1)
    assert masked.mask_token_id in masked.all_special_ids
    assert ids_of(masked, SPECIAL) == ids_of(plain, SPECIAL)
    assert masked.decode(masked("one<|mask|>", add_special_tokens=False)["input_ids"][-1:]) == "<|mask|>"
    assert add_mask_token(masked) is masked


def test_the_mask_token_of_the_from_scratch_class(merges, tmp_path):
    tokenizer = ScratchGPTTokenizer.from_merges(merges, ("<|endoftext|>", "<|mask|>"))
    assert (tokenizer.mask_token, tokenizer.mask_token_id) == ("<|mask|>", 256 + len(merges) + 1)
    assert tokenizer.vocab_size == len(tokenizer) == 256 + len(merges) + 2
    assert tokenizer.extra_special_tokens == []
    save_tokenizer(tokenizer, tmp_path / "folder")
    loaded = load_tokenizer(tmp_path / "folder")
    assert type(loaded) is ScratchGPTTokenizer
    assert loaded.mask_token_id == tokenizer.mask_token_id
    fast = AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert fast.mask_token == build_fast(tokenizer).mask_token == "<|mask|>"
    for text in ("a<|mask|> b", "<|mask|><|endoftext|>", SPECIAL):
        ids = tokenizer(text)["input_ids"]
        assert loaded(text)["input_ids"] == fast(text)["input_ids"] == ids
        assert tokenizer.decode(ids) == fast.decode(ids) == text
        assert tokenizer.decode(ids, skip_special_tokens=True) == fast.decode(ids, skip_special_tokens=True)


def test_train_vocabulary(merges):
    bpe = train_vocabulary("bpe", ["abab abab"], 258)
    assert type(bpe) is ScratchGPTTokenizer
    assert bpe.get_vocab()["ab"] == 256
    with pytest.raises(ValueError, match="of bpe, characters, wordpiece, sentencepiece, gpt2, got 'words'"):
        train_vocabulary("words", [], 10)
    with pytest.raises(ValueError, match="list or iterator of strings, got one string"):
        train_vocabulary("characters", "abc", 10)
    for kind in ("bpe", "characters", "wordpiece", "sentencepiece"):
        with pytest.raises(ValueError, match="expected texts to learn from, got none"):
            train_vocabulary(kind, iter(["", ""]), 1000)


class TestCharacters:
    def test_golden(self):
        tokenizer = train_characters(iter(["ba\n", "é b\ud800"]))
        tokens = ["\n", " ", "a", "b", "é", "\ufffd", "[UNK]", "<|endoftext|>"]
        assert tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) == tokens
        assert tokenizer("b  a?\né<|endoftext|>")["input_ids"] == [3, 1, 1, 2, 6, 0, 4, 7]
        assert tokenizer.decode([3, 1, 1, 2, 6, 0, 4, 7]) == "b  a[UNK]\né<|endoftext|>"

    @given(text=st.one_of(st.text(), st.text("T\nhe q\tП你😀\u0301\u200d🏳")))
    def test_each_character_is_one_token(self, every_kind, text):
        tokenizer = every_kind["characters"]
        vocab = tokenizer.get_vocab()
        ids = ids_of(tokenizer, text)
        assert ids == [vocab.get(character, tokenizer.unk_token_id) for character in text]
        assert tokenizer.decode(ids) == "".join(c if c in vocab else "[UNK]" for c in text)


class TestWordPiece:
    def test_golden(self):
        tokenizer = train_wordpiece(["hug hug hug hugs pug! pun", "bun\tbun, bun bun"], 24)
        tokens = ["[UNK]", "<|EOS|>", "!", ",", *"bghnpsu", "##g", "##n", "##s", "##u"]
        # ##ug and ##un occur five times each: the pair of smaller ids, (##u, ##g), comes first.
        tokens += ["##ug", "##un", "bun", "hug", "pug", "pun", "hugs"]
        assert tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))) == tokens
        assert tokenizer.tokenize("Húgs  bugs, hupun") == ["[UNK]", "b", "##ug", "##s", ",", "[UNK]"]
        assert tokenizer("pug!")["input_ids"] == [1, tokens.index("pug"), 2, 1]

    def test_what_is_normalized(self, every_kind):
        tokenizer = every_kind["wordpiece"]
        normalize = tokenizer.backend_tokenizer.normalizer.normalize_str
        assert normalize("naïve\u0000\u200b\ufeff e\u0301\u3000x\ty\r\n") == "naive e x y  "
        assert tokenizer.decode(ids_of(tokenizer, "The  quick\n\nbrown fox; it's lázy")).startswith(
            "The quick brown fox"
        )

    def test_text_that_looks_like_a_special_token(self, every_kind):
        tokenizer = every_kind["wordpiece"]
        assert not {0, 1} & {*ids_of(tokenizer, "<|endoftext|>")}
        assert 1 not in ids_of(tokenizer, "the <|EOS|> dog")
        assert tokenizer("the<|EOS|>dog")["input_ids"] == [
            1,
            *ids_of(tokenizer, "the"),
            1,
            *ids_of(tokenizer, "dog"),
            1,
        ]

    def test_learns_what_the_library_learns_where_no_ties_are(self):
        words = {"ab": 50, "xy": 33, "abc": 20, "xyz": 11, "abcd": 7, "zab": 3}
        text = " ".join(word for word, count in words.items() for _ in range(count))
        for size in range(15, 22):
            library = Tokenizer(models.WordPiece(unk_token="[UNK]"))
            library.pre_tokenizer = train_wordpiece([text], 15).backend_tokenizer.pre_tokenizer
            special = ["[UNK]", "<|EOS|>"]
            library.train_from_iterator(
                [text], trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
            )
            assert {*train_wordpiece([text], size).get_vocab()} == {*library.get_vocab()}, size

    def test_the_same_in_every_process(self):
        text = "the quick brown fox, the lazy dog. " * 3
        code = f"from tokenization.trainers import train_wordpiece as t; print(t(['{text}'], 60).get_vocab())"
        environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.curdir}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        assert ast.literal_eval(done.stdout.decode()) == train_wordpiece([text], 60).get_vocab()

    def test_sizes(self, caplog):
        assert len(train_wordpiece(["abc abc"], 50)) == 9
        assert "the vocabulary has 9 tokens instead of 50" in caplog.text
        with pytest.raises(ValueError, match=r"vocab_size of at least 7 .*, got 6"):
            train_wordpiece(["abc abc"], 6)


class TestGPT2:
    @given(text=st.text())
    def test_gives_the_ids_of_the_reference(self, gpt2_folder, every_kind, text):
        # Words of GPT-2's split pattern are those of Unicode: what is newer in one table than in the other stays out.
        text = re.sub(r"[^\x00-\u03ff\u4e00-\u9fa5\U0001f600-\U0001f640]", "", text)
        assert ids_of(every_kind["gpt2"], text) == self.reference(gpt2_folder).encode_ordinary(text)

    @staticmethod
    def reference(folder):
        vocab = json.loads((folder / "vocab.json").read_text())
        byte_of = {character: byte for byte, character in enumerate(byte_alphabet())}
        ranks = {bytes(byte_of[c] for c in token): index for token, index in vocab.items() if token != "<|endoftext|>"}
        pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
        return pytest.importorskip("tiktoken").Encoding(
            "small", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
        )

    def test_from_each_layout(self, gpt2_folder, every_kind, tmp_path):
        official = GPT2TokenizerFast(vocab=str(gpt2_folder / "vocab.json"), merges=str(gpt2_folder / "merges.txt"))
        official.save_pretrained(tmp_path / "json")
        (tmp_path / "openai").mkdir()
        for ours, theirs in (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")):
            (tmp_path / "openai" / theirs).write_bytes((gpt2_folder / ours).read_bytes())
        expected = ids_of(every_kind["gpt2"], SPECIAL)
        assert ids_of(official, SPECIAL) == expected
        assert ids_of(load_gpt2(tmp_path / "json"), SPECIAL) == expected
        assert ids_of(load_gpt2(tmp_path / "openai"), SPECIAL) == expected
        assert ids_of(load_tokenizer(gpt2_folder), SPECIAL) == expected

    def test_what_is_not_there(self, tmp_path, monkeypatch):
        with pytest.raises(
            ValueError, match=r"expected GPT-2's vocab.json and merges.txt, or its tokenizer.json, got n"
        ):
            load_gpt2(tmp_path)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ValueError, match=r"^nobody/nothing-here: expected a folder .* or a repository of the Hub"):
            load_gpt2("nobody/nothing-here")

    def test_what_is_another_thing(self, every_kind, gpt2_folder, tmp_path):
        save_tokenizer(every_kind["characters"], tmp_path / "characters")
        with pytest.raises(ValueError, match=r"a token for each byte and <\|endoftext\|>, got none for"):
            load_gpt2(tmp_path / "characters")
        (tmp_path / "tokenizer.json").write_text("[]")
        with pytest.raises(ValueError, match=r"tokenizer\.json: expected a JSON object"):
            load_gpt2(tmp_path)
        (tmp_path / "vocab.json").write_bytes((gpt2_folder / "vocab.json").read_bytes())
        (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
        with pytest.raises(ValueError, match="merges of two tokens of the vocabulary, got 'a b c'"):
            load_gpt2(tmp_path)
        (tmp_path / "vocab.json").write_text("{")
        with pytest.raises(ValueError, match=r"vocab\.json: expected JSON"):
            load_gpt2(tmp_path)


def test_wordpiece_writes_long_words_and_names_those_that_are_too_long(caplog: pytest.LogCaptureFixture) -> None:
    """A clause of Thai or Chinese is one word of it; the library's own limit is 100 characters."""
    texts = ["a" * 400, "b" * 513]
    tokenizer = train_wordpiece(texts, 40)
    assert tokenizer.decode(tokenizer.encode(texts[0], add_special_tokens=False)) == texts[0]
    assert tokenizer.tokenize(texts[1]) == ["[UNK]"]
    assert "1 words of more than 512 characters become [UNK]" in caplog.text
