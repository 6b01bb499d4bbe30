"""Files that changed on the disk: found when they are read, named, and not trained on without a word."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.checksums import SUMS
from storage.records import append_jsonl, read_json_object, read_jsonl, write_json, write_jsonl
from storage.run_folder import RunFolder
from storage.shards import read_manifest
from tests.train.conftest import with_fields
from train import checkpoint
from train.__main__ import main
from train.checks import recorded_config
from train.config import Config
from train.loop import train

LAST = "checkpoints/step-000012"


@pytest.fixture
def run_dir(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(finished_run, tmp_path / "run")


def flip(path: Path, place: int = -9) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


def resume(tiny: Config, run_dir: Path) -> RunFolder:
    return RunFolder(train(with_fields(tiny, run__dir=run_dir, run__resume=True, run__steps=13), recipe="debug"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "tokens/train-00000.npy",
            r"tokens: expected the token shards as they were written, but train-00000\.npy does",
        ),
        (
            "tokens/validation-00000.npy",
            r"but validation-00000\.npy does not .*Delete the folder, and the same command",
        ),
        ("tokens/manifest.json", r"manifest\.json: expected the file as it was written, .*manifest\.json does not"),
        ("tokenizer/tokenizer.json", r"tokenizer: expected the files as .*but tokenizer\.json does not"),
        ("tokenizer/slow/merges.txt", r"tokenizer: expected the files as .*but slow/merges\.txt does not"),
        (f"{LAST}/model.safetensors", r"model\.safetensors does not have the checksum"),
        (f"{LAST}/training/optimizer.safetensors", r"but training/optimizer\.safetensors does not"),
        (f"{LAST}/training/state.json", r"but training/state\.json does not"),
        (f"{LAST}/config.json", r"but config\.json does not"),
    ],
)
def test_a_flipped_bit_is_found_before_training(tiny: Config, run_dir: Path, name: str, message: str) -> None:
    # A digit of the manifest, so that it stays JSON.
    place = (run_dir / name).read_bytes().index(b'"tokens": ') + 10 if name.endswith("manifest.json") else -9
    flip(run_dir / name, place)
    before = (run_dir / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=message) as refused:
        resume(tiny, run_dir)
    if name.startswith(LAST):
        assert "step-000012: expected a complete checkpoint of this run" in str(refused.value)
        assert "the last good checkpoint is step-000008: delete this folder to resume from there" in str(refused.value)
    assert (run_dir / "metrics.jsonl").read_bytes() == before


def test_the_last_good_checkpoint_may_be_an_earlier_one(tiny: Config, run_dir: Path) -> None:
    checkpoints = list(RunFolder(run_dir).checkpoints().values())
    for folder in checkpoints[1:]:
        flip(folder / "model.safetensors")
    assert RunFolder(run_dir).good_checkpoint() == checkpoints[0]
    offered = rf"the last good checkpoint is {checkpoints[0].name}: delete this folder"
    if len(checkpoints) > 2:
        offered += rf" to resume from there \(and {checkpoints[1].name}, which is damaged too\)"
    with pytest.raises(ValueError, match=offered):
        resume(tiny, run_dir)
    flip(checkpoints[0] / "model.safetensors")
    assert RunFolder(run_dir).good_checkpoint() is None
    with pytest.raises(ValueError, match=r"no other checkpoint is good: delete this folder, and the run begins again"):
        resume(tiny, run_dir)


def test_a_run_of_an_older_version_goes_on_unchecked(tiny: Config, run_dir: Path) -> None:
    """It has no checksums anywhere, and nothing is said of that."""
    for path in run_dir.rglob(SUMS):
        path.unlink()
    manifest = read_manifest(run_dir / "tokens")
    assert manifest
    for split in ("train", "validation"):
        del manifest[split]["sha256"]
    write_json(run_dir / "tokens" / "manifest.json", manifest)
    log = (run_dir / "train.log").read_text()
    assert resume(tiny, run_dir).state["step"] == 13
    assert "checksum" not in (run_dir / "train.log").read_text().removeprefix(log)


def test_changed_metrics_are_named_and_the_run_goes_on(tiny: Config, run_dir: Path) -> None:
    raw = (run_dir / "metrics.jsonl").read_bytes()
    flip(run_dir / "metrics.jsonl", raw.index(b'"train_loss": ') + 16)
    assert resume(tiny, run_dir).state["step"] == 13
    line = "metrics.jsonl does not have the checksum it had when written: the curve or the samples are not those of"
    assert line in (run_dir / "train.log").read_text()


def test_broken_metrics_say_what_to_do(tiny: Config, run_dir: Path) -> None:
    path = run_dir / "metrics.jsonl"
    flip(path, 0)
    with pytest.raises(
        ValueError, match=r"metrics\.jsonl: expected JSON in line 1.*mv .*metrics\.jsonl\.damaged\) and"
    ):
        resume(tiny, run_dir)
    path.rename(run_dir / "metrics.jsonl.damaged")
    assert resume(tiny, run_dir).state["step"] == 13
    assert [line["step"] for line in read_jsonl(path)] == [13]


def test_records_of_a_run_without_a_checkpoint_are_written_again(
    tiny: Config, fresh_run_dir: Callable[[str], Path]
) -> None:
    """As a process leaves them that is killed before its first checkpoint, in the middle of a line."""
    run_dir = fresh_run_dir("killed")
    for step in (1, 2):
        append_jsonl(run_dir / "metrics.jsonl", {"step": step})
    with (run_dir / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 3, "tok')
    run = RunFolder(train(with_fields(tiny, run__dir=run_dir, run__steps=4), recipe="debug"))
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4]


def test_temporaries_of_a_killed_run_are_removed(tiny: Config, run_dir: Path) -> None:
    temporary = run_dir / "checkpoints" / ".step-000013.0123456789ab.tmp"
    temporary.mkdir()
    moved_aside = run_dir / "checkpoints" / ".step-000012.0123456789ab.old"
    (run_dir / LAST).rename(moved_aside)
    run = resume(tiny, run_dir)
    assert run.state["step"] == 13
    assert 12 in run.checkpoints()
    assert not list((run_dir / "checkpoints").glob(".*"))


def test_a_checkpoint_is_pruned_at_once(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it deletes leaves no half of a checkpoint under its name."""
    monkeypatch.setattr("storage.files.shutil.rmtree", lambda *given, **named: None)
    checkpoint.prune(RunFolder(run_dir), keep=1, best_step=None)
    assert [path.name for path in sorted((run_dir / "checkpoints").glob("step-*"))] == ["step-000012"]


