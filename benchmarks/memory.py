"""How much memory long jobs take: learning a vocabulary from a large text, encoding it, and ten thousand batches from
its shards, of windows of each kind.

`python -m benchmarks.memory --megabytes N` does it for another size (disk: 1.7 times that). The text is made, of words
that never end (`benchmarks._text`): the number of different ones, which a vocabulary counts, grows as in real text.
Each job is a process of its own; its resident set is read every so often, its children's included. CPU seconds are
those of all its threads, and say the same on a busy machine.

Windows are `--data.windows random`, `shuffled` and `packed`, 32 of 256 tokens a batch. Packed ones need documents, of
which the text has none: a token that comes up about every 200 tokens is taken for their end. The second half of the
time shows whether memory grows; a new epoch, of which a short text has several, makes its windows again.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks._report import report
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
import numpy as np
from storage.shards import TokenSplit
from train.data.batches import training_batches
folder, windows, count = sys.argv[1:]
split = TokenSplit.open(Path(folder), "train")
ids = split.read(0, min(len(split), 1_000_000))
end = int(np.abs(np.bincount(ids) - len(ids) / 200).argmin())
batches = training_batches(split, windows, batch_size=32, length=256, seed=1, end_of_text=end)
for number in range(int(count)):
    batches.next()
"""
WINDOWS = ("random", "shuffled", "packed")


def run(size: int = GIGABYTE, *, batches: int = BATCHES) -> dict[str, Any]:
    """Peak resident memory in MiB, and the rates of learning 8,257 tokens and of encoding in MB/s of text.

    Args:
        size: of the text in bytes.
        batches: read of each kind of windows.
    """
    with tempfile.TemporaryDirectory() as folder:
        text, made = Path(folder, "text.txt"), Path(folder, "run")
        write_words(text, size)
        learning, encoding = (
            watch([sys.executable, "-c", LEARN_OR_ENCODE, what, str(text), str(made)]) for what in ("learn", "encode")
        )
        reading = {
            windows: watch([sys.executable, "-c", READ, str(made / "tokens"), windows, str(batches)])
            for windows in WINDOWS
        }
        tokens = len(TokenSplit.open(made / "tokens", "train"))
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
        "batches": batches,
        **{
            f"reading {windows} windows, {half}_half, peak_MiB": max(part)
            for windows, job in reading.items()
            for half, part in zip(("first", "second"), halves(job.resident), strict=True)
        },
    }


def halves(values: list[int]) -> tuple[list[int], list[int]]:
    """What was seen until half of the time was over, and after it."""
    middle = len(values) // 2
    return values[:middle], values[middle:]


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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, metavar="N", help="size of the text (default: 1000)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="renew the section in it, as tables")
    given = parser.parse_args()
    report("memory", partial(run, given.megabytes * 10**6), given.markdown, ["--megabytes", str(given.megabytes)])


if __name__ == "__main__":
    main()
