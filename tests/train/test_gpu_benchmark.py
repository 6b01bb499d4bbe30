"""The benchmark for GPUs, in small on the CPU: the same program."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.systems import SYSTEMS
from storage.run_folder import RunFolder
from tests.serving import ROOT
from tests.train.conftest import TEXT


@pytest.mark.slow
def test_every_shape_and_every_recipe_is_measured(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "lamps.txt").write_text(TEXT * 10, encoding="utf-8")
    words = ("--corpus", tmp_path / "text", "--out", tmp_path / "runs", "--device", "cpu", "--tiny")
    command = [sys.executable, "-m", "benchmarks.gpu", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["device"] == "cpu"
    steps = result["steps of tiny"]
    rates = {name: steps[f"{name}, tokens per second"] for name in ("ours", "ours, compiled", "GPT-2, compiled")}
    assert min(rates.values()) > 0
    fastest = max(rates["ours"], rates["ours, compiled"])
    assert steps["speedup"] == pytest.approx(fastest / rates["GPT-2, compiled"], rel=0.05, abs=0.01)
    for name in SYSTEMS:
        assert result[name]["steps"] == "2 of 2"
        assert RunFolder(tmp_path / "runs" / name).state["status"] == "finished"
        assert 0 < result[name]["validation loss"] < 10


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_said() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: --run.device: expected auto or one of what this machine has (cpu), got 'cuda'"
    )
