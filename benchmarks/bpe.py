"""Training a BPE vocabulary: our trainer beside `tokenizers` (one thread) and `rustbpe`, and whether the merges agree.

Each measurement is a process of its own that times the training alone; the peers take turns.
"""

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks._report import Goal
from corpus.local import read_local

CHECKOUT = Path(__file__).resolve().parents[1]
BOOKS = CHECKOUT.parent / "shared" / "data" / "scifi"
BYTES = 256
GOALS = (Goal(("ratio", "ours"), at_most=0.35),)


def train_ours(texts: list[str], merges: int) -> list[bytes]:
    """Our trainer."""
    from tokenization.bpe import train_bpe

    return [first + second for first, second in train_bpe(texts, BYTES + merges, special_tokens=())]


def train_tokenizers(texts: list[str], merges: int) -> list[bytes]:
    """The trainer of `tokenizers` with the same split; its process has one thread."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    from tokenization.tokenization_scratchgpt import GPT4_SPLIT_PATTERN, byte_alphabet

    split = pre_tokenizers.Split(Regex(GPT4_SPLIT_PATTERN), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=BYTES + merges, initial_alphabet=byte_level.alphabet(), show_progress=False, special_tokens=[]
    )
    tokenizer.train_from_iterator(texts, trainer)
    bytes_of = {character: byte for byte, character in enumerate(byte_alphabet())}
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])[BYTES:]
    return [bytes(bytes_of[character] for character in token) for token, _ in by_id]


def train_rustbpe(texts: list[str], merges: int) -> list[bytes]:
    """The trainer of `rustbpe`, with all the threads it takes."""
    import rustbpe  # pyright: ignore[reportMissingImports]

    tokenizer = rustbpe.Tokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.train_from_iterator(iter(texts), BYTES + merges)
    return [bytes(token) for token, _ in tokenizer.get_mergeable_ranks()[BYTES:]]


PEERS: dict[str, Callable[[list[str], int], list[bytes]]] = {
    "ours": train_ours,
    "tokenizers, one thread": train_tokenizers,
    "rustbpe": train_rustbpe,
}


def run(paths: Sequence[str | Path] = (), *, merges: int = 8000, repeats: int = 3) -> dict:
    """Times the peers on the given text files.

    Args:
        paths: files or folders, cleaned as for training; the sci-fi books beside the checkout when there are none.
        merges: how many merges each peer learns.
        repeats: measurements of each peer.

    Returns:
        `seconds` and `ratio` to `tokenizers, one thread` (medians by peer), `merges_equal_to_rustbpe` (all, in order),
        `same_tokens_as_tokenizers` (the share of its tokens that are ours too), and the sizes.
    """
    texts = read_texts(paths)
    seconds: dict[str, list[float]] = {peer: [] for peer in PEERS}
    learnt: dict[str, list[bytes]] = {}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "texts.pickle")
        corpus.write_bytes(pickle.dumps(texts))
        for _ in range(repeats):
            for peer in PEERS:
                taken, learnt[peer] = _measure(peer, corpus, merges)
                seconds[peer].append(taken)
    ours, theirs = learnt["ours"], set(learnt["tokenizers, one thread"])
    return {
        "characters": sum(map(len, texts)),
        "merges": len(ours),
        **summarize("seconds", seconds, base="tokenizers, one thread", digits=3),
        "merges_equal_to_rustbpe": ours == learnt["rustbpe"],
        "same_tokens_as_tokenizers": round(len(theirs & set(ours)) / max(1, len(theirs)), 5),
    }


def read_texts(paths: Sequence[str | Path]) -> list[str]:
    """The texts of some files; of the sci-fi books when there are none."""
    if not paths and not BOOKS.is_dir():
        raise ValueError(f"expected text files, got none, and {BOOKS} does not exist: give paths")
    return [document.text for document in read_local(list(paths) or [BOOKS])]


def summarize(name: str, measured: dict[str, list[float]], *, base: str, digits: int) -> dict[str, dict[str, float]]:
    """The median of each peer, and its ratio to `base`: the median of the ratios within a round."""
    return {
        name: {peer: round(statistics.median(values), digits) for peer, values in measured.items()},
        "ratio": {
            peer: round(statistics.median(a / b for a, b in zip(values, measured[base], strict=True)), digits)
            for peer, values in measured.items()
        },
    }


def _measure(peer: str, corpus: Path, merges: int) -> tuple[float, list[bytes]]:
    environment = dict(os.environ, PYTHONPATH=str(CHECKOUT), TOKENIZERS_PARALLELISM="true")
    if "one thread" in peer:
        environment |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "benchmarks.bpe", "--peer", peer, "--merges", str(merges), str(corpus)]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{peer}: {done.stderr.decode(errors='replace')}")
    return pickle.loads(done.stdout)


def main() -> None:
    """The command line; also that of one measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", help="text files or folders; default: the sci-fi books")
    parser.add_argument("--merges", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.peer:
        print(json.dumps(run(arguments.paths, merges=arguments.merges, repeats=arguments.repeats), indent=2))
        return
    texts = pickle.loads(Path(arguments.paths[0]).read_bytes())
    PEERS[arguments.peer]([texts[0][:1000]], 1)  # imports and first calls are not what is timed
    start = time.perf_counter()
    learnt = PEERS[arguments.peer](texts, arguments.merges)
    sys.stdout.buffer.write(pickle.dumps((time.perf_counter() - start, learnt)))


if __name__ == "__main__":
    main()
