"""What `python -m train RECIPE --plan` predicts, against what the run then takes: seconds a step, and peak memory.

Each side is a process of its own with the same threads; a recipe is cut to a few steps and asked for no samples.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._report import Goal
from benchmarks.bpe import BOOKS, CHECKOUT
from storage.run_folder import RunFolder

STEPS = {"stories": 120, "modern": 24, "scifi": 24}
"""Steps of each recipe: about half a minute on two cores."""
GOALS = tuple(
    Goal((name, key, "ratio"), at_least=0.8, at_most=1.2) for name in STEPS for key in ("step_seconds", "memory_MiB")
)
PLAN = """
import json, sys
from modeling import wait_passively
wait_passively()
from storage.run_folder import RunFolder
from train.__main__ import parse
from train.pacing.plan import make_plan
name, config = parse(sys.argv[1:])
plan = make_plan(config, RunFolder(config.run.dir), lambda line: None)
print(json.dumps({"step_seconds": plan.step_seconds, "memory_MiB": plan.memory / 2**20}))
"""
RUN = """
import json, sys
from modeling import wait_passively
wait_passively()
from train.__main__ import parse
from train.pacing.plan import peak_memory
from train.loop import train
name, config = parse(sys.argv[1:])
train(config, recipe=name, quiet=True)
import torch
print(json.dumps({"memory_MiB": peak_memory(torch.device("cpu")) / 2**20}))
"""


def run() -> dict[str, Any]:
    """By recipe: seconds a step and MiB that were predicted and measured, and the ratio of the two."""
    results = {}
    for name, steps in STEPS.items():
        with tempfile.TemporaryDirectory() as folder:
            words = [name, "--run-dir", folder, "--steps", str(steps), "--run.max-seconds", "0"]
            words += ["--run.sample-tokens", "0", "--run.output-tokens", "0", "--run.evaluate-every", str(steps)]
            words += ["--run.log-every", "1"]
            if name != "stories":
                words += ["--corpus", str(BOOKS)]
            planned, measured = call(PLAN, words), call(RUN, words)
            seconds = [record["seconds"] for record in RunFolder(Path(folder)).metrics()]
        # The first step warms up, and the last one's time has the evaluation in it.
        measured["step_seconds"] = (seconds[-2] - seconds[0]) / (len(seconds) - 2)
        results[name] = {
            key: {
                "planned": round(planned[key], 4),
                "measured": round(measured[key], 4),
                "ratio": round(planned[key] / measured[key], 3),
            }
            for key in ("step_seconds", "memory_MiB")
        }
    return results


def call(code: str, words: list[str]) -> dict[str, Any]:
    """The JSON object that a program prints last."""
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
