"""Encoding a corpus: our path beside plain `tiktoken` and `tokenizers`, same vocabulary, same ids.

The peers run in one process and take turns. Ours makes its tables each time, and arrays of the shards' type; tiktoken
makes lists. First with one thread each, then with one for each core.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tiktoken

from benchmarks._report import Goal
from benchmarks.bpe import BYTES, CHECKOUT, read_texts, summarize
from tokenization import GPT4_SPLIT_PATTERN, ScratchGPTTokenizer, encode_corpus, train_bpe
from tokenization.saving import build_fast

Encoded = Sequence[Sequence[int] | np.ndarray]
GOALS = (Goal(("ratio", "ours"), at_least=1.0), Goal(("all_cores", "ratio", "ours"), at_least=1.0))


def run(paths: Sequence[str | Path] = (), *, merges: int = 8000, repeats: int = 3) -> dict:
    """Times the peers on the given text files, with a vocabulary learnt from them.

    Args:
        paths: files or folders, cleaned as for training; the sci-fi books beside the checkout when there are none.
        merges: merges of the vocabulary.
        repeats: measurements of each peer.

    Returns:
        `megabytes_per_second` and `ratio` to `tiktoken` (medians by peer), `same_ids` (whether all peers gave the same
        ids), `threads`, `bytes`, `tokens`; and under `all_cores` the same with a thread for each core.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    results = []
    for threads in (1, cores):
        environment = dict(os.environ, PYTHONPATH=str(CHECKOUT), RAYON_NUM_THREADS=str(threads))
        environment["TOKENIZERS_PARALLELISM"] = "true"
        command = [sys.executable, "-m", "benchmarks.encoding", "--threads", str(threads), "--merges", str(merges)]
        command += ["--repeats", str(repeats), *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        results.append(json.loads(done.stdout))
    return {**results[0], "all_cores": results[1]}


def measure(paths: Sequence[str | Path], merges: int, repeats: int, threads: int) -> dict:
    """What `run` returns for one number of threads, in this process."""
    texts = read_texts(paths)
    learnt = train_bpe(texts, BYTES + merges, special_tokens=())
    tokenizer = ScratchGPTTokenizer.from_merges(learnt, ())
    rust = build_fast(tokenizer).backend_tokenizer
    rust.encode_special_tokens = True
    ranks = {token: rank for rank, token in enumerate(tokenizer.token_bytes)}
    peer = tiktoken.Encoding("peer", pat_str=GPT4_SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={})

    def from_scratch() -> Encoded:
        cold = ScratchGPTTokenizer.from_merges(learnt, ())
        return [cold.encode_ordinary(text) for text in texts]

    peers: dict[str, Callable[[], Encoded]] = {
        "ours": lambda: list(encode_corpus(tokenizer, texts, workers=threads)),
        "tiktoken": lambda: peer.encode_ordinary_batch(texts, num_threads=threads),
        "tokenizers": lambda: [encoding.ids for encoding in rust.encode_batch_fast(texts)],
    }
    if threads == 1:
        peers["from-scratch class"] = from_scratch
    size = sum(len(text.encode()) for text in texts)
    speeds: dict[str, list[float]] = {name: [] for name in peers}
    ids: dict[str, Encoded] = {}
    for _ in range(repeats):
        for name, encode in peers.items():
            start = time.perf_counter()
            ids[name] = encode()
            speeds[name].append(size / (time.perf_counter() - start) / 1e6)
    first, *others = ([list(map(int, one)) for one in encoded] for encoded in ids.values())
    return {
        "threads": threads,
        "bytes": size,
        "tokens": sum(map(len, first)),
        **summarize("megabytes_per_second", speeds, base="tiktoken", digits=2),
        "same_ids": all(other == first for other in others),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", help="text files or folders; default: the sci-fi books")
    parser.add_argument("--merges", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.threads:
        print(json.dumps(measure(given.paths, given.merges, given.repeats, given.threads), indent=2))
    else:
        print(json.dumps(run(given.paths, merges=given.merges, repeats=given.repeats), indent=2))


if __name__ == "__main__":
    main()
