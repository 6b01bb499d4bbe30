"""Text → tokenizer → shards in a run folder."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from storage.run_folder import RunFolder
from storage.shards import read_manifest, write_manifest
from tests.train.conftest import with_fields
from tokenization.__main__ import main as tokenization
from train.config import Config
from train.data import encoding, sources
from train.data.encoding import PROGRESS, ShardEncoder
from train.data.prepare import prepare

TEXT = "The cat sat on the mat. A dog ran in the park! Was it late? " * 40


def local(tiny: Config, path: Path, **fields: object) -> Config:
    return with_fields(tiny, corpus__source="local", corpus__paths=(path,), **fields)


def test_the_text_comes_back_from_the_shards(tiny: Config, tmp_path: Path) -> None:
    text = TEXT + "An emoji 🦊, 日本, and text that looks like <|endoftext|>."
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    said: list[str] = []
    config = local(tiny, tmp_path / "a.txt", data__validation_chunk=100_000)
    prepared = prepare(config, RunFolder(tmp_path / "run"), said.append)
    train, validation = prepared.train, prepared.validation
    ids = [*train.read(0, len(train)), *validation.read(0, len(validation))]
    assert ids[0] == ids[-1] == prepared.end_of_text
    assert ids.count(prepared.end_of_text) == 2
    assert prepared.tokenizer.decode(ids[1:-1]) == text
    assert train.bytes + validation.bytes == len(text.encode())
    assert len(validation) == round(len(ids) * 0.1)
    assert json.loads((tmp_path / "run/prompts.json").read_text()) == prepared.prompts
    assert prepared.prompts
    assert all(prompt.split()[0] in text for prompt in prepared.prompts)
    assert said[0] == "training a byte-level BPE tokenizer of 300 tokens"


def test_a_broken_file_among_others_names_the_flag_that_leaves_it_out(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    (tmp_path / "books/a.txt").write_text(TEXT)
    (tmp_path / "books/b.xz").write_bytes(b"\xfd7zXZ\0 and no more")
    message = (
        r"b\.xz: expected a complete xz file, .*; --corpus\.skip-broken leaves out every file that cannot be read$"
    )
    with pytest.raises(ValueError, match=message):
        prepare(local(tiny, tmp_path / "books"), RunFolder(tmp_path / "run"), print)
    prepare(local(tiny, tmp_path / "books", corpus__skip_broken=True), RunFolder(tmp_path / "run"), print)
    with pytest.raises(ValueError, match=r"fetch it again or leave it out$"):
        prepare(local(tiny, tmp_path / "books/b.xz"), RunFolder(tmp_path / "other"), print)


def test_what_fits_is_used_again_and_what_does_not_is_refused(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_text(TEXT)
    run = RunFolder(tmp_path / "run")
    prepare(local(tiny, tmp_path / "a.txt"), run, print)
    manifest = run.tokens / "manifest.json"
    before = manifest.stat().st_mtime_ns
    prepare(local(tiny, tmp_path / "a.txt"), run, print)
    assert manifest.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="expected tokens of this run's corpus, got those of another"):
        prepare(local(tiny, tmp_path / "b.txt"), run, print)


def test_tokens_of_an_older_version_are_used_again(tiny: Config, tmp_path: Path) -> None:
    """Their manifest lacks the fields of the corpus that were added since: those count with their defaults."""
    (tmp_path / "a.txt").write_text(TEXT)
    run, config = RunFolder(tmp_path / "run"), local(tiny, tmp_path / "a.txt")
    prepare(config, run, print)
    manifest = json.loads((run.tokens / "manifest.json").read_text())
    del manifest["made_from"]["corpus"]["passage_characters"], manifest["checksum"]
    (run.tokens / "manifest.json").write_text(json.dumps(manifest))
    prepare(config, run, print)
    with pytest.raises(ValueError, match="expected tokens of this run's corpus"):
        prepare(with_fields(config, corpus__passage_characters=9), run, print)


@pytest.mark.parametrize(("characters", "documents"), [(0, 1), (1, 60), (100, 30)])
def test_each_passage_ends_with_the_separator(tiny: Config, tmp_path: Path, characters: int, documents: int) -> None:
    """What precedes every text that a model writes is in the training text as often as texts begin."""
    line = TEXT[:59]
    (tmp_path / "rows.txt").write_text(f"{line}\n\n" * 60)
    config = local(tiny, tmp_path / "rows.txt", corpus__passage_characters=characters)
    prepared = prepare(config, RunFolder(tmp_path / "run"), print)
    ids = [id for split in (prepared.train, prepared.validation) for id in split.read(0, len(split)).tolist()]
    assert ids.count(prepared.end_of_text) == documents + 1
    assert prepared.tokenizer.decode([id for id in ids if id != prepared.end_of_text]) == f"{line}\n\n" * 60


def test_the_characters_lie_beside_a_character_tokenizer(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("b\ta\u2028\u00e9\\ " + TEXT, encoding="utf-8")
    config = local(tiny, tmp_path / "a.txt", tokenizer__kind="characters", data__split="text")
    run = RunFolder(tmp_path / "run")
    tokenizer = prepare(config, run, print).tokenizer
    lines = run.vocabulary.read_text(encoding="utf-8").split("\n")[:-1]
    assert lines[:4] == ["\\t", " ", "!", "."]
    assert lines[-4:] == ["\u00e9", "\\u2028", "[UNK]", "<|endoftext|>"]
    assert len(lines) == len(tokenizer)
    assert [lines.index(line) for line in ("\\", "b")] == tokenizer.convert_tokens_to_ids(["\\", "b"])


def test_a_tokenizer_that_exists_already(tiny: Config, finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    config = local(tiny, tmp_path / "a.txt", tokenizer__path=finished_run / "tokenizer")
    prepare(config, RunFolder(tmp_path / "run"), print)
    for name in ("tokenizer.json", "slow/merges.txt"):
        assert (tmp_path / "run/tokenizer" / name).read_bytes() == (finished_run / "tokenizer" / name).read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("A word or two, " * 4, r"the corpus is too short: expected at least 34 training tokens .* got \d\d; give"),
        ("Too short.", "the corpus is too short: expected at least 34 training tokens .* got a text of 10 bytes"),
    ],
)
def test_a_corpus_that_does_not_do(tiny: Config, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        prepare(local(tiny, tmp_path / "a.txt"), RunFolder(tmp_path / "run"), print)
    assert not list(tmp_path.rglob("*.tmp"))


def test_no_corpus_says_what_to_do(tiny: Config, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name files or folders with --corpus PATH"):
        prepare(with_fields(tiny, corpus__source="local"), RunFolder(tmp_path), print)


CHOICES = r"\. Keep the old .*--keep-tokens \(make demo: KEEP_TOKENS=1\)\. Train anew.*another --run-dir"


def test_a_corpus_that_has_changed_is_refused_unless_its_tokens_are_kept(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in ("a.txt", "b.txt"):
        (texts / name).write_text(name + TEXT)
    run = RunFolder(tmp_path / "run")
    config = local(tiny, texts)
    before = prepare(config, run, print)
    recorded = read_manifest(run.tokens)
    assert recorded is not None
    assert [Path(source["path"]).name for source in recorded["sources"]] == ["a.txt", "b.txt"]
    (texts / "a.txt").touch()
    prepare(config, run, print)

    (texts / "a.txt").write_text(TEXT.replace("cat", "cow"))
    (texts / "b.txt").rename(texts / "c.txt")
    changes = r"1 file added \(.*c\.txt\), 1 file removed \(.*b\.txt\), 1 file edited \(.*a\.txt\)"
    with pytest.raises(ValueError, match=f"has changed since: {changes}{CHOICES}"):
        prepare(config, run, print)
    said: list[str] = []
    kept = prepare(with_fields(config, run__keep_tokens=True), run, said.append)
    assert len(kept.train) == len(before.train)
    assert len(said) == 1
    assert re.search(rf"the text has changed \({changes}\); keeping the tokens of the old text$", said[0])

    def command(*flags: str) -> str:
        monkeypatch.setattr(sys, "argv", ["sources", str(run.path), *flags])
        sources.main()
        return capsys.readouterr().out

    with pytest.raises(SystemExit, match=f"error: {run.path}: .*{changes}{CHOICES}"):
        command()
    assert "keeping the tokens of the old text" in command("--keep-tokens")
    shutil.rmtree(texts)
    with pytest.raises(SystemExit, match=r"has changed since: .*texts: no such file or folder"):
        command()
    write_manifest(run.tokens, {key: value for key, value in recorded.items() if key != "sources"})
    assert "made before checksums were kept" in command()
    shutil.rmtree(run.tokens)
    assert "has no tokens (any more)" in command()


def test_a_corpus_that_changes_before_its_tokens_are_complete_is_refused(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokenizer, and a part of the tokens, are of the text as it was."""
    (tmp_path / "a.txt").write_text(TEXT)
    config, run = local(tiny, tmp_path / "a.txt"), RunFolder(tmp_path / "run")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ShardEncoder, "_append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(config, run, print)
    (tmp_path / "a.txt").write_text("Another text. " * 100)
    with pytest.raises(ValueError, match=r"1 file edited \(.*a\.txt\)\. Train anew") as refused:
        prepare(with_fields(config, run__keep_tokens=True), run, print)
    assert "--keep-tokens" not in str(refused.value)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
