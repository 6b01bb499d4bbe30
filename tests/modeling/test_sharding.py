"""Our model on two processes, data-parallel and sharded, under `accelerate launch`: the curve of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "sharded.py"
# `--cpu` would start one process; without a GPU, accelerate takes gloo on the CPUs by itself.
LAUNCH = ("--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no")
LAUNCH = (*LAUNCH, "--main_process_port", "0")  # a free one


def run(command: list[str], out: Path) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("family", ["classic", "modern"])
def test_two_processes_have_the_curve_of_one(family, tmp_path):
    out = tmp_path / "curve.json"
    alone = run([sys.executable, str(SCRIPT), "ddp", family, str(out)], out)
    assert (alone["processes"], alone["sharded"]) == (1, 0)
    assert alone["losses"][-1] < 0.7 * alone["losses"][0]
    for how in ("ddp", "fsdp"):
        launcher = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH, "--dynamo_backend", "no"]
        together = run([*launcher, str(SCRIPT), how, family, str(out)], out)
        assert together["processes"] == 2
        assert (together["sharded"] > 10) == (how == "fsdp")
        assert together["losses"] == pytest.approx(alone["losses"], rel=2e-4)
