"""Stateful batches: which windows of the tokens come next is a function of seed and position alone.

Axes: B windows, L tokens of context. A window has L + 1 tokens: its first L are the input, its last L the targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from storage.shards import MARK_ANSWER, MARK_FIRST, TokenSplit
from train.config import DataConfig

IGNORED = -100  # the target that torch's cross entropy leaves out


@dataclass(frozen=True, slots=True)
class Batch:
    """Input ids and targets, both int64 of shape (B, L)."""

    input_BL: torch.Tensor
    target_BL: torch.Tensor

    @classmethod
    def of_windows(cls, window_BT: np.ndarray) -> "Batch":
        """From windows of L + 1 ids."""
        ids = torch.from_numpy(window_BT)
        return cls(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())

    def repeated(self, rows: int) -> "Batch":
        """Its first `rows` windows, again and again where it has fewer."""
        taken = torch.arange(rows) % len(self.input_BL)
        return Batch(self.input_BL[taken], self.target_BL[taken])


class Batches(Protocol):
    """What the loop asks of a source of batches."""

    def next(self) -> Batch:
        """The next batch."""
        ...

    def state_dict(self) -> dict[str, int]:
        """The position, as JSON values."""
        ...

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position."""
        ...


class RandomWindows:
    """Windows that begin at uniformly random tokens, as nanoGPT and most tutorials draw them."""

    def __init__(self, split: TokenSplit, *, batch_size: int, length: int, seed: int):
        self.split, self.batch_size, self.length, self.seed = split, batch_size, length, seed
        self.drawn = 0

    def next(self) -> Batch:
        """The next batch; the draw depends on the seed and on how many were drawn before."""
        random = np.random.default_rng([self.seed, self.drawn])
        starts = random.integers(0, len(self.split) - self.length, size=self.batch_size)
        self.drawn += 1
        return Batch.of_windows(np.stack([self.split.read(int(start), self.length + 1) for start in starts]))

    def state_dict(self) -> dict[str, int]:
        """How many batches were drawn."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after so many batches."""
        self.drawn = state["drawn"]


Row = tuple[np.ndarray, np.ndarray]  # input ids and targets, each of shape (L,)


class ShuffledWindows:
    """Windows that are the text once, shuffled again each epoch; subclasses say what they are.

    `windows_of(epoch)` is a function of the seed and the epoch, so that the position is two numbers.
    """

    def __init__(self, *, batch_size: int, seed: int):
        self.batch_size, self.seed = batch_size, seed
        self.epoch, self.position = 0, 0
        self._windows = self.windows_of(0)

    def windows_of(self, epoch: int) -> Sequence[Any]:
        """The windows of an epoch in their order, each as `row` takes it."""
        raise NotImplementedError

    def row(self, window: Any) -> Row:
        """The input ids and the targets of a window."""
        raise NotImplementedError

    def next(self) -> Batch:
        """The next batch; it may hold windows of two epochs."""
        rows = []
        while len(rows) < self.batch_size:
            if self.position == len(self._windows):
                self.epoch, self.position = self.epoch + 1, 0
                self._windows = self.windows_of(self.epoch)
            rows.append(self.row(self._windows[self.position]))
            self.position += 1
        return _batched(rows, self.batch_size)[0]

    def state_dict(self) -> dict[str, int]:
        """Epoch and position in it, in windows."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to an epoch and a position in it."""
        self.epoch, self.position = state["epoch"], state["position"]
        self._windows = self.windows_of(self.epoch)


class ConsecutiveWindows(ShuffledWindows):
    """Windows that follow one another through the text, from a place that moves with the epoch.

    An epoch has every token as a target, once but for those of its first and last window; windows at random places miss
    some tokens and repeat others (docs/log.md has what that costs). A window may lie across documents. An epoch takes 8
    bytes a window, and about five times as much while it is made.
    """

    def __init__(self, split: TokenSplit, *, batch_size: int, length: int, seed: int):
        self.split, self.length = split, length
        super().__init__(batch_size=batch_size, seed=seed)

    def windows_of(self, epoch: int) -> Any:
        """Where those of an epoch begin, in their order; the text's first and last window are always among them."""
        random = np.random.default_rng([self.seed, epoch])
        last = len(self.split) - self.length - 1
        starts = np.arange(random.integers(self.length), last, self.length)
        return random.permutation(np.unique(np.concatenate([[0], starts, [last]])))

    def row(self, window: int) -> Row:
        """Its ids, and as targets those one further on."""
        ids = self.split.read(int(window), self.length + 1)
        return ids[:-1], ids[1:]