@pytest.mark.parametrize("kept", [0, 2])
def test_a_run_that_was_killed_after_its_last_checkpoint_is_finished(tiny: Config, run_dir: Path, kept: int) -> None:
    """Its last samples are written again, those that are there once only."""
    run = RunFolder(run_dir)
    samples = run.samples()
    last = [sample for sample in samples if sample["step"] == 12]
    write_jsonl(run_dir / "samples.jsonl", samples[: len(samples) - len(last) + kept])
    run.write_state(run.state | {"status": "running"})
    train(with_fields(tiny, run__dir=run_dir, run__resume=True), recipe="debug")
    assert RunFolder(run_dir).samples() == samples
    assert RunFolder(run_dir).state["status"] == "finished"


def offered_copy(message: str) -> tuple[str, str]:
    """What a message says to copy, and where to."""
    found = re.search(r"\(cp (\S+) (\S+)\)", message)
    assert found, message
    return found[1], found[2]


@pytest.mark.parametrize(
    ("old", "new"),
    [('"learning_rate": 0.003', '"learning_rate": 0.002'), ('"optimizer"', '"optimizes"'), ('"config"', '"cnnfig"')],
)
@pytest.mark.parametrize("by_file", [True, False])
def test_a_flipped_bit_in_the_recipe_is_found_when_the_run_is_resumed(
    tiny: Config, run_dir: Path, old: str, new: str, by_file: bool
) -> None:
    path = run_dir / "recipe.json"
    intact = path.read_text()
    assert old in intact
    path.write_text(intact.replace(old, new, 1))
    command = [str(path), "--run-dir", str(run_dir), "--resume", "--steps", "13"]

    def again() -> None:
        main(command) if by_file else resume(tiny, run_dir)

    with pytest.raises((SystemExit, ValueError), match=r"recipe\.json") as refused:
        again()
    source, target = offered_copy(str(refused.value))
    assert target == str(path)
    assert Path(source).parent == run_dir / LAST / "training"
    shutil.copyfile(source, target)
    again()
    assert RunFolder(run_dir).state["step"] == 13
    assert RunFolder(run_dir).recipe["config"]["optimizer"]["learning_rate"] == 0.003


