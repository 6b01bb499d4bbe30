"""`python -m train` in several processes, as `accelerate launch` starts them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from storage.records import read_jsonl
from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from train.config import Config
from train.device import check_processes

ROOT = Path(__file__).parents[2]
DDP = ("--multi_gpu",)
FSDP = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP")
HOW = pytest.mark.parametrize(
    "how",
    [
        pytest.param(DDP, id="ddp"),
        # accelerate shards on GPUs alone.
        pytest.param(FSDP, id="fsdp", marks=pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")),
    ],
)
TWO = ("--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
TWO = (*TWO, "--main_process_port", "0", "-m")


def train_debug(run_dir: Path, *flags: str, launched: tuple[str, ...] | None) -> list[dict[str, float]]:
    """Run the recipe `debug`, alone or with these options of `accelerate launch`; what metrics.jsonl says."""
    launcher = ("accelerate.commands.launch", *launched, *TWO) if launched else ()
    command = [sys.executable, "-m", *launcher, "train", "debug", "--run-dir", str(run_dir), *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return list(read_jsonl(run_dir / "metrics.jsonl"))


def same_curve(one: list[dict[str, float]], other: list[dict[str, float]], rel: float = 1e-4) -> bool:
    keys = ("step", "tokens_seen", "train_loss", "validation_loss", "learning_rate", "gradient_norm")
    numbers = [[line[key] for line in lines for key in keys if key in line] for lines in (one, other)]
    return numbers[0] == pytest.approx(numbers[1], rel=rel)


def same_weights(one: Path, other: Path, rtol: float, atol: float) -> bool:
    left, right = (load_file(run / "checkpoints/step-000020/model.safetensors") for run in (one, other))
    return left.keys() == right.keys() and all(
        torch.allclose(left[name], right[name], rtol=rtol, atol=atol) for name in left
    )


@pytest.mark.slow
@HOW
def test_two_processes_have_the_curve_of_one_also_over_a_resume(how: tuple[str, ...], tmp_path: Path) -> None:
    """The shape is one whose matrices do not halve evenly; a run of two processes may also continue in one."""
    shape = ("--model.num-attention-heads", "3", "--model.head-dim", "10", "--model.intermediate-size", "45")
    shape = (*shape, "--data.gradient-accumulation-steps", "4")
    alone, together = tmp_path / "alone", tmp_path / "together"
    expected = train_debug(alone, *shape, launched=None)
    assert len(expected) == 20
    train_debug(together, *shape, "--steps", "10", launched=how)
    shutil.copytree(together, tmp_path / "parted")
    kind = "sharded" if how == FSDP else "DDP"
    assert f"in 2 processes ({kind})" in (together / "train.log").read_text()
    # The schedule of 10 steps is not that of the first 10 of 20.
    assert same_curve(train_debug(together, *shape, "--resume", launched=how)[:5], expected[:5])
    parted = train_debug(tmp_path / "parted", *shape, "--resume", launched=None)
    assert same_curve(read_jsonl(together / "metrics.jsonl"), parted)
    assert same_weights(together, tmp_path / "parted", 1e-3, 1e-5)


@pytest.mark.slow
@HOW
def test_each_process_resumes_with_its_own_dropout(how: tuple[str, ...], tmp_path: Path) -> None:
    """An interrupted run of two processes equals an unbroken one, with dropout on."""
    flags = ("--model.residual-dropout", "0.3", "--model.attention-dropout", "0.3", "--run.keep-checkpoints", "5")
    unbroken = train_debug(tmp_path / "unbroken", *flags, launched=how)
    states = load_file(tmp_path / "unbroken/checkpoints/step-000010/training/optimizer.safetensors")
    assert not torch.equal(states["random/cpu"], states["random/process-1/cpu"])
    # As if the process had been killed after step 10.
    shutil.copytree(tmp_path / "unbroken", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken/checkpoints/step-000020")
    assert same_curve(train_debug(tmp_path / "broken", *flags, "--resume", launched=how), unbroken, rel=0)
    assert same_weights(tmp_path / "broken", tmp_path / "unbroken", 0, 0)


SPOILED = """
import math, sys
from train.__main__ import main
from train.loop import Trainer

do_step = Trainer._step