class PackedWindows(ShuffledWindows):
    """Windows that begin at a document; documents are shuffled again each epoch, and each occurs once in it.

    Short documents follow one another until the window is full (what does not fit is cut); a document longer than a
    window is read in consecutive windows, from a place that moves with the epoch.
    """

    def __init__(self, split: TokenSplit, *, batch_size: int, length: int, seed: int, end_of_text: int):
        self.split, self.length = split, length
        borders = document_borders(split, end_of_text)
        lengths = np.diff(borders)
        self._short = np.flatnonzero(lengths <= length)
        self._long = np.flatnonzero(lengths > length)
        self._borders = borders
        super().__init__(batch_size=batch_size, seed=seed)

    def windows_of(self, epoch: int) -> list[list[tuple[int, int]]]:
        """Those of an epoch; the tokens of each sum to L + 1."""
        random = np.random.default_rng([self.seed, epoch])
        size = self.length + 1
        windows: list[list[tuple[int, int]]] = []
        window: list[tuple[int, int]] = []
        room = size
        for document in random.permutation(self._short):
            start, tokens = int(self._borders[document]), int(self._borders[document + 1] - self._borders[document])
            window.append((start, min(tokens, room)))
            room -= min(tokens, room)
            if not room:
                windows.append(window)
                window, room = [], size
        # Consecutive windows from a shifted start; the document's first and last window are always among them, so that
        # every token is in some window whatever the shift.
        for document in self._long:
            first, end = int(self._borders[document]), int(self._borders[document + 1]) + 1
            shift = int(random.integers(self.length))
            starts = {first, end - size, *range(first + shift, end - size, self.length)}
            windows += [[(start, size)] for start in sorted(starts)]
        return [windows[index] for index in random.permutation(len(windows))]

    def row(self, window: list[tuple[int, int]]) -> Row:
        """Its ids, and as targets those one further on."""
        ids = np.concatenate([self.split.read(start, tokens) for start, tokens in window])
        return ids[:-1], ids[1:]


class ChatWindows(ShuffledWindows):
    """Windows of complete chats, one behind the other as long as they fit; only answers have targets.

    A chat that is longer than a window is cut on its left, as a prompt is that is too long. What is left of a window is
    filled with end-of-text tokens without a target.
    """

    def __init__(self, split: TokenSplit, *, batch_size: int, length: int, seed: int, end_of_text: int):
        self.split, self.length, self.end_of_text = split, length, end_of_text
        self._chats = chat_places(split, length)
        super().__init__(batch_size=batch_size, seed=seed)

    def windows_of(self, epoch: int) -> list[list[tuple[int, int]]]:
        """Those of an epoch: its chats in a new order, packed."""
        random = np.random.default_rng([self.seed, epoch])
        return pack([self._chats[index] for index in random.permutation(len(self._chats))], self.length)

    def row(self, window: list[tuple[int, int]]) -> Row:
        """Its chats."""
        return chat_row(self.split, window, length=self.length, end_of_text=self.end_of_text)


def micro_batch_size(config: DataConfig) -> int:
    """Windows of a batch that are computed at a time."""
    return config.batch_size // config.gradient_accumulation_steps


def training_batches(
    split: TokenSplit, windows: str, *, batch_size: int, length: int, seed: int, end_of_text: int
) -> Batches:
    """The batches of a run; `windows` is `random`, `shuffled` or `packed`, and does not count for chats."""
    if split.marks is not None:
        return ChatWindows(split, batch_size=batch_size, length=length, seed=seed, end_of_text=end_of_text)
    if windows == "random":
        return RandomWindows(split, batch_size=batch_size, length=length, seed=seed)
    if windows == "shuffled":
        return ConsecutiveWindows(split, batch_size=batch_size, length=length, seed=seed)
    return PackedWindows(split, batch_size=batch_size, length=length, seed=seed, end_of_text=end_of_text)


def document_borders(split: TokenSplit, end_of_text: int) -> np.ndarray:
    """Where documents begin, and the last token: document i is [borders[i], borders[i + 1]) and ends with the next."""
    return np.unique(np.concatenate([[0], split.positions_of(end_of_text), [len(split) - 1]]))


def evaluation_batches(
    split: TokenSplit, *, batch_size: int, length: int, windows: int, end_of_text: int
) -> list[Batch]:
    """The fixed set of validation windows.

    Where the split's log-probability is known, every document is scored completely and exactly once (windows are
    filled with complete documents, the rest is ignored), so that the loss and the known entropy are of the same text.
    Of chats: `windows` chats at most, evenly spaced. Elsewhere: `windows` windows, evenly spaced.
    """
    if split.marks is not None:
        rows = chat_rows(split, length=length, end_of_text=end_of_text, chats=windows)
    elif split.log_probability is not None:
        rows = _complete_documents(split, length=length, end_of_text=end_of_text)
    else:
        rows = _spaced_windows(split, length=length, windows=windows)
    return _batched(rows, batch_size)


