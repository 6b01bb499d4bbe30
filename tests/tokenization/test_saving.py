import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.tokenization.conftest import Words, run_elsewhere
from tokenization import ScratchGPTTokenizer, load_tokenizer, save_tokenizer, saving

TEXTS = ["It's <|endoftext|> déjà vu 😀\r\n", "  1234 <|end|>x", ""]
ELSEWHERE = """
import json, sys
from typing import Any
from transformers import AutoTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
fast = AutoTokenizer.from_pretrained(folder)
found = {"fast": type(fast).__name__}
ways = {
    "trusted": AutoTokenizer.from_pretrained(folder, trust_remote_code=True),
    "slow": AutoTokenizer.from_pretrained(folder, subfolder="slow", trust_remote_code=True),
    "slow itself": AutoTokenizer.from_pretrained(folder + "/slow", trust_remote_code=True),
}
for name, tokenizer in ways.items():
    found[name] = type(tokenizer).__name__
    assert not tokenizer.clean_up_tokenization_spaces
    for text in texts:
        for split in (False, True):
            ids = tokenizer(text, split_special_tokens=split)["input_ids"]
            assert ids == fast(text, split_special_tokens=split)["input_ids"], (name, text)
            assert tokenizer.decode(ids) == text
try:
    AutoTokenizer.from_pretrained(folder, subfolder="slow", trust_remote_code=False)
except ValueError as error:
    found["untrusted"] = str(error)
print(json.dumps(found))
"""


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_layout(slow, tmp_path):
    save_tokenizer(slow, tmp_path / "tokenizer")
    assert files_below(tmp_path / "tokenizer") == [
        "slow/merges.txt",
        "slow/merges.vocab",
        "slow/tokenization_scratchgpt.py",
        "slow/tokenizer_config.json",
        "slow/vocab.json",
        "tokenization_scratchgpt.py",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    root = json.loads((tmp_path / "tokenizer" / "tokenizer_config.json").read_text())
    assert root["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert root["clean_up_tokenization_spaces"] is False
    assert "auto_map" not in root
    config = json.loads((tmp_path / "tokenizer" / "slow" / "tokenizer_config.json").read_text())
    assert config["auto_map"] == {"AutoTokenizer": ["tokenization_scratchgpt.ScratchGPTTokenizer", None]}


def test_loads_in_a_fresh_process_elsewhere(slow, tmp_path):
    save_tokenizer(slow, tmp_path / "made" / "tokenizer")
    printed = run_elsewhere(ELSEWHERE, tmp_path / "made" / "tokenizer", json.dumps(TEXTS), folder=tmp_path)
    found = json.loads(printed)
    assert "trust_remote_code=True" in found.pop("untrusted")
    ours = "ScratchGPTTokenizer"
    assert found == {"fast": "TokenizersBackend", "trusted": "TokenizersBackend", "slow": ours, "slow itself": ours}


@pytest.mark.parametrize("name", ["max_position_embeddings", "n_positions"])
def test_beside_a_model_a_tokenizer_has_its_context(slow, tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps({name: 12}), encoding="utf-8")
    save_tokenizer(slow, tmp_path)
    texts = ["a b", "x" * 50]
    for tokenizer in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False)):
        short, long = tokenizer(texts, truncation=True, padding="max_length")["input_ids"]
        assert short == [*slow.encode_ordinary(texts[0]), *[slow.pad_token_id] * 12][:12]
        assert long == slow.encode_ordinary(texts[1])[:12]


def test_saves_the_class_as_transformers_loaded_it(slow, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    save_tokenizer(slow, tmp_path / "once")
    remote = AutoTokenizer.from_pretrained(tmp_path / "once" / "slow", trust_remote_code=True)
    assert type(remote) is not ScratchGPTTokenizer
    save_tokenizer(remote, tmp_path / "twice")
    assert files_below(tmp_path / "twice") == files_below(tmp_path / "once")
    saved: Any = load_tokenizer(tmp_path / "twice")
    assert saved.encode_ordinary(TEXTS[0]) == slow.encode_ordinary(TEXTS[0])


def test_tokens_added_later_are_kept(slow, tmp_path):
    grown = copy.deepcopy(slow)
    grown.add_tokens(["dragonfly"])
    grown.add_special_tokens({"extra_special_tokens": ["<|new|>"]}, replace_extra_special_tokens=False)
    save_tokenizer(grown, tmp_path)
    text = "a dragonfly<|new|>"
    for tokenizer in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert len(tokenizer) == len(slow) + 2
        assert tokenizer(text)["input_ids"] == grown(text)["input_ids"] == [97, 32, 400, 401]


def test_what_another_tokenizer_left_is_removed(slow, tmp_path):
    """transformers would read it before what is written here."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name in ("chat_template.jinja", "special_tokens_map.json", "added_tokens.json", "notes.txt"):
        (folder / name).write_text("{}")
    save_tokenizer(slow, folder)
    left = {"chat_template.jinja", "special_tokens_map.json", "added_tokens.json", "notes.txt"} & {*files_below(folder)}
    assert left == {"notes.txt"}


def test_the_side_of_a_cut_is_kept(slow, tmp_path):
    cutting = copy.deepcopy(slow)
    cutting.truncation_side = cutting.init_kwargs["truncation_side"] = "left"  # as its constructor sets them
    save_tokenizer(cutting, tmp_path / "tokenizer")
    for subfolder in ("", "slow"):
        loaded = AutoTokenizer.from_pretrained(tmp_path / "tokenizer", subfolder=subfolder, trust_remote_code=True)
        ids = loaded("one two three", truncation=True, max_length=2)["input_ids"]
        assert ids == slow("one two three")["input_ids"][-2:]


def test_another_fast_tokenizer(slow, tmp_path):
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "?": 1}, "?")), unk_token="?")
    save_tokenizer(slow, tmp_path)
    save_tokenizer(other, tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == {"a": 0, "?": 1}
    save_tokenizer(loaded, tmp_path / "again")
    config = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    assert not {"auto_map", "is_local", "local_files_only", "name_or_path"} & set(config)


def test_a_class_of_remote_code_without_a_fast_twin_is_refused(tmp_path):
    foreign = Words()
    foreign._auto_map = {"AutoTokenizer": ["words.Words", None]}
    with pytest.raises(ValueError, match="loads without remote code, got Words: convert it to a fast tokenizer"):
        save_tokenizer(foreign, tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_writing_fails(slow, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(saving.shutil, "copyfile", fail)
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "new", tmp_path / "there"):
        with pytest.raises(OSError, match="No space left"):
            save_tokenizer(slow, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert list((tmp_path / "there").iterdir()) == []


def test_the_listing_of_merges():
    pairs = [(b"t", b"h"), (b"th", b"e"), (b"\n", b"\n"), (b"\\", b"n"), (b"\xf0", b"\x9f"), (b"\xc3", b"\xa9")]
    pairs.append((b" ", b"\xad"))
    assert saving.merge_listing(ScratchGPTTokenizer.from_merges(pairs)).splitlines() == [
        "[t][h] -> [th] 256",
        "[th][e] -> [the] 257",
        r"[\n][\n] -> [\n\n] 258",
        r"[\\][n] -> [\\n] 259",
        r"[\xf0][\x9f] -> [\xf0\x9f] 260",
        r"[\xc3][\xa9] -> [é] 261",
        r"[ ][\xad] -> [ \xad] 262",
    ]


def test_importing_the_package_imports_nothing_else():
    checkout = Path(__file__).resolve().parents[2]
    code = (
        "import sys, tokenization; print([m for m in ('transformers', 'corpus', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