@pytest.mark.parametrize("ends", [True, False])
def test_a_corpus_that_is_encoded_already_is_not_encoded_again(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, ends: bool
) -> None:
    """The shards of ids that `tokenization encode` wrote, and of the text itself, are the same."""
    texts, folder, array = tmp_path / "texts", tmp_path / "tokenizer", tmp_path / "ids.npy"
    texts.mkdir()
    for name in ("a.txt", "b.txt"):
        (texts / name).write_text(TEXT + name)
    tokenization(["train", kind, "--corpus", str(texts), "--vocab-size", "300", "--out", str(folder)])
    tokenization(["encode", str(folder), str(texts), "--out", str(array), *(["--end"] if ends else [])])
    config = local(tiny, array, tokenizer__path=folder, data__validation_chunk=500)
    if kind == "wordpiece":
        with pytest.raises(ValueError, match=r"whose tokens represent bytes.*the text itself, where the corpus is a"):
            prepare(config, RunFolder(tmp_path / "run"), print)
        return
    monkeypatch.setattr(encoding, "BLOCK", 300)
    monkeypatch.setattr(encoding, "encode_corpus", None)
    said: list[str] = []
    prepared = prepare(config, RunFolder(tmp_path / "run"), said.append)
    divided = "" if ends else "; nothing divides the texts (`encode --end` would)"
    assert said[1] == f"{array}: {len(np.load(array)):,} tokens of 2 texts, encoded before{divided}"
    monkeypatch.undo()
    expected = prepare(local(config, texts), RunFolder(tmp_path / "text"), print)
    if ends:
        for name in ("train", "validation"):
            split, other = getattr(prepared, name), getattr(expected, name)
            assert (split.bytes, split.documents) == (other.bytes, other.documents)
            assert split.read(0, len(split)).tolist() == other.read(0, len(other)).tolist()

    (texts / "a.txt").write_text("other")
    said.clear()
    prepare(with_fields(config, data__split="text"), RunFolder(tmp_path / "again"), said.append)
    assert said[2] == "ids are split by tokens: the end of each 500 validates"
    assert "its texts have changed since it was written (1 file edited (" in said[3]
    other = tmp_path / "other"
    tokenization(["train", kind, "--corpus", str(texts / "b.txt"), "--vocab-size", "290", "--out", str(other)])
    with pytest.raises(ValueError, match=r"ids\.npy: expected ids of this run's tokenizer, got those of another"):
        prepare(local(config, array, tokenizer__path=other), RunFolder(tmp_path / "other-run"), print)
    np.save(array, np.load(array)[:-1])
    with pytest.raises(ValueError, match=r"ids\.npy: expected [\d,]+ tokens, as ids\.npy\.json says, got an array of"):
        prepare(config, RunFolder(tmp_path / "cut"), print)
    array.with_name("ids.npy.json").unlink()
    with pytest.raises(ValueError, match=r"expected ids\.npy\.json beside it, .* got none: write it again"):
        prepare(config, RunFolder(tmp_path / "bare"), print)


def test_a_damaged_record_of_the_encoding_is_named_and_begins_it_again(tiny: Config, tmp_path: Path) -> None:
    run, lines = RunFolder(tmp_path), list[str]()
    prepare(tiny, run, lines.append)
    whole = {path.name: path.read_bytes() for path in run.tokens.glob("*.npy")}
    (run.tokens / "manifest.json").unlink()
    (run.tokens / PROGRESS).write_text('{"checksum": "0", "made_from": {}}')  # as if the encoding had been stopped
    prepare(tiny, run, lines.append)
    named = f"{run.tokens / PROGRESS}: expected the file as it was written, but progress.json does not have"
    assert [line for line in lines if line.startswith(named) and line.endswith("encoded from its beginning.")]
    assert {path.name: path.read_bytes() for path in run.tokens.glob("*.npy")} == whole