def step(trainer):
    if trainer.state.step == 6 and trainer.accelerator.process_index == 1:
        layer = trainer.unwrapped.get_submodule("model.layers.1.mlp.down_proj")
        layer.register_forward_hook(lambda module, inputs, output: output * math.nan)
    try:
        do_step(trainer)
    except ValueError as error:
        print(f"process {trainer.accelerator.process_index}: {error}", flush=True)
        trainer.accelerator.wait_for_everyone()  # the launcher ends the others as soon as one has ended
        raise

Trainer._step = step
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_numbers_that_go_wrong_in_one_process_stop_all(tmp_path: Path) -> None:
    """Each says where, nothing is saved, and without the batch the run goes on as one that never had it."""
    script, broken, asked = tmp_path / "spoiled.py", tmp_path / "broken", tmp_path / "asked"
    script.write_text(SPOILED)
    flags = ("--run.checkpoint-every", "5", "--run.keep-checkpoints", "9")
    command = [sys.executable, "-m", "accelerate.commands.launch", *DDP, *TWO[:-1], str(script), "debug"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*command, "--run-dir", str(broken), *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode, done.stderr[-3000:]
    found = "the loss of step 7 is not finite: expected a number like those before it, got nan, found in "
    for process in range(2):
        assert f"process {process}: {found}model.layers.1.mlp.down_proj, with batch 7 (" in done.stdout, done.stderr
    run = RunFolder(broken)
    assert list(run.checkpoints()) == [5]
    assert run.state["status"] == "failed"
    assert run.state["resume_command"].endswith("--resume --run.skip-batches 7")
    train_debug(broken, *flags, "--resume", "--run.skip-batches", "7", launched=DDP)
    train_debug(asked, *flags, "--run.skip-batches", "7", launched=DDP)
    assert same_weights(broken, asked, 0, 0)


@pytest.mark.slow
def test_processes_wait_for_one_that_prepares_a_large_text(tmp_path: Path) -> None:
    """By torch's default they would give up after half an hour, on GPUs after ten minutes."""
    script = tmp_path / "waits.py"
    script.write_text(
        "import torch\nfrom train.device import LONGEST_WAIT, make_accelerator\nfrom train.recipes import RECIPES\n"
        "make_accelerator(RECIPES['debug']())\n"
        "group = torch.distributed.group.WORLD\n"
        "assert group.size() == 2\n"
        "assert group._get_backend(torch.device('cpu')).options._timeout == LONGEST_WAIT\n"
        "torch.distributed.destroy_process_group()\n"
    )
    command = [sys.executable, "-m", "accelerate.commands.launch", *DDP, *TWO[:-1], str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def launched(kind: DistributedType, processes: int, *, is_fsdp2: bool = True) -> Any:
    return SimpleNamespace(distributed_type=kind, num_processes=processes, is_fsdp2=is_fsdp2)


def test_processes_that_cannot_share_a_run(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    check_processes(tiny, launched(DistributedType.NO, 1))
    check_processes(tiny, launched(DistributedType.MULTI_GPU, 4))
    with pytest.raises(ValueError, match=r"at least one text of a micro-batch for each of 8 processes, got 4: raise"):
        check_processes(tiny, launched(DistributedType.MULTI_GPU, 8))
    halved = with_fields(tiny, data__gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="for each of 3 processes, got 2"):
        check_processes(halved, launched(DistributedType.MULTI_CPU, 3))
    check_processes(tiny, launched(DistributedType.FSDP, 2))
    with pytest.raises(ValueError, match=r"--run\.compile: expected no with --use_fsdp, got yes"):
        check_processes(with_fields(tiny, run__compile="yes"), launched(DistributedType.FSDP, 2))
    with pytest.raises(ValueError, match="expected data parallelism or FSDP2 from accelerate launch, got DEEPSPEED"):
        check_processes(tiny, launched(DistributedType.DEEPSPEED, 2))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="--use_fsdp: expected processes on GPUs, got CPUs"):
        check_processes(tiny, launched(DistributedType.MULTI_CPU, 2))
    with pytest.raises(ValueError, match=r"got FSDP: leave out.*--fsdp_version 2 and"):
        check_processes(tiny, launched(DistributedType.FSDP, 2, is_fsdp2=False))
