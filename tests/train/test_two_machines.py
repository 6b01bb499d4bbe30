"""`python -m train` on two machines, as `accelerate launch` starts it on each.

Two network namespaces stand in for them: each has an address, and they have nothing in common but the file system.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.two_machines import machines as two_machines
from benchmarks.two_machines import train_on
from storage.records import read_jsonl
from tests.train.test_processes import same_curve

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machines() -> Iterator[list[str]]:
    """Their names; a test of them is skipped where there cannot be any."""
    try:
        with two_machines() as names:
            yield names
    except ValueError as error:
        pytest.skip(str(error))


def test_two_machines_have_the_curve_of_one_also_over_a_resume(machines: list[str], tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    command = [sys.executable, "-m", "train", "debug", "--run-dir", str(alone)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    for flags in ((), ("--steps", "24", "--resume")):
        for status, output in train_on(machines, [shared, shared], ["debug", *flags]):
            assert status == 0, output[-3000:]
    assert "in 2 processes (DDP)" in (shared / "train.log").read_text()
    expected, together = (read_jsonl(run / "metrics.jsonl") for run in (alone, shared))
    assert same_curve(together[: len(expected)], expected)
    assert together[-1]["step"] == 24


def test_machines_with_different_run_folders_are_told_before_the_first_step(
    machines: list[str], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for status, output in train_on(machines, [first, second], ["debug", "--steps", "10"]):
        assert status == 0, output[-3000:]  # the same text on both: nothing to share until there are checkpoints
    assert (first / "checkpoints" / "step-000010").is_dir()
    assert not (second / "checkpoints").exists()
    before = (first / "metrics.jsonl").read_bytes()
    for status, output in train_on(machines, [first, second], ["debug", "--resume"]):
        assert status != 0
        assert "expected the same run folder on every machine, got folders at steps [10, 0]" in " ".join(output.split())
    assert (first / "metrics.jsonl").read_bytes() == before


def test_machines_without_a_shared_folder_make_the_tokens_once_each(machines: list[str], tmp_path: Path) -> None:
    """Two processes on each: the second must not make them beside the first, in the same folder."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for status, output in train_on(machines, folders, ["debug", "--steps", "2"], processes=2):
        assert status == 0, output[-3000:]
    assert "in 4 processes (DDP)" in (folders[0] / "train.log").read_text()
    assert all((folder / "tokens" / "manifest.json").is_file() for folder in folders)


def test_machines_that_choose_different_precisions_are_told(machines: list[str], tmp_path: Path) -> None:
    """As one does whose CPU has bf16 beside one whose CPU has not."""
    flags = [["debug", "--steps", "2", "--run.precision", name] for name in ("fp32", "bf16")]
    for status, output in train_on(machines, [tmp_path / "shared"] * 2, *flags):
        assert status != 0
        said = " ".join(output.split())
        assert "--run.precision: expected the same for every process, got fp32, bf16; name one on every machine" in said
    assert not (tmp_path / "shared" / "checkpoints").exists()
