"""Encoding in several processes.

Each worker is a Python of its own that reads pickled lists of texts on its standard input and answers on its standard
output. It is neither forked (threads of the parent do not matter) nor does it import the parent's main module, it is
out of the reach of Ctrl-C in the parent's terminal, and it ends when its input does, so also when the parent is killed.
"""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

CHECKOUT = Path(__file__).parents[1]
COMMAND = "from tokenization.workers import serve; serve()"

Job = tuple[list[str], list[bool]]
"""Parts of texts, and for each of them whether its text ends with it."""


def encode_in_processes(
    tokenizer: PreTrainedTokenizerBase, jobs: Iterable[Job], workers: int
) -> Iterator[tuple[list[np.ndarray], list[bool]]]:
    """Yields for each job the arrays of ids of its texts, in order; at most two jobs a worker are under way.

    Args:
        tokenizer: the from-scratch tokenizer.
        workers: processes, beside this one, which only feeds them.

    Raises:
        RuntimeError: a worker ended early.
    """
    ours: Any = tokenizer
    greeting = (ours.merges, ours.pattern, len(ours))
    processes = [_start(greeting) for _ in range(workers)]
    idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    for process in processes:
        idle.put(process)

    def ask(texts: list[str]) -> list[np.ndarray]:
        process = idle.get()
        try:
            return _ask(process, texts)
        finally:
            idle.put(process)

    threads = ThreadPoolExecutor(workers, thread_name_prefix="encoding")
    under_way: deque[tuple[Future[list[np.ndarray]], list[bool]]] = deque()
    try:
        for parts, ends in jobs:
            under_way.append((threads.submit(ask, parts), ends))
            if len(under_way) >= 2 * workers:
                future, ends_of_it = under_way.popleft()
                yield future.result(), ends_of_it
        for future, ends in under_way:
            yield future.result(), ends
    finally:
        for process in processes:
            process.kill()
        threads.shutdown(cancel_futures=True)
        for process in processes:
            _close(process)


def serve() -> None:
    """One worker: answers lists of texts until its input ends."""
    from tokenization.encoding import build_encoder, token_dtype
    from tokenization.tokenization_scratchgpt import ScratchGPTTokenizer

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(EOFError, BrokenPipeError):
        merges, pattern, size = pickle.load(sys.stdin.buffer)
        encode, _ = build_encoder(ScratchGPTTokenizer.from_merges(merges, (), pattern=pattern))
        while True:
            arrays = [array.astype(token_dtype(size), copy=False) for array in encode(pickle.load(sys.stdin.buffer))]
            pickle.dump(arrays, answers, protocol=pickle.HIGHEST_PROTOCOL)
            answers.flush()


def _start(greeting: object) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )
    _send(process, greeting)
    return process


def _ask(process: subprocess.Popen[bytes], texts: list[str]) -> list[np.ndarray]:
    _send(process, texts)
    assert process.stdout is not None
    try:
        return pickle.load(process.stdout)
    except (EOFError, pickle.UnpicklingError):
        raise _failure(process) from None


def _send(process: subprocess.Popen[bytes], message: object) -> None:
    assert process.stdin is not None
    try:
        pickle.dump(message, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
    except BrokenPipeError:
        raise _failure(process) from None


def _failure(process: subprocess.Popen[bytes]) -> RuntimeError:
    assert process.stderr is not None
    said = process.stderr.read().decode("utf-8", "replace").strip()
    return RuntimeError(f"a process that encodes texts ended early (exit status {process.wait()}): {said}")


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    process.wait()
