"""Which checkpoints of a run are kept."""

from pathlib import Path

import pytest

from storage.run_folder import RunFolder
from train.checkpoint import prune


@pytest.mark.parametrize(
    ("best", "kept"), [(None, [40, 50]), (20, [20, 40, 50]), (50, [40, 50])], ids=["none", "an early one", "the last"]
)
def test_the_latest_and_the_best_are_kept(tmp_path: Path, best: int | None, kept: list[int]) -> None:
    for step in (10, 20, 30, 40, 50):
        folder = tmp_path / "checkpoints" / f"step-{step:06}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    run = RunFolder(tmp_path)
    prune(run, keep=2, best_step=best)
    assert list(run.checkpoints()) == kept