def test_a_recipe_that_was_changed_on_purpose_goes_on_without_its_checksum(tiny: Config, run_dir: Path) -> None:
    path = run_dir / "recipe.json"
    lines = path.read_text().replace('"learning_rate": 0.003', '"learning_rate": 0.002').splitlines(keepends=True)
    path.write_text("".join(lines))
    with pytest.raises(ValueError, match=r"changed on purpose, delete the line of its checksum, and it counts as it"):
        resume(tiny, run_dir)
    path.write_text("".join(line for line in lines if "checksum" not in line))
    main([str(path), "--run-dir", str(run_dir), "--resume", "--steps", "13"])
    assert RunFolder(run_dir).state["step"] == 13
    assert RunFolder(run_dir).recipe["config"]["optimizer"]["learning_rate"] == 0.002


def test_a_recipe_that_was_edited_begins_a_new_run_and_a_line_says_so(
    run_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = tmp_path / "my.json"
    mine.write_text((run_dir / "recipe.json").read_text().replace('"learning_rate": 0.003', '"learning_rate": 0.5'))
    main([str(mine), "--run-dir", str(tmp_path / "new"), "--steps", "1"])
    assert RunFolder(tmp_path / "new").recipe["config"]["optimizer"]["learning_rate"] == 0.5
    assert caplog.messages.count(
        f"{mine}: my.json does not have the checksum it had when written: it was edited, or is damaged"
    ) == 1  # fmt: skip


def test_without_a_copy_the_recipe_is_given_by_its_name(tiny: Config, run_dir: Path) -> None:
    """As in runs of older versions, whose recipe.json has no checksum either."""
    copies = list(run_dir.rglob("training/recipe.json"))
    assert len(copies) == len(RunFolder(run_dir).checkpoints())
    for copy in copies:
        copy.unlink()
    for sums in run_dir.glob("checkpoints/*/" + SUMS):
        sums.unlink()
    path = run_dir / "recipe.json"
    content = read_json_object(path)
    del content["checksum"]
    del content["config"]["optimizer"]
    write_json(path, content | {"config": None})
    with pytest.raises(
        ValueError, match=r"recipe\.json: expected the sections of a config.*Move it away \(mv "
    ) as error:
        resume(tiny, run_dir)
    assert f"mv {path} {path}.damaged" in str(error.value)
    path.rename(f"{path}.damaged")
    assert resume(tiny, run_dir).state["step"] == 13


def test_a_flipped_bit_anywhere_in_the_recipe_is_found_or_changes_nothing(run_dir: Path) -> None:
    """It changes nothing in the name of the checksum (the file counts as one without any), or as 1E-06 for 1e-06."""
    path = run_dir / "recipe.json"
    raw, config = path.read_bytes(), RunFolder(run_dir).recipe["config"]
    unseen, named = 0, list[bool]()
    for bit in range(0, 8 * len(raw), 29):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert recorded_config(RunFolder(run_dir)) == config
        except ValueError as error:
            named.append(str(path) in str(error))
        else:
            unseen += 1
    assert all(named)
    assert len(named) > 100 * unseen
