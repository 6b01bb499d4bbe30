"""Old text among the new (`--replay`): what is in a batch, resume, what is measured, refusals."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from storage.records import read_jsonl
from storage.run_folder import RunFolder
from storage.shards import TokenSplit
from tests.train.conftest import with_fields
from tests.train.test_loop import assert_same_run, resume_to_the_end, stop_after
from train.__main__ import main, parse
from train.config import Config
from train.data.batches import RandomWindows
from train.loop import Trainer, train


@pytest.fixture(scope="module")
def config(going_on: Config, finished_run: Path) -> Config:
    """That goes on from the run of `tiny` and replays a quarter of its text."""
    return with_fields(going_on, data__replay=finished_run, data__replay_share=0.25, data__windows="random")


def test_each_batch_has_its_share_of_windows_of_both_texts(config: Config, finished_run: Path, tmp_path: Path) -> None:
    config = with_fields(config, run__dir=tmp_path / "new", data__batch_size=8)
    trainer = Trainer(config, "debug", RunFolder(tmp_path / "new"), quiet=True)
    length, seed = trainer.config.model.max_position_embeddings, config.run.seed
    sources = [
        RandomWindows(TokenSplit.open(place / "tokens", "train"), batch_size=count, length=length, seed=seed)
        for place, count in ((tmp_path / "new", 6), (finished_run, 2))
    ]
    for _ in range(3):
        batch, parts = trainer.batches.next(), [source.next() for source in sources]
        assert torch.equal(batch.input_BL, torch.cat([part.input_BL for part in parts]))
        assert torch.equal(batch.target_BL, torch.cat([part.target_BL for part in parts]))
    said = RunFolder(tmp_path / "new").log.read_text()
    assert "replay: 2 of the 8 windows of each step are from the " in said
    assert f"training tokens of {finished_run.name}\n" in said


@pytest.mark.parametrize("windows", ["random", "shuffled", "packed"])
def test_a_resumed_run_equals_an_unbroken_one_and_says_what_is_known_of_the_old_text(
    windows: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_fields(config, data__windows=windows)
    unbroken = train(with_fields(config, run__dir=tmp_path / "unbroken"), recipe="debug")
    broken = with_fields(config, run__dir=tmp_path / "broken")
    with monkeypatch.context() as patch:
        stop_after(5, patch)
        train(broken, recipe="debug")
    resume_to_the_end(broken, [10], monkeypatch)
    assert_same_run(tmp_path / "broken", unbroken)
    evaluated = [line for line in read_jsonl(unbroken / "metrics.jsonl") if "validation_loss" in line]
    assert evaluated
    assert all(line["replay_validation_loss"] > 0 for line in evaluated)
    assert f"validation loss {evaluated[-1]['replay_validation_loss']:.4f} on the old text" in (
        RunFolder(unbroken).log.read_text()
    )


def test_less_is_forgotten(config: Config, tmp_path: Path) -> None:
    losses = []
    for name, share in (("little", 0.25), ("much", 0.75)):
        given = with_fields(config, data__replay_share=share, run__dir=tmp_path / name, run__steps=60)
        run = train(with_fields(given, optimizer__learning_rate=1e-2), recipe="debug", quiet=True)
        losses.append(read_jsonl(run / "metrics.jsonl")[-1])
    assert losses[1]["replay_validation_loss"] < losses[0]["replay_validation_loss"]
    assert losses[1]["validation_loss"] > losses[0]["validation_loss"]


def test_the_command_line_makes_the_path_absolute(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished_run.parent)
    _, config = parse(["debug", "--from", finished_run.name, "--replay", finished_run.name])
    assert config.data.replay == finished_run.resolve()
    with pytest.raises(SystemExit, match=r"--replay .*: expected it with --from, whose model knows that text"):
        main(["debug", "--replay", finished_run.name])
    with pytest.raises(SystemExit, match=r"--data\.replay-share: expected it with --replay only"):
        main(["debug", "--from", finished_run.name, "--data.replay-share", "0.5"])


@pytest.mark.parametrize("name", ["train", "validation"])
def test_a_flipped_bit_in_the_old_text_is_found(name: str, config: Config, finished_run: Path, tmp_path: Path) -> None:
    """In what is replayed, and in what is measured; the message has the command that makes it again."""
    old = shutil.copytree(finished_run, tmp_path / "old")
    shard = old / "tokens" / f"{name}-00000.npy"
    raw = bytearray(shard.read_bytes())
    raw[-9] ^= 1
    shard.write_bytes(raw)
    given = with_fields(config, data__replay=old, run__dir=tmp_path / "new")
    with pytest.raises(ValueError, match=rf"{old}/tokens: expected .* but {name}-00000\.npy does not") as refused:
        train(given, recipe="debug")
    command = re.search(r"Delete the folder, and `python -m train (.*)` makes it again", str(refused.value))
    assert command is not None
    shutil.rmtree(old / "tokens")
    main(shlex.split(command[1]))
    with pytest.raises(ValueError, match="at least one window"):  # the shards are as they were
        train(with_fields(given, data__replay_share=0.01), recipe="debug")


def test_what_cannot_be_replayed_is_refused(config: Config, tiny: Config, tmp_path: Path) -> None:
    other = with_fields(tiny, tokenizer__vocab_size=280, run__steps=1, run__dir=tmp_path / "other")
    train(other, recipe="debug", quiet=True)

    def refusal(**changes: object) -> str:
        with pytest.raises(ValueError, match=r"--(replay|data\.replay-share)") as refused:
            Trainer(with_fields(config, run__dir=tmp_path / "new", **changes), "debug", RunFolder(tmp_path / "new"))
        return str(refused.value)

    assert "expected the folder of a run, whose tokens/ are there, got none" in refusal(data__replay=tmp_path / "none")
    assert "expected tokens of the vocabulary of --from" in refusal(data__replay=tmp_path / "other")
    share = refusal(data__replay_share=0.01)
    assert "expected a share that is at least one window of a batch of 4 and leaves one to the new text" in share
    assert "got 0.01, which is 0" in share
    assert "got 0.99, which is 4" in refusal(data__replay_share=0.99)
