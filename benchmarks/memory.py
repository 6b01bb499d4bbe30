"""How much memory long jobs take: learning a vocabulary from a large text, encoding it, and ten thousand batches from
its shards.

`python -m benchmarks.memory --megabytes N` does it for another size (disk: 1.7 times that). The text is made, of words
that never end (`benchmarks._text`): the number of different ones, which a vocabulary counts, grows as in real text.
Each job is a process of its own; its resident set is read every so often, its children's included. CPU seconds are
those of all its threads, and say the same on a busy machine.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks._text import write_words
from storage.shards import TokenSplit

GIGABYTE = 10**9
BATCHES = 10_000

LEARN_OR_ENCODE = """
import sys
from dataclasses import replace
from pathlib import Path
from storage.run_folder import RunFolder
from train.data.prepare import prepare, prepare_tokenizer
from train.recipes import get_recipe
recipe, (what, text, made) = get_recipe("modern"), sys.argv[1:]
recipe = replace(recipe, corpus=replace(recipe.corpus, source="local", books="any", paths=(Path(text),)))
folder = RunFolder(Path(made))
folder.path.mkdir(exist_ok=True)
if what == "learn":
    prepare_tokenizer(recipe, folder, print)
else:
    prepare(recipe, folder, print)
"""
READ = """
import sys
from pathlib import Path
from train.data.batches import RandomWindows
from storage.shards import TokenSplit
split = TokenSplit.open(Path(sys.argv[1]), "train")
batches = RandomWindows(split, batch_size=32, length=256, seed=1)
for number in range(int(sys.argv[2])):
    batches.next()
"""


def run(size: int = GIGABYTE) -> dict[str, Any]:
    """Peak resident memory in MiB, and the rates of learning 8,257 tokens and of encoding in MB/s of text.

    Args:
        size: of the text in bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        text, made = Path(folder, "text.txt"), Path(folder, "run")
        write_words(text, size)
        learning, encoding = (
            watch([sys.executable, "-c", LEARN_OR_ENCODE, what, str(text), str(made)]) for what in ("learn", "encode")
        )
        reading = watch([sys.executable, "-c", READ, str(made / "tokens"), str(BATCHES)])
        tokens = len(TokenSplit.open(made / "tokens", "train"))
    half = len(reading.resident) // 2
    return {
        "text_bytes": size,
        "training_tokens": tokens,
        **{
            f"{name}, {what}": value
            for name, job in (("learning", learning), ("encoding", encoding))
            for what, value in {
                "peak_MiB": max(job.resident),
                "seconds": round(job.seconds, 1),
                "CPU_seconds": round(job.cpu_seconds, 1),
                "MB_per_CPU_second": round(size / 1e6 / job.cpu_seconds, 2),
            }.items()
        },
        "batches": BATCHES,
        "reading, first_half, peak_MiB": max(reading.resident[:half]),
        "reading, second_half, peak_MiB": max(reading.resident[half:]),
    }


@dataclass(frozen=True, slots=True)
class Job:
    """What a process took: resident MiB every fifth of a second, descendants included; seconds until it ended; and CPU
    seconds of its own threads."""

    resident: list[int]
    seconds: float
    cpu_seconds: float


def watch(command: list[str]) -> Job:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed.
    """
    begun, seen, cpu = time.monotonic(), [], 0.0
    process = psutil.Popen(command, stdout=sys.stderr)
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            seen.append(sum(each.memory_info().rss for each in [process, *process.children(recursive=True)]) // 2**20)
            times = process.cpu_times()
            cpu = max(cpu, times.user + times.system)  # nothing, once it has ended
        time.sleep(0.2)
    if process.returncode:
        raise RuntimeError(f"{command[2][:20]!r} ended with status {process.returncode}")
    return Job(seen, time.monotonic() - begun, cpu)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, metavar="N", help="size of the text (default: 1000)")
    print(json.dumps(run(parser.parse_args().megabytes * 10**6), indent=2))
