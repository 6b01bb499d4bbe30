"""Errors that end a training: run.json says that it failed and why, and the run goes on from its checkpoint."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from train.config import Config
from train.loop import Trainer, train


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
