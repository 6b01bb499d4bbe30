"""A training for which memory does not suffice."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from train.__main__ import main
from train.config import Config
from train.device import is_out_of_memory, torch_errors_explained
from train.loop import Trainer, train

MORE_THAN_THERE_IS = 1 << 50


def test_what_torch_says_of_memory_is_known(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(MORE_THAN_THERE_IS)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    on_a_gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of …")
    with (
        pytest.raises(MemoryError, match=r"got 'CUDA out of memory\. Tried to allocate 2\.00 GiB\.'\. Raise --data\."),
        torch_errors_explained(RunFolder(tmp_path)),
    ):
        raise on_a_gpu


def test_a_run_says_what_to_do_and_goes_on_from_its_checkpoint(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(fresh_run_dir("memory"))
    config = with_fields(tiny, run__dir=folder.path)
    step = Trainer._step

    def grow(trainer: Trainer) -> None:
        step(trainer)
        if trainer.state.step == 6:
            torch.empty(MORE_THAN_THERE_IS)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", grow)
        with pytest.raises(MemoryError, match=r"^expected a step that fits into memory, got .*can't allocate memory"):
            train(config, recipe="debug", quiet=True)
    state = folder.peek_state()
    assert state["status"] == "failed"
    assert state["cut_short"].startswith("failed after ")
    assert state["cut_short"].endswith(": out of memory")
    train(with_fields(config, run__resume=True), recipe="debug", quiet=True)
    assert folder.state["step"] == config.run.steps


def test_the_command_ends_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Trainer, "_step", lambda _: torch.empty(MORE_THAN_THERE_IS))
    with pytest.raises(SystemExit) as left:
        main(["debug", "--run-dir", str(tmp_path / "run")])
    assert str(left.value).startswith("error: expected a step that fits into memory, got ")
    assert "with --resume where there is a checkpoint, or give a smaller model or context" in str(left.value)
