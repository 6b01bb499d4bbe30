"""`python -m train` in several processes, as `accelerate launch` starts them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from storage.records import read_jsonl
from tests.train.conftest import with_fields
from train.config import Config
from train.device import check_processes

ROOT = Path(__file__).parents[2]
DDP = ("--multi_gpu",)
FSDP = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP")
TWO = ("--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
TWO = (*TWO, "--main_process_port", "0", "-m")


def train_debug(run_dir: Path, *flags: str, launched: tuple[str, ...] | None) -> list[dict[str, float]]:
    """Run the recipe `debug`, alone or with these options of `accelerate launch`; what metrics.jsonl says."""
    launcher = ("accelerate.commands.launch", *launched, *TWO) if launched else ()
    command = [sys.executable, "-m", *launcher, "train", "debug", "--run-dir", str(run_dir), *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return list(read_jsonl(run_dir / "metrics.jsonl"))


def same_curve(one: list[dict[str, float]], other: list[dict[str, float]]) -> bool:
    keys = ("step", "tokens_seen", "train_loss", "validation_loss", "learning_rate")
    numbers = [[line[key] for line in lines for key in keys if key in line] for lines in (one, other)]
    return numbers[0] == pytest.approx(numbers[1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("how", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_two_processes_have_the_curve_of_one_with_accumulation(how: tuple[str, ...], tmp_path: Path):
    alone = train_debug(tmp_path / "alone", launched=None)
    assert len(alone) == 20
    together = tmp_path / "together"
    assert same_curve(train_debug(together, "--data.gradient-accumulation-steps", "4", launched=how), alone)
    kind = "sharded" if how == FSDP else "DDP"
    assert f"cpu in 2 processes ({kind})" in (together / "train.log").read_text()
    weights = [
        load_file(tmp_path / f"{name}/checkpoints/step-000020/model.safetensors") for name in ("alone", "together")
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("how", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_two_processes_have_the_curve_of_one_over_a_resume(how: tuple[str, ...], tmp_path: Path):
    """The shape is one whose matrices do not halve evenly; a sharded run may also go on in one process."""
    shape = ("--model.num-attention-heads", "3", "--model.head-dim", "10", "--model.intermediate-size", "45")
    alone, together = tmp_path / "alone", tmp_path / "together"
    train_debug(alone, *shape, "--steps", "10", launched=None)
    train_debug(together, *shape, "--steps", "10", launched=how)
    shutil.copytree(together, tmp_path / "parted")
    expected = train_debug(alone, *shape, "--resume", launched=None)
    assert len(expected) == 20
    assert same_curve(train_debug(together, *shape, "--resume", launched=how), expected)
    if how == FSDP:
        assert same_curve(train_debug(tmp_path / "parted", *shape, "--resume", launched=None), expected)


def launched(kind: DistributedType, processes: int, *, is_fsdp2: bool = True) -> Any:
    return SimpleNamespace(distributed_type=kind, num_processes=processes, is_fsdp2=is_fsdp2)


def test_processes_that_cannot_share_a_run(tiny: Config, fresh_run_dir: Callable[[str], Path]):
    check_processes(tiny, launched(DistributedType.NO, 1))
    check_processes(tiny, launched(DistributedType.MULTI_GPU, 4))
    with pytest.raises(ValueError, match=r"at least one text of a micro-batch for each of 8 processes, got 4: raise"):
        check_processes(tiny, launched(DistributedType.MULTI_GPU, 8))
    halved = with_fields(tiny, data__gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="for each of 3 processes, got 2"):
        check_processes(halved, launched(DistributedType.MULTI_CPU, 3))
    check_processes(tiny, launched(DistributedType.FSDP, 2))
    with pytest.raises(ValueError, match=r"--run\.compile: expected False with --use_fsdp, got True"):
        check_processes(with_fields(tiny, run__compile=True), launched(DistributedType.FSDP, 2))
    with pytest.raises(ValueError, match="expected data parallelism or FSDP2 from accelerate launch, got DEEPSPEED"):
        check_processes(tiny, launched(DistributedType.DEEPSPEED, 2))
    with pytest.raises(ValueError, match=r"got FSDP: leave out.*--fsdp_version 2 and"):
        check_processes(tiny, launched(DistributedType.FSDP, 2, is_fsdp2=False))
