import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tokenization import ScratchGPTTokenizer, encode_corpus, encoding, workers

CHECKOUT = Path(__file__).resolve().parents[2]
ENDLESS = """
import itertools, sys
from tokenization import ScratchGPTTokenizer, encode_corpus
texts = (f"text {number} " * 100_000 for number in itertools.count())
try:
    for ids in encode_corpus(ScratchGPTTokenizer.from_merges([]), texts, workers=2):
        print(len(ids), flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def children():
    return Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text().split()


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(encoding, "PARALLEL_CHARACTERS", 100)
    monkeypatch.setattr(encoding, "BATCH_CHARACTERS", 50)
    monkeypatch.setattr(encoding, "PART_CHARACTERS", 20)


def test_same_arrays_in_the_same_order(slow, small):
    texts = [f"It's {number} <|endoftext|>  déjà\ud800 vu 😀\n" * (number % 7) for number in range(60)]
    alone = list(encode_corpus(slow, texts))
    together = list(encode_corpus(slow, iter(texts), workers=2))
    assert len(alone) == len(together)
    for one, other in zip(alone, together, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    together[-1] += 1


def test_reads_only_a_little_ahead_and_leaves_no_process(slow, small):
    taken = []

    def texts():
        for number in range(10_000):
            taken.append(number)
            yield f"the text of number {number}, not long"

    before = children()
    arrays = encode_corpus(slow, texts(), workers=2)
    for _ in range(10):
        next(arrays)
    assert len(taken) < 40
    assert len(children()) == len(before) + 2
    arrays.close()
    assert children() == before


def test_short_texts_start_no_process(slow, monkeypatch):
    monkeypatch.setattr(encoding, "encode_in_processes", None)
    assert [array.tolist() for array in encode_corpus(slow, ["a", "", "b"], workers=8)] == [[97], [], [98]]


def test_another_pattern_and_more_tokens_than_two_bytes_count(small):
    merges = [(bytes([first]), bytes([second])) for first in range(256) for second in range(256)]
    tokenizer = ScratchGPTTokenizer.from_merges(merges, pattern=r"\w+|\W+")
    (array,) = encode_corpus(tokenizer, ["zz " * 100], workers=1)
    (other,) = encode_corpus(tokenizer, ["zz " * 100], workers=2)
    assert array.dtype == other.dtype == np.uint32
    assert array.tolist() == other.tolist()


def test_a_worker_that_dies_is_an_error(slow, small, monkeypatch):
    monkeypatch.setattr(workers, "COMMAND", "import sys; sys.stdin.buffer.read(9); sys.exit('out of luck')")
    before = children()
    with pytest.raises(RuntimeError, match=r"a process that encodes texts ended early \(exit status 1\): out of luck"):
        list(encode_corpus(slow, ["the text " * 99], workers=2))
    assert children() == before


def test_fewer_than_one(slow):
    with pytest.raises(ValueError, match="expected workers of at least 1, got 0"):
        next(encode_corpus(slow, ["a"], workers=0))


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_ends_with_its_parent(how):
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().strip().isdigit()
        helpers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(how)
        *_, last = process.stdout.read().splitlines() or [""]
        assert process.stderr.read() == ""
    assert (last == "interrupted") == (how == signal.SIGINT)
    assert len(helpers) == 2
    deadline = time.monotonic() + 20
    while any(Path("/proc", pid).exists() for pid in helpers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
