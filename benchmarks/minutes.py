"""`python -m train modern --minutes N` on two texts that its law was not fitted to: the model that it chooses beside
its neighbours in size and vocabulary, which get the same minutes, and how long the command takes.

Shakespeare is short and read many times; the articles of WikiText-2 are long. By the clock, so nothing else should run.
"""

import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.bpe import CHECKOUT
from modeling.scaling.shapes import SHAPES
from storage.run_folder import RunFolder

DATA = CHECKOUT.parent / "shared" / "data"
TEXTS = {"shakespeare": DATA / "shakespeare.txt", "wikitext-2": DATA / "wikitext-2" / "train.txt"}


def run(*, minutes: float = 1.0, threads: int = 1) -> dict[str, Any]:
    """Plan and train, then the neighbours of what was chosen.

    Args:
        minutes: of each training.
        threads: of each training.

    Returns:
        By text: what was chosen, its expected and its measured bits per byte, those of the neighbours, `ratio` (its
        bits per byte over the lowest of all) and `time_ratio` (seconds of the command over 60 x minutes).

    Raises:
        ValueError: a text is not there.
    """
    results = {}
    for name, path in TEXTS.items():
        if not path.exists():
            raise ValueError(f"{path}: expected the text {name}, got no such file")
        with tempfile.TemporaryDirectory() as folder:
            chosen = train(path, minutes, threads, Path(folder) / "chosen")
            others = {}
            for width, vocabulary in neighbours(chosen["width"], chosen["vocabulary"]):
                shape = SHAPES[width]
                flags = [f"--model.{key.replace('_', '-')}={value}" for key, value in shape.fields.items()]
                flags.append(f"--tokenizer.vocab-size={vocabulary}")
                other = train(path, minutes, threads, Path(folder) / f"{width}-{vocabulary}", *flags)
                others[f"{width} wide, {vocabulary} tokens"] = other["bits_per_byte"]
        best = min(chosen["bits_per_byte"], *others.values())
        results[name] = {
            **chosen,
            "ratio": round(chosen["bits_per_byte"] / best, 4),
            "neighbours": others,
        }
    return results


def neighbours(width: int, vocabulary: int) -> list[tuple[int, int]]:
    """The next smaller and larger shapes, and half and twice the vocabulary."""
    widths = list(SHAPES)
    place = widths.index(width)
    near = [widths[each] for each in (place - 1, place + 1) if 0 <= each < len(widths)]
    return [(each, vocabulary) for each in near] + [(width, vocabulary // 2), (width, vocabulary * 2)]


def train(text: Path, minutes: float, threads: int, folder: Path, *flags: str) -> dict[str, Any]:
    """What one command chose, expected, reached and took."""
    words = ["-m", "train", "modern", "--corpus", str(text), "--minutes", str(minutes), "--run-dir", str(folder)]
    begun = time.monotonic()
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, *words, "--run.threads", str(threads), *flags]
    subprocess.run(command, cwd=CHECKOUT, env=environment, check=True, capture_output=True)
    took, run_folder = time.monotonic() - begun, RunFolder(folder)
    config, state = run_folder.recipe["config"], run_folder.state
    losses = [each["bits_per_byte"] for each in run_folder.metrics() if "bits_per_byte" in each]
    line = next(line for line in run_folder.log.read_text().splitlines() if "expected: " in line)
    return {
        "width": config["model"]["hidden_size"],
        "vocabulary": config["tokenizer"]["vocab_size"],
        "steps": state["step"],
        "expected": float(line.split("expected: ")[1].split()[0]),
        "bits_per_byte": round(min(losses, default=math.nan), 4),
        "time_ratio": round(took / (60 * minutes), 3),
    }
