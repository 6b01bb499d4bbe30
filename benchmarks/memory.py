"""How much memory long jobs take: encoding a text of a gigabyte, and ten thousand batches from shards.

Each job is a process of its own; its resident set is read every so often, its children's included.
"""

import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from storage.shards import TokenSplit

GIGABYTE = 10**9
BATCHES = 10_000

ENCODE = """
import sys
from dataclasses import replace
from pathlib import Path
from storage.run_folder import RunFolder
from train.data.prepare import prepare
from train.recipes import get_recipe
recipe = get_recipe("modern")
recipe = replace(
    recipe,
    corpus=replace(recipe.corpus, source="local", books="any", paths=(Path(sys.argv[1]),)),
    tokenizer=replace(recipe.tokenizer, path=Path(sys.argv[2])),
)
prepare(recipe, RunFolder(Path(sys.argv[3])), print)
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
    """Peak resident memory in MiB, and the rate of the encoding in MB/s of text."""
    with tempfile.TemporaryDirectory() as folder:
        text, tokenizer, made = (Path(folder, name) for name in ("text.txt", "tokenizer", "run"))
        write_text(text, size)
        write_tokenizer(tokenizer)
        begun = time.monotonic()
        encoding = watch([sys.executable, "-c", ENCODE, str(text), str(tokenizer), str(made)])
        seconds = time.monotonic() - begun
        reading = watch([sys.executable, "-c", READ, str(made / "tokens"), str(BATCHES)])
        tokens = len(TokenSplit.open(made / "tokens", "train"))
    half = len(reading) // 2
    return {
        "text_bytes": size,
        "training_tokens": tokens,
        "encoding_peak_MiB": max(encoding),
        "encoding_MB_per_second": size / 1e6 / seconds,
        "batches": BATCHES,
        "reading_peak_first_half_MiB": max(reading[:half]),
        "reading_peak_second_half_MiB": max(reading[half:]),
    }


def write_text(path: Path, size: int) -> None:
    """A file of stories, of `size` bytes or a little more."""
    from corpus.stories.generator import generate_stories

    stories = "\n\n".join(story.text for story in generate_stories(seed=3, count=20_000)).encode()
    with path.open("wb") as stream:
        for number in range(size // len(stories) + 1):
            stream.write(b"\n\nPart %d\n\n" % number + stories[: size - stream.tell()])


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of the stories with 2,048 tokens."""
    from corpus.stories.generator import generate_stories
    from tokenization import ScratchGPTTokenizer, save_tokenizer, train_bpe

    merges = train_bpe((story.text for story in generate_stories(seed=3, count=2000)), 2048)
    save_tokenizer(ScratchGPTTokenizer.from_merges(merges), folder)


def watch(command: list[str]) -> list[int]:
    """Resident MiB of the process and its descendants, every fifth of a second until it ends."""
    process = psutil.Popen(command)
    seen = []
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            seen.append(sum(each.memory_info().rss for each in [process, *process.children(recursive=True)]) // 2**20)
        time.sleep(0.2)
    if process.returncode:
        raise RuntimeError(f"{command[2][:20]!r} ended with status {process.returncode}")
    return seen
