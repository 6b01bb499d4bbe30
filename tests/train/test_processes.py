"""`python -m train` in several processes, as `accelerate launch` starts them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.utils import DistributedType

from tests.train.conftest import with_fields
from train.machine import check_processes
from train.recipe import Config
from train.report import read_lines

ROOT = Path(__file__).parents[2]
LAUNCH = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
LAUNCH = (*LAUNCH, "--mixed_precision", "no", "--dynamo_backend", "no", "-m")


def train_debug(run_dir: Path, *flags: str, launched: bool) -> list[dict[str, float]]:
    """Run the recipe `debug`; what metrics.jsonl says."""
    command = [sys.executable, "-m", *(LAUNCH if launched else ()), "train", "debug", "--run-dir", str(run_dir), *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return list(read_lines(run_dir / "metrics.jsonl"))


def same_curve(one: list[dict[str, float]], other: list[dict[str, float]]) -> bool:
    keys = ("step", "tokens_seen", "train_loss", "validation_loss", "learning_rate")
    numbers = [[line[key] for line in lines for key in keys if key in line] for lines in (one, other)]
    return numbers[0] == pytest.approx(numbers[1], rel=1e-4)


@pytest.mark.slow
def test_two_processes_have_the_curve_of_one_with_accumulation(tmp_path: Path):
    flags = ("--data.gradient-accumulation-steps", "4")
    alone = train_debug(tmp_path / "alone", launched=False)
    assert len(alone) == 20
    assert same_curve(train_debug(tmp_path / "together", *flags, launched=True), alone)


@pytest.mark.slow
def test_two_processes_have_the_curve_of_one_over_a_resume(tmp_path: Path):
    curves = []
    for name, launched in (("alone", False), ("together", True)):
        train_debug(tmp_path / name, "--steps", "10", launched=launched)
        curves.append(train_debug(tmp_path / name, "--resume", launched=launched))
    assert len(curves[0]) == 20
    assert same_curve(*curves)


def launched(kind: DistributedType, processes: int) -> Any:
    return SimpleNamespace(distributed_type=kind, num_processes=processes)


def test_processes_that_cannot_share_a_run(tiny: Config, fresh_run_dir: Callable[[str], Path]):
    check_processes(tiny, launched(DistributedType.NO, 1))
    check_processes(tiny, launched(DistributedType.MULTI_GPU, 4))
    with pytest.raises(ValueError, match=r"at least one text of a micro-batch for each of 8 processes, got 4: raise"):
        check_processes(tiny, launched(DistributedType.MULTI_GPU, 8))
    halved = with_fields(tiny, data__gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="for each of 3 processes, got 2"):
        check_processes(halved, launched(DistributedType.MULTI_CPU, 3))
    with pytest.raises(ValueError, match="expected plain data parallelism from accelerate launch, got FSDP"):
        check_processes(tiny, launched(DistributedType.FSDP, 2))
