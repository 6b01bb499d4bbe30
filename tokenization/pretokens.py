"""Counting pre-tokens: how often each piece of the split pattern occurs in a stream of texts.

Run as a program, this file is one counting worker: pickled blocks of text come in on standard input, the pickled counts
go out on standard output. So it imports nothing of ours, and a worker starts in a few hundredths of a second
whatever the parent process has loaded.
"""

import contextlib
import os
import pickle
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import regex

# What `\s` matches, the space apart.
OTHER_WHITESPACE = (
    "\t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f"
    "\u3000"
)
ASCII_WHITESPACE = 5
LINE_START = re.compile(r"\n(?=[^\s\0])")
SPACE, START = "\0", "\1"
# How a piece begins that may run together with the one before it when pieces are joined.
NOT_JOINED = START + SPACE + OTHER_WHITESPACE
BLOCK_CHARACTERS = 1 << 20
PARALLEL_CHARACTERS = 1 << 21
PENDING_PIECES = 1 << 21


class PretokenCounter:
    """Counts of pre-tokens, fed one text after the other.

    The pattern must have a token border before every space that follows a non-space and after every newline before a
    non-space, as GPT-4's has. So texts are first cut there by `str.split`, equal pieces are counted together, and the
    pattern runs once for each distinct piece.
    """

    def __init__(self, pattern: str):
        self.findall = regex.compile(pattern).findall
        self.counts: Counter[str] = Counter()
        self.pieces: Counter[str] = Counter()

    def update(self, text: str) -> None:
        """Counts the pre-tokens of one text."""
        if not can_be_cut(text):
            self.counts.update(self.findall(text))
            return
        pieces = cut_at_borders(text)
        # Only the last piece may end in spaces, which would go on in a piece behind it.
        self.counts.update(self.findall(piece_text(pieces.pop())))
        self.pieces.update(pieces)
        if len(self.pieces) >= PENDING_PIECES:
            self._split_pieces()

    def _split_pieces(self) -> None:
        """Runs the pattern over the distinct pieces: those equally frequent as one text, each with its space before."""
        counts = self.counts
        by_count: dict[int, list[str]] = {}
        for piece, count in self.pieces.items():
            if piece[:1] in NOT_JOINED:
                for pretoken in self.findall(piece_text(piece)):
                    counts[pretoken] += count
            else:
                by_count.setdefault(count, [""]).append(piece)
        self.pieces.clear()
        for count, pieces in by_count.items():
            text = " ".join(pieces).replace(SPACE, " ")
            for pretoken, occurrences in Counter(self.findall(text)).items():
                counts[pretoken] += count * occurrences

    def result(self) -> Counter[str]:
        """The counts of all texts so far."""
        self._split_pieces()
        return self.counts


def can_be_cut(text: str) -> bool:
    """Whether `cut_at_borders` takes this text: the two characters that it needs for itself do not occur."""
    return SPACE not in text and START not in text


def cut_at_borders(text: str) -> list[str]:
    """Cuts a text before spaces that follow a non-space and after newlines before a non-space.

    The space that a piece begins with is left out, and `START` stands before a piece that begins with none; other
    spaces become `SPACE`. The text must contain neither (`can_be_cut`).
    """
    for character in OTHER_WHITESPACE[: ASCII_WHITESPACE if text.isascii() else None]:
        if character in text:
            text = text.replace(character + " ", character + SPACE)
    text = text.replace("  ", " " + SPACE).replace(SPACE + " ", SPACE + SPACE)
    return (START + LINE_START.sub("\n " + START, text)).split(" ")


def piece_text(piece: str) -> str:
    """The text that one of the pieces of `cut_at_borders` stands for."""
    return (piece[1:] if piece.startswith(START) else " " + piece).replace(SPACE, " ")


def count_pretokens(texts: Iterable[str], pattern: str, *, workers: int | None = None) -> Counter[str]:
    """Counts the pre-tokens of a stream of texts, of which only a block is held at a time.

    Args:
        pattern: a split pattern with the borders that `PretokenCounter` needs.
        workers: processes that count, this one included; None takes two where the machine has them. Texts of less than
            two million characters together are counted in this process in any case.
    """
    if workers is None:
        workers = min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    counter = PretokenCounter(pattern)
    blocks = _blocks(texts)
    waiting: list[list[str]] = []
    characters = 0
    for block in blocks:
        waiting.append(block)
        characters += sum(map(len, block))
        if characters >= PARALLEL_CHARACTERS:
            break
    helpers = workers - 1 if characters >= PARALLEL_CHARACTERS else 0
    processes = [_start_worker(pattern) for _ in range(helpers)]
    try:
        turn = 0
        for block in _chain(waiting, blocks):
            if turn < helpers:
                _send(processes[turn], block)
            else:
                for text in block:
                    counter.update(text)
            turn = (turn + 1) % (helpers + 1)
        for process in processes:
            _send(process, [])
        counts = counter.result()
        for process in processes:
            counts.update(_answer(process))
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            for pipe in (process.stdin, process.stdout, process.stderr):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            process.wait()
    return counts


def _chain(waiting: list[list[str]], blocks: Iterator[list[str]]) -> Iterator[list[str]]:
    while waiting:
        yield waiting.pop(0)
    yield from blocks


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of texts of about `BLOCK_CHARACTERS` together; a longer text is cut where a pre-token begins."""
    block: list[str] = []
    characters = 0
    for text in texts:
        for part in parts_of(text):
            block.append(part)
            characters += len(part)
            if characters >= BLOCK_CHARACTERS:
                yield block
                block, characters = [], 0
    if block:
        yield block


def parts_of(text: str, characters: int = BLOCK_CHARACTERS) -> Iterator[str]:
    """Cuts a long text into parts of about so many characters, before a space that follows a character that is none.

    U+2581, which SentencePiece takes for a space, counts as one here.
    """
    start = 0
    while len(text) - start > characters:
        end = text.find(" ", start + characters)
        while end != -1 and (text[end - 1].isspace() or text[end - 1] == "\u2581"):
            end = text.find(" ", end + 1)
        if end == -1:
            break
        yield text[start:end]
        start = end
    yield text[start:] if start else text


def _start_worker(pattern: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", str(Path(__file__).resolve())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _send(process, pattern)
    return process


def _send(process: subprocess.Popen[bytes], message: object) -> None:
    assert process.stdin is not None
    try:
        pickle.dump(message, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
    except BrokenPipeError:
        raise _failure(process) from None


def _answer(process: subprocess.Popen[bytes]) -> Counter[str]:
    assert process.stdout is not None
    answer = process.stdout.read()
    if process.wait() != 0 or not answer:
        raise _failure(process)
    return pickle.loads(answer)


def _failure(process: subprocess.Popen[bytes]) -> RuntimeError:
    assert process.stderr is not None
    said = process.stderr.read().decode("utf-8", "replace").strip()
    return RuntimeError(f"a process that counts pre-tokens ended early (exit status {process.wait()}): {said}")


def _work() -> None:
    counter = PretokenCounter(pickle.load(sys.stdin.buffer))
    while texts := pickle.load(sys.stdin.buffer):
        for text in texts:
            counter.update(text)
    pickle.dump(counter.result(), sys.stdout.buffer, protocol=pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    _work()