def training_evaluation_batches(
    train: TokenSplit, validation: TokenSplit, *, batch_size: int, length: int, windows: int, end_of_text: int
) -> list[Batch]:
    """Fixed windows of the training text, evenly spaced, whose loss compares with that of `evaluation_batches`.

    They are of the same kind, complete documents where these are scored, else windows: as many as validate, `windows`
    at most.
    """
    if train.marks is not None:
        chats = min(windows, validation.documents)
        rows = chat_rows(train, length=length, end_of_text=end_of_text, chats=chats)
    elif validation.log_probability is not None:
        documents = min(windows, validation.documents)
        rows = _complete_documents(train, length=length, end_of_text=end_of_text, documents=documents)
    else:
        windows = max(1, min(windows, (len(validation) - 1) // length))
        rows = _spaced_windows(train, length=length, windows=windows)
    return _batched(rows, batch_size)


def _batched(rows: list[Row], batch_size: int) -> list[Batch]:
    inputs, targets = (torch.from_numpy(np.stack(side)) for side in zip(*rows, strict=True))
    return [Batch(*pair) for pair in zip(inputs.split(batch_size), targets.split(batch_size), strict=True)]


def _spaced_windows(split: TokenSplit, *, length: int, windows: int) -> list[Row]:
    size = min(length + 1, len(split))
    count = max(1, min(windows, (len(split) - 1) // (size - 1)))
    starts = np.linspace(0, len(split) - size, count).astype(int)
    read = [split.read(int(start), size) for start in starts]
    return [(ids[:-1], ids[1:]) for ids in read]


def _complete_documents(split: TokenSplit, *, length: int, end_of_text: int, documents: int | None = None) -> list[Row]:
    """Rows filled with complete documents: all of them, or `documents` of them, evenly spaced."""
    borders = document_borders(split, end_of_text)
    chosen = np.arange(len(borders) - 1)
    if documents is not None and documents < len(chosen):
        chosen = np.linspace(0, len(chosen) - 1, max(1, documents)).astype(int)
    rows: list[Row] = []
    room = 0
    for start, end in zip(borders[chosen], borders[chosen + 1], strict=True):
        for piece in range(int(start), int(end), length):
            ids = split.read(piece, min(length, int(end) - piece) + 1)
            if len(ids) - 1 > room:
                rows.append((np.full(length, end_of_text), np.full(length, IGNORED)))
                room = length
            at = length - room
            rows[-1][0][at : at + len(ids) - 1] = ids[:-1]
            rows[-1][1][at : at + len(ids) - 1] = ids[1:]
            room -= len(ids) - 1
    return rows


def chat_places(split: TokenSplit, length: int) -> list[tuple[int, int]]:
    """(start, ids) of each chat, of a long one the last L + 1 ids."""
    assert split.marks is not None
    starts = split.marks.positions_of(MARK_FIRST)
    ends = [*starts[1:], len(split)]
    return [
        (max(int(start), int(end) - length - 1), int(min(end - start, length + 1)))
        for start, end in zip(starts, ends, strict=True)
    ]


def pack(chats: list[tuple[int, int]], length: int) -> list[list[tuple[int, int]]]:
    """Windows of chats in their order, each as many as fit: a chat of n ids takes n - 1 positions."""
    windows: list[list[tuple[int, int]]] = []
    room = 0
    for start, ids in chats:
        if ids - 1 > room:
            windows.append([])
            room = length
        windows[-1].append((start, ids))
        room -= ids - 1
    return windows


def chat_row(split: TokenSplit, window: list[tuple[int, int]], *, length: int, end_of_text: int) -> Row:
    """The ids of some chats, and as targets those of their answers."""
    assert split.marks is not None
    inputs, targets, at = np.full(length, end_of_text), np.full(length, IGNORED), 0
    for start, count in window:
        ids, marks = split.read(start, count), split.marks.read(start, count)
        inputs[at : at + count - 1] = ids[:-1]
        targets[at : at + count - 1] = np.where(marks[1:] == MARK_ANSWER, ids[1:], IGNORED)
        at += count - 1
    return inputs, targets


def chat_rows(split: TokenSplit, *, length: int, end_of_text: int, chats: int) -> list[Row]:
    """Rows of at most `chats` chats, evenly spaced over the split, each once."""
    places = chat_places(split, length)
    chosen = np.linspace(0, len(places) - 1, min(chats, len(places))).astype(int)
    windows = pack([places[index] for index in chosen], length)
    return [chat_row(split, window, length=length, end_of_text=end_of_text) for window in windows]
