"""Encoding a corpus: our direct path beside `tiktoken` and `tokenizers` (one thread), same vocabulary, same ids.

All peers run in one process of their own with one thread for Rust, and take turns; the median of each counts. Cold
means with empty caches, as for the first text after a start; warm, the texts once more.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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
        round), `same_ids` (whether all peers gave the same ids), `bytes` and `tokens`.
    """
    if not paths and not BOOKS.is_dir():
        raise ValueError(f"expected text files, got none, and {BOOKS} does not exist: give paths")
    environment = dict(os.environ, PYTHONPATH=str(CHECKOUT), TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
    command = [sys.executable, "-m", "benchmarks.encoding", "--measure", "--merges", str(merges)]
    command += ["--repeats", str(repeats), *map(str, paths or [BOOKS])]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


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
    size = sum(len(text.encode()) for text in texts)
    speeds: dict[str, list[float]] = {peer: [] for peer in peers}
    ids: dict[str, Encoded] = {}
    for _ in range(repeats):
        for peer, encode in peers.items():
            start = time.perf_counter()
            ids[peer] = encode()
            speeds[peer].append(size / (time.perf_counter() - start) / 1e6)
    base = speeds["tokenizers, one thread"]
    first, *others = ([list(map(int, one)) for one in encoded] for encoded in ids.values())
    return {
        "bytes": size,
        "tokens": sum(map(len, first)),
        "megabytes_per_second": {peer: round(statistics.median(values), 2) for peer, values in speeds.items()},
        "ratio": {
            peer: round(statistics.median(a / b for a, b in zip(values, base, strict=True)), 2)
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
    arguments = parser.parse_args()
    work = measure if arguments.measure else run
    print(json.dumps(work(arguments.paths, merges=arguments.merges, repeats=arguments.repeats), indent=2))


if __name__ == "__main__":
    main()
