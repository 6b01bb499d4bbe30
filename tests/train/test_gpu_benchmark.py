"""The benchmark for GPUs, in small on the CPU: the same program."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks._sections import SOFT_SHARE, Section, run_sections
from benchmarks.gpu import Shape
from benchmarks.systems import SYSTEMS
from storage.records import read_jsonl
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
    assert result["device"]["name"] == "cpu"
    assert read_jsonl(tmp_path / "runs" / "results.jsonl") == [
        {"section": name, **measured} for name, measured in result.items()
    ]
    steps = result["steps of tiny"]
    rates = {name: steps[f"{name}, tokens per second"] for name in ("ours", "ours, compiled", "GPT-2, compiled")}
    assert min(rates.values()) > 0
    fastest = max(rates["ours"], rates["ours, compiled"])
    assert steps["speedup"] == pytest.approx(fastest / rates["GPT-2, compiled"], rel=0.05, abs=0.01)
    for name in SYSTEMS:
        assert result[name]["steps"] == "2 of 2"
        assert RunFolder(tmp_path / "runs" / name).state["status"] == "finished"
        assert 0 < result[name]["validation loss"] < 10


def measure_twice(number: int, *, seconds: float) -> dict[str, Any]:
    return {"twice": 2 * number, "planned": seconds}


def fail(*, seconds: float) -> dict[str, Any]:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def die(*, seconds: float) -> dict[str, Any]:
    os._exit(3)


def hang(*, seconds: float) -> dict[str, Any]:
    time.sleep(600)
    return {}


def fail_in_part(*, seconds: float) -> dict[str, Any]:
    return {"known": 1, "errors": {"ours": "no memory"}}


def test_a_section_that_fails_takes_no_other_with_it() -> None:
    """Whether it raises, its process dies or it does not end; each is reported before the next one begins."""
    sections = [
        Section(name="first", measure=measure_twice, arguments=(4,)),
        Section(name="raises", measure=fail),
        Section(name="dies", measure=die),
        Section(name="hangs", measure=hang, share=0.01),
        Section(name="in part", measure=fail_in_part),
        Section(name="last", measure=measure_twice, arguments=(5,)),
    ]
    reported: list[tuple[str, dict[str, Any]]] = []
    results, failed = run_sections(sections, 300.0, lambda name, result: reported.append((name, result)))
    assert reported == list(results.items())
    assert list(results) == [section.name for section in sections]
    assert failed == ["raises", "dies", "hangs", "in part"]
    assert (results["first"]["twice"], results["last"]["twice"]) == (8, 10)
    # A share of the time of its own, and what the others have left over.
    assert results["first"]["planned"] == pytest.approx(SOFT_SHARE * 300 / 5.01, rel=0.01)
    assert results["first"]["planned"] < results["last"]["planned"] < SOFT_SHARE * 300
    error = results["raises"]["error"]
    assert error["type"] == "RuntimeError"
    assert error["message"] == "CUDA error: an illegal memory access was encountered"
    assert error["traceback"][-1] == f"RuntimeError: {error['message']}"
    assert any("in fail" in line for line in error["traceback"])
    assert results["dies"]["error"]["type"] == "ChildProcessError"
    assert "exit code 3" in results["dies"]["error"]["message"]
    assert results["hangs"]["error"]["type"] == "TimeoutError"


def test_what_failed_is_printed_at_once_and_named_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Shape(vocabulary=300, width=32, layers=2, heads=0, length=16, windows=4)
    monkeypatch.setattr(gpu, "TINY", {"broken": broken})
    monkeypatch.setattr(gpu, "SYSTEMS", ("scifi",))
    words = ["--corpus", str(tmp_path), "--out", str(tmp_path / "runs"), "--device", "cpu", "--tiny"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *words])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == "error: 2 of 3 sections failed: steps of broken, scifi"
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["section"] for line in lines[:-1]] == ["device", "steps of broken", "scifi"]
    assert read_jsonl(tmp_path / "runs" / "results.jsonl") == lines[:-1]
    assert lines[0]["name"] == "cpu"
    assert lines[1]["error"]["type"] == "ZeroDivisionError"
    assert lines[2]["error"]["type"] == "ValueError"


def test_a_model_that_fails_leaves_the_others_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: Any) -> Any:
        raise RuntimeError("the compiler is broken")

    monkeypatch.setattr(torch, "compile", broken)
    result = gpu.compare_steps(gpu.TINY["tiny"], torch.device("cpu"), 3, 1, seconds=0.0)
    assert list(result["errors"]) == [gpu.OURS_COMPILED, gpu.GPT2_COMPILED]
    assert result["errors"][gpu.OURS_COMPILED]["message"] == "the compiler is broken"
    assert result["ours, tokens per second"] > 0
    assert result["rounds"] == 1  # of three: the time is over
    assert "speedup" not in result


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_said() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: --run.device: expected auto or one of what this machine has (cpu), got 'cuda'"
    )
