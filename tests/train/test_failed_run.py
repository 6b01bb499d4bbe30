"""Runs that failed, or that earlier versions began, go on from their checkpoint; run.json says why they ended."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from train.config import Config
from train.loop import Trainer, train
from train.recipes import get_recipe
from train.run import Run


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/home/me/run/metrics.jsonl"), "No space left on device"),
        (ValueError("expected a batch, got none"), "ValueError: expected a batch, got none"),
        (ValueError("/home/me/book.txt: it has changed"), "ValueError"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "mat1 and mat2 shapes cannot be multiplied"),
        (MemoryError(), "out of memory"),
        (KeyboardInterrupt(), "interrupted"),
        (KeyError(), "KeyError"),
    ],
)
def test_any_error_is_in_the_state_and_the_run_goes_on(
    tiny: Config,
    fresh_run_dir: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    reason: str,
) -> None:
    folder = RunFolder(fresh_run_dir("failed"))
    config = with_fields(tiny, run__dir=folder.path)
    step = Trainer._step

    def fail(trainer: Trainer) -> None:
        step(trainer)
        if trainer.state.step == 6:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", fail)
        with pytest.raises(type(error)) as raised:
            train(config, recipe="debug", quiet=True)
    assert raised.value is error
    state = folder.peek_state()
    assert state["status"] == "failed"
    assert state["cut_short"].startswith("failed after 6 of ")
    assert state["cut_short"].endswith(reason)
    assert "/home" not in state["cut_short"]
    assert state["resume_command"].endswith("--resume")
    train(with_fields(config, run__resume=True), recipe="debug", quiet=True)
    assert (folder.state["status"], folder.state["step"]) == ("finished", config.run.steps)


def test_a_folder_that_is_deleted_meanwhile_ends_the_run_and_is_not_made_again(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state cannot be written either, and that error does not hide the first one."""
    folder = fresh_run_dir("deleted")
    step = Trainer._step

    def delete(trainer: Trainer) -> None:
        step(trainer)
        if trainer.state.step == 2:
            shutil.rmtree(folder)

    monkeypatch.setattr(Trainer, "_step", delete)
    with pytest.raises(OSError, match=r"deleted: expected the folder that this process began in, but it was deleted"):
        train(with_fields(tiny, run__dir=folder), recipe="debug", quiet=True)
    assert not folder.exists()


def test_a_state_that_is_deleted_is_written_again(tiny: Config, finished_run: Path, tmp_path: Path) -> None:
    """As the message about a damaged one says."""
    folder = shutil.copytree(finished_run, tmp_path / "run")
    (folder / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json.* Delete it and resume the run, which writes this report again"):
        _ = RunFolder(folder).state
    (folder / "run.json").unlink()
    train(with_fields(tiny, run__dir=folder, run__resume=True), recipe="debug", quiet=True)
    state = RunFolder(folder).state
    assert (state["status"], state["step"]) == ("finished", tiny.run.steps)
    assert state["best_checkpoint"] == RunFolder(finished_run).state["best_checkpoint"]


def test_a_finished_run_stays_finished_where_its_long_sample_fails(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(fresh_run_dir("sample"))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("train.samples.Samples.write_output", full)
    with pytest.raises(OSError, match="No space left"):
        train(with_fields(tiny, run__dir=folder.path, run__output_tokens=5), recipe="debug", quiet=True)
    assert folder.state["status"] == "finished"
    assert folder.state["cut_short"] is None


def test_a_run_of_an_earlier_version_on_a_text_of_ones_own_goes_on(
    tiny: Config, fresh_run_dir: Callable[[str], Path], tmp_path: Path
) -> None:
    """It recorded `books scifi` for any text that was given to the recipe modern."""
    text = tmp_path / "notes.txt"
    text.write_text("It rained again, and the lamp burned low.\n" * 200)
    config = with_fields(
        tiny,
        run__dir=tmp_path / "run",
        run__steps=2,
        corpus__source="local",
        corpus__paths=(text,),
        corpus__books="scifi",
    )
    train(config, recipe="debug", quiet=True)
    train(with_fields(config, corpus__books="any", run__resume=True, run__steps=3), recipe="debug", quiet=True)
    run = RunFolder(tmp_path / "run")
    assert (run.state["step"], run.recipe["config"]["corpus"]["books"]) == (3, "scifi")
    other = with_fields(config, corpus__books="any", run__resume=True, run__steps=4)
    with pytest.raises(ValueError, match=r"--corpus\.books: the run has 'scifi', asked for 'any'"):
        train(other, recipe="debug", given={"corpus.books"}, quiet=True)


def test_the_minutes_of_an_earlier_version_stay_in_the_record(tmp_path: Path) -> None:
    """It had them in the config; they are kept with what was fitted, or a second resume would not know them."""
    folder = RunFolder(tmp_path / "run")
    folder.tokenizer.mkdir(parents=True)
    folder.write_recipe({"recipe": "modern", "config": {"run": {"minutes": 5.0}}, "fitted": {"run.steps": 9}})
    run: Any = SimpleNamespace(recipe="modern", folder=folder)
    config, fitted, _ = Run._fit(run, with_fields(get_recipe("modern"), run__minutes=5.0), set(), print)
    assert (config.run.steps, config.run.minutes) == (9, 0)
    assert fitted == {"run.minutes": 5.0, "run.steps": 9}
