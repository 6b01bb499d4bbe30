"""Training a BPE vocabulary: our trainer beside `tokenizers` (one thread) and `rustbpe`, and whether the merges agree.

Each measurement is a fresh process that loads the texts first and then times the training alone; the peers take turns,
so that whatever else the machine does hits all of them, and the median of each counts.
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

from corpus.local import read_local

CHECKOUT = Path(__file__).resolve().parents[1]
BOOKS = CHECKOUT.parent / "shared" / "data" / "scifi"
BYTES = 256


def train_ours(texts: list[str], merges: int) -> list[bytes]:
    """Our trainer, two processes where the machine has two cores."""
    from tokenization.bpe import train_bpe

    return [first + second for first, second in train_bpe(texts, BYTES + merges, special_tokens=())]


def train_ours_alone(texts: list[str], merges: int) -> list[bytes]:
    """Our trainer in one process."""
    from tokenization.bpe import train_bpe

    return [first + second for first, second in train_bpe(texts, BYTES + merges, special_tokens=(), workers=1)]


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
    "ours, one process": train_ours_alone,
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
        `seconds` (median by peer), `ratio` (to `tokenizers, one thread`, median of the ratios within a round),
        `merges_equal_to_rustbpe` (all of them, in order), `equal_merges` (how many, counted from the first),
        `same_tokens_as_tokenizers` (the share of its tokens that are ours too), and the sizes.
    """
    if not paths and not BOOKS.is_dir():
        raise ValueError(f"expected text files, got none, and {BOOKS} does not exist: give paths")
    texts = [document.text for document in read_local(list(paths) or [BOOKS])]
    seconds: dict[str, list[float]] = {peer: [] for peer in PEERS}
    learnt: dict[str, list[bytes]] = {}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "texts.pickle")
        corpus.write_bytes(pickle.dumps(texts))
        for _ in range(repeats):
            for peer in PEERS:
                taken, learnt[peer] = _measure(peer, corpus, merges)
                seconds[peer].append(taken)
    base = seconds["tokenizers, one thread"]
    ours, rust = learnt["ours"], learnt["rustbpe"]
    equal = next((i for i, (a, b) in enumerate(zip(ours, rust, strict=False)) if a != b), min(len(ours), len(rust)))
    theirs = set(learnt["tokenizers, one thread"])
    return {
        "characters": sum(map(len, texts)),
        "merges": len(ours),
        "seconds": {peer: round(statistics.median(times), 3) for peer, times in seconds.items()},
        "ratio": {
            peer: round(statistics.median(a / b for a, b in zip(times, base, strict=True)), 3)
            for peer, times in seconds.items()
        },
        "merges_equal_to_rustbpe": ours == rust and ours == learnt["ours, one process"],
        "equal_merges": equal,
        "same_tokens_as_tokenizers": round(len(theirs & set(ours)) / max(1, len(theirs)), 5),
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
    """The command line; also that of one measurement, in the processes that `run` starts."""
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
