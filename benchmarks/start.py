"""From the start of a process to the first token: `python app.py --terminal` beside the same model by AutoModel.

Both get the pretrained model and the same beginning. The other way is what a model card says:
`AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)`, its tokenizer, and `generate`. Beside them stand
`import torch` alone and the imports that loading any model by transformers needs, without garbage collection: no start
is shorter. They take turns; their files are in the system's cache after a first turn that is not counted. CPU seconds,
until the token is there, say the same on a busy machine.
"""

import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks._report import Goal
from benchmarks._rounds import take_turns
from benchmarks.bpe import CHECKOUT, summarize

PRETRAINED = CHECKOUT / "pretrained" / "scifi"
BASE = "AutoModel"
TERMINAL = "app.py --terminal"
BEGINNING = "The ship"
AUTO_MODEL = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
ids = tokenizer(sys.argv[2], return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=1, do_sample=False)[0]), flush=True)
"""
IMPORTS = """
import sys
from modeling import quick_imports, register
with quick_imports():
    import torch
if sys.argv[3] != "torch":
    register()
print(sys.argv[2] + " -", flush=True)
"""
GOALS = (Goal(("ratio", TERMINAL), at_most=0.7),)


def run(*, model: Path = PRETRAINED, rounds: int = 9) -> dict[str, Any]:
    """Start each so often.

    Args:
        model: a folder with its remote code.
        rounds: starts of each, after one that is not counted.

    Returns:
        `seconds` and `CPU_seconds` (medians), `ratio` and `CPU_ratio` (to AutoModel: the median of those in a round).
    """
    peers = {name: partial(first_token, words) for name, words in commands(model).items()}
    turns = take_turns(peers, rounds, clock=None)
    seconds, cpu = ({name: [pair[side] for pair in pairs] for name, pairs in turns.items()} for side in (0, 1))
    of_cpu = summarize("CPU_seconds", cpu, base=BASE, digits=3)
    return {**summarize("seconds", seconds, base=BASE, digits=3), "CPU_ratio": of_cpu.pop("ratio"), **of_cpu}


def commands(model: Path) -> dict[str, list[str]]:
    """What follows `python` to start each with the model of a folder."""
    terminal = [str(CHECKOUT / "app.py"), "--model", str(model), "--terminal", "--max-new-tokens", "20"]
    return {
        TERMINAL: [*terminal, "--temperature", "0"],
        BASE: ["-c", AUTO_MODEL, str(model), BEGINNING],
        **{f"import {name}": ["-c", IMPORTS, str(model), BEGINNING, name] for name in ("torch", "transformers")},
    }


def first_token(words: list[str]) -> tuple[float, float]:
    """Start `python WORDS` with the beginning as its input; seconds and CPU seconds until it wrote more than that.

    Raises:
        RuntimeError: it ended before.
    """
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is imported is compiled once, as everywhere
    begun = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *words], cwd=CHECKOUT, env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{BEGINNING}\n".encode())
        process.stdin.close()
        written = b""
        while not re.search(rf"^{BEGINNING}.".encode(), written, re.MULTILINE):
            if not (more := os.read(process.stdout.fileno(), 1 << 16)):
                raise RuntimeError(f"python {' '.join(words)[-80:]}: expected a token, got {written.decode()!r}")
            written += more
        seconds, times = time.perf_counter() - begun, psutil.Process(process.pid).cpu_times()
        process.kill()
    return seconds, times.user + times.system
