"""Encoding a corpus: our direct path beside `tiktoken` and `tokenizers`, same vocabulary, same ids.

First on one core: all peers run in one process of their own with one thread for Rust, and take turns; the median of
each counts. Cold means with empty caches, as for the first text after a start; warm, the texts once more.

Then on all cores: ours goes the way of `python -m train`, from files on the disk to token shards on the disk, with a
process for each core, its start counted; `encode_batch` of `tokenizers` only encodes texts that are in memory already.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bpe import BOOKS, CHECKOUT
from corpus.local import read_local

Encoded = Sequence[Sequence[int] | np.ndarray]


def run(paths: Sequence[str | Path] = (), *, merges: int = 8000, repeats: int = 3) -> dict:
    """Times the peers on the given text files, with a vocabulary learnt from them.

    Args:
        paths: files or folders, cleaned as for training; the sci-fi books beside the checkout when there are none.
        merges: merges of the vocabulary.
        repeats: measurements of each peer.

    Returns:
        `megabytes_per_second` (median by peer), `ratio` (to `tokenizers, one thread`, median of the ratios within a
        round), `same_ids` (whether all peers gave the same ids), `bytes` and `tokens`; and under `all_cores` the
        same for all cores, with their number as `cores`, the ratio to `tokenizers, encode_batch`.
    """
    if not paths and not BOOKS.is_dir():
        raise ValueError(f"expected text files, got none, and {BOOKS} does not exist: give paths")
    cores = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    results = []
    for way, threads in (("--measure", "1"), ("--measure-all-cores", cores)):
        environment = dict(os.environ, PYTHONPATH=str(CHECKOUT), RAYON_NUM_THREADS=threads)
        environment["TOKENIZERS_PARALLELISM"] = "true" if way == "--measure-all-cores" else "false"
        command = [sys.executable, "-m", "benchmarks.encoding", way, "--merges", str(merges)]
        command += ["--repeats", str(repeats), *map(str, paths or [BOOKS])]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        results.append(json.loads(done.stdout))
    return {**results[0], "all_cores": results[1]}


def measure(paths: Sequence[str], merges: int, repeats: int) -> dict:
    """What `run` returns, in this process."""
    from tokenization import ScratchGPTTokenizer, encode_corpus, train_bpe
    from tokenization.fast import build_fast
    from tokenization.tokenization_scratchgpt import GPT4_SPLIT_PATTERN

    texts = [document.text for document in read_local(list(paths))]
    learnt = train_bpe(texts, 256 + merges, special_tokens=())
    rust = build_fast(ScratchGPTTokenizer.from_merges(learnt, ())).backend_tokenizer
    rust.encode_special_tokens = True
    slow: list[ScratchGPTTokenizer] = []

    def ours() -> Encoded:
        return list(encode_corpus(slow[-1], texts))

    def ours_cold() -> Encoded:
        slow.append(ScratchGPTTokenizer.from_merges(learnt, ()))
        return ours()

    def encode_ordinary() -> Encoded:
        return [slow[-1].encode_ordinary(text) for text in texts]

    def tokenizers() -> Encoded:
        return [encoding.ids for encoding in rust.encode_batch_fast(texts)]

    peers: dict[str, Callable[[], Encoded]] = {
        "ours, cold": ours_cold,
        "ours, pre-tokens cached": ours,
        "ours, encode_ordinary": encode_ordinary,
        "tokenizers, one thread": tokenizers,
    }
    if importlib.util.find_spec("tiktoken"):
        import tiktoken  # pyright: ignore[reportMissingImports]

        ranks = {bytes([byte]): byte for byte in range(256)}
        ranks |= {first + second: index for index, (first, second) in enumerate(learnt, start=256)}
        encoding = tiktoken.Encoding(
            "peer", pat_str=GPT4_SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={}, explicit_n_vocab=len(ranks)
        )
        peers["tiktoken"] = lambda: [encoding.encode_ordinary(text) for text in texts]
    return _turns(peers, texts, repeats, base="tokenizers, one thread")


def measure_all_cores(paths: Sequence[str], merges: int, repeats: int) -> dict:
    """What `run` returns under `all_cores`, in this process."""
    from storage.shards import SplitWriter
    from tokenization import ScratchGPTTokenizer, encode_corpus, train_bpe
    from tokenization.encoding import token_dtype
    from tokenization.fast import build_fast

    cores = int(os.environ["RAYON_NUM_THREADS"])
    texts = [document.text for document in read_local(list(paths))]
    tokenizer = ScratchGPTTokenizer.from_merges(train_bpe(texts, 256 + merges, special_tokens=()), ())
    fast = build_fast(tokenizer)
    rust = fast.backend_tokenizer
    rust.encode_special_tokens = True

    def to_shards(encoder: Any, workers: int) -> Encoded:
        with tempfile.TemporaryDirectory() as folder:
            writer = SplitWriter(folder=Path(folder), name="train", dtype=token_dtype(len(tokenizer)))
            arrays = []
            read = (document.text for document in read_local(list(paths)))
            for ids in encode_corpus(encoder, read, workers=workers):
                writer.append(ids)
                arrays.append(ids)
            writer.flush()
        return arrays

    peers: dict[str, Callable[[], Encoded]] = {
        "ours, files to shards": lambda: to_shards(tokenizer, cores),
        "ours, files to shards, fast twin": lambda: to_shards(fast, 1),
        "tokenizers, encode_batch": lambda: [encoding.ids for encoding in rust.encode_batch(texts)],
    }
    return {"cores": cores, **_turns(peers, texts, repeats, base="tokenizers, encode_batch")}


def _turns(peers: dict[str, Callable[[], Encoded]], texts: list[str], repeats: int, *, base: str) -> dict:
    """Lets the peers take turns; what `run` returns of it."""
    size = sum(len(text.encode()) for text in texts)
    speeds: dict[str, list[float]] = {peer: [] for peer in peers}
    ids: dict[str, Encoded] = {}
    for _ in range(repeats):
        for peer, encode in peers.items():
            start = time.perf_counter()
            ids[peer] = encode()
            speeds[peer].append(size / (time.perf_counter() - start) / 1e6)
    first, *others = ([list(map(int, one)) for one in encoded] for encoded in ids.values())
    return {
        "bytes": size,
        "tokens": sum(map(len, first)),
        "megabytes_per_second": {peer: round(statistics.median(values), 2) for peer, values in speeds.items()},
        "ratio": {
            peer: round(statistics.median(a / b for a, b in zip(values, speeds[base], strict=True)), 2)
            for peer, values in speeds.items()
        },
        "same_ids": all(other == first for other in others),
    }


def main() -> None:
    """The command line of one measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", help="text files or folders; default: the sci-fi books")
    parser.add_argument("--merges", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure-all-cores", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = measure if arguments.measure else measure_all_cores if arguments.measure_all_cores else run
    print(json.dumps(work(arguments.paths, merges=arguments.merges, repeats=arguments.repeats), indent=2))


if __name__ == "__main__":
    main()
