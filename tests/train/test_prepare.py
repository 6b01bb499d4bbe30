"""Text → tokenizer → shards in a run folder."""

import json
from pathlib import Path

import pytest

from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from train.config import Config
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
    del manifest["made_from"]["corpus"]["passage_characters"]
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
    [("", "empty"), ("Too short.", "the corpus is too short: expected at least 34 training tokens .* got 5")],
)
def test_a_corpus_that_does_not_do(tiny: Config, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        prepare(local(tiny, tmp_path / "a.txt"), RunFolder(tmp_path / "run"), print)
    assert not list(tmp_path.rglob("*.tmp"))


def test_no_corpus_says_what_to_do(tiny: Config, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name files or folders with --corpus PATH"):
        prepare(with_fields(tiny, corpus__source="local"), RunFolder(tmp_path), print)
