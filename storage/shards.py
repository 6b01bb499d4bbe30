"""Token shards: a streaming writer and a memory-mapped reader, with a manifest that says what they hold.

    tokens/train-00000.npy …, tokens/validation-00000.npy …, tokens/manifest.json

A split is one long sequence `E d1 E d2 E … dn E`, where E is the document separator `<|endoftext|>`; every document
therefore has its own beginning and end to predict. The manifest is written last: a folder without it is unfinished.

A split of chats has a second sequence beside it, `marks`, with a number for each id: whether a chat begins with it, and
whether it belongs to an answer.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.checksums import FIELD, check_seal, damaged_files, describe_damage, file_checksum, is_seal_broken, sealed
from storage.files import atomic_file
from storage.records import read_json_object, write_json
from storage.text import first_line

SHARD_TOKENS = 2**26
READS_PER_MAP = 1000
MOST_MAPS = 64
"""Shards that are mapped at a time: each keeps a file descriptor, of which a process may have 256 on macOS."""
MANIFEST = "manifest.json"
MARK_READ, MARK_ANSWER, MARK_FIRST = 0, 1, 2
"""Of an id in a chat: it is read only; it belongs to an answer, its end included; it is the first of its chat."""


@dataclass(kw_only=True, slots=True)
class SplitWriter:
    """Appends ids to the shards of one split; at most one shard is in memory."""

    folder: Path
    name: str  # "train" or "validation"
    dtype: npt.DTypeLike
    shard_tokens: int = SHARD_TOKENS
    tokens: int = 0
    files: list[str] = field(default_factory=list[str])
    checksums: dict[str, str] = field(default_factory=dict[str, str])  # by file
    _pending: list[np.ndarray] = field(default_factory=list[np.ndarray])
    _pending_tokens: int = 0

    def append(self, ids: np.ndarray) -> None:
        """Append ids; a full shard goes to the disk."""
        while len(ids):
            part, ids = np.split(ids, [self.shard_tokens - self._pending_tokens])
            self._pending.append(part.astype(self.dtype))
            self._pending_tokens += len(part)
            self.tokens += len(part)
            if self._pending_tokens == self.shard_tokens:
                self.flush()

    def flush(self) -> None:
        """Write what is pending as a shard."""
        if not self._pending_tokens:
            return
        file = f"{self.name}-{len(self.files):05d}.npy"
        write_array(self.folder / file, self._pending, self.dtype)
        self.files.append(file)
        self.checksums[file] = file_checksum(self.folder / file)
        self._pending, self._pending_tokens = [], 0


class TokenSplit:
    """One split as a single sequence, memory-mapped; slices are read on demand.

    What was read of a mapped file counts as memory of the process until the map is closed, so the maps are opened again
    every thousand reads: memory stays flat however long a run reads at random places.

    Args:
        folder: the `tokens/` folder.
        description: the split's entry of the manifest.
    """

    def __init__(self, folder: Path, description: dict[str, Any]):
        self.tokens: int = description["tokens"]
        self.bytes: int = description["bytes"]
        self.documents: int = description["documents"]
        self.log_probability: float | None = description.get("log_probability")
        self.folder = folder
        self._checksums: dict[str, str] = description.get("sha256") or {}  # of older versions: none
        self.marks = TokenSplit(folder, description["marks"]) if description.get("marks") else None
        """Of a split of chats: `MARK_READ`, `MARK_ANSWER` or `MARK_FIRST` for each id, and as its `bytes` those of the
        answers; None for other text."""
        self._paths = [folder / file for file in description["files"]]
        self._maps: dict[int, np.ndarray] = {}
        self._reads = 0
        self._starts = np.cumsum([0] + [len(self._shard(index)) for index in range(len(self._paths))])
        if self._starts[-1] != self.tokens:
            raise ValueError(
                f"{folder}: expected {self.tokens} tokens as the manifest says, got {self._starts[-1]}; "
                "delete the folder and it is made again"
            )

    @classmethod
    def open(cls, folder: Path, name: str) -> "TokenSplit":
        """The split `train` or `validation` of a finished `tokens/` folder.

        Raises:
            ValueError: the folder has no manifest, it has no such split, or the shards do not fit it.
            OSError: a shard cannot be read.
        """
        manifest = read_json_object(folder / MANIFEST)
        if name not in manifest:
            raise ValueError(f"{folder}: expected a split called {name}, but the manifest has none")
        return cls(folder, manifest[name])

    def __len__(self) -> int:
        return self.tokens

    def check(self, again: str = "the same command") -> None:
        """Read all shards and compare them with their checksums, where the manifest has them.

        Args:
            again: what makes the folder again once it is deleted, for the message.

        Raises:
            ValueError: naming the shards that are damaged.
        """
        if damaged := damaged_files(self.folder, self._checksums):
            raise ValueError(
                f"{self.folder}: expected the token shards as they were written, but {describe_damage(damaged)}. "
                f"Delete the folder, and {again} makes it again from the text"
            )
        if self.marks is not None:
            self.marks.check(again)

    def _shard(self, index: int) -> np.ndarray:
        if index not in self._maps:
            if len(self._maps) == MOST_MAPS:
                del self._maps[next(iter(self._maps))]
            again = "delete the folder, and the same command makes it again from the text"
            self._maps[index] = map_array(self._paths[index], again)
        return self._maps[index]

    def read(self, start: int, length: int) -> np.ndarray:
        """The ids from `start` on, `length` of them, int64."""
        assert start >= 0
        assert start + length <= self.tokens
        if self._reads == READS_PER_MAP:
            self._maps, self._reads = {}, 0
        self._reads += 1
        ids = np.empty(length, dtype=np.int64)
        done = 0
        while done < length:
            shard = int(np.searchsorted(self._starts, start + done, side="right")) - 1
            offset = start + done - int(self._starts[shard])
            part = self._shard(shard)[offset : offset + length - done]
            ids[done : done + len(part)] = part
            done += len(part)
        return ids

    def positions_of(self, token_id: int) -> np.ndarray:
        """The positions of `token_id`, ascending; int64."""
        found = [
            np.flatnonzero(self._shard(index) == token_id) + start for index, start in enumerate(self._starts[:-1])
        ]
        return np.concatenate(found)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a `tokens/` folder; None when there is none: the folder is unfinished.

    Raises:
        ValueError: it is broken.
    """
    path, advice = folder / MANIFEST, f"Delete {folder}, and the same command makes it again from the text."
    manifest = read_json_object(path, advice) if path.is_file() else None
    check_seal(path, manifest or {}, advice)
    return manifest and {key: value for key, value in manifest.items() if key != FIELD}


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, which completes the folder."""
    write_json(folder / MANIFEST, sealed(manifest))


def tokenizer_hash(folder: Path) -> str:
    """What identifies the tokenizer in a folder: the SHA-256 of its tokenizer.json."""
    return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()


def write_array(path: Path, arrays: Iterable[np.ndarray], dtype: npt.DTypeLike) -> int:
    """Write arrays one after the other as one .npy file [tokens], without holding them; return how many tokens.

    Args:
        path: the .npy file.
        arrays: of ids [any length], of the type `dtype`.
        dtype: of the file.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the message names `path` and what to do.
    """
    tokens = 0
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
    with atomic_file(path, "wb") as file:
        # The header is written again once the length is known; numpy leaves room for a length of 21 digits.
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (0,)})
        for ids in arrays:
            file.write(ids.tobytes())
            tokens += len(ids)
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (tokens,)})
    return tokens


def describe_ids(
    path: Path, *, tokenizer: str, tokens: int, texts: int, ends: bool, sources: list[dict[str, Any]]
) -> None:
    """Write `PATH.json` beside an array of ids, which makes it one that `read_ids` takes.

    Args:
        path: the .npy file.
        tokenizer: `tokenizer_hash` of the folder that the tokenizer is in when it is saved.
        tokens: in the array.
        texts: that were encoded.
        ends: whether the end-of-text token is after each text.
        sources: a fingerprint of the files that the texts are from; none for another source.
    """
    facts = {"tokenizer": tokenizer, "tokens": tokens, "texts": texts, "ends": ends, "sources": sources}
    write_json(_facts_file(path), sealed({"format": 1, **facts, "sha256": file_checksum(path)}))


def read_ids(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """A memory-mapped array of ids [tokens], and what `describe_ids` wrote about it.

    Raises:
        ValueError: it was not written by `python -m tokenization encode`, or is not complete.
    """
    facts, again = _facts_file(path), "write it again with `python -m tokenization encode`"
    if not facts.is_file():
        raise ValueError(f"{path}: expected {facts.name} beside it, which says whose ids they are, got none: {again}")
    described, ids = read_json_object(facts), map_array(path, again)
    if ids.shape != (described["tokens"],) or not len(ids):
        expected = f"{described['tokens']:,} tokens, as {facts.name} says"
        raise ValueError(f"{path}: expected {expected}, got an array of shape {ids.shape}: {again}")
    known = {path.name: described["sha256"]} if "sha256" in described else {}
    damaged = [facts.name] if is_seal_broken(described) else damaged_files(path.parent, known)
    if damaged:
        raise ValueError(f"{path}: expected the ids as they were written, but {describe_damage(damaged)}: {again}")
    return ids, described


def map_array(path: Path, again: str) -> np.ndarray:
    """The array in a .npy file, memory-mapped; pickled objects in it are not opened.

    Args:
        again: how it is made again, for the message.

    Raises:
        ValueError: it is damaged, or holds something else than numbers.
        OSError: it cannot be read.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # np.load opens archives of arrays and pickles too
    except ValueError as error:
        raise ValueError(
            f"{path}: expected an array of token ids, got a file that is damaged or holds something else "
            f"({first_line(error)}): {again}"
        ) from error
    return array


def _facts_file(path: Path) -> Path:
    return path.with_name(path.name + ".json")
