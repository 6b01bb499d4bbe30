"""Writing many texts into one file: the process can be killed at any time, and the same call continues where it was.

`NAME.part` is the file so far; `NAME.part.json` says how many of its bytes count, and where the source continues. When
the file is complete it gets its name; then `NAME.part.lock` is removed, and NAME.part.json last of all: beside a file
that has its name it says that a process was killed in between, and which command the file is of.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import zstandard
from tqdm import tqdm

from storage.checksums import describe_damage, is_seal_broken, sealed
from storage.files import explain_write_errors
from storage.records import read_json_object, write_json

ENDINGS = (".txt", ".jsonl", ".txt.zst", ".jsonl.zst")

_SAVE_BYTES = 8_000_000  # of text, or
_SAVE_SECONDS = 5.0  # whichever comes first
_ZSTD_LEVEL = 6  # 60 MB/s, a third of the size

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Some texts of a source."""

    texts: list[tuple[str, bool]]  # (text, whether it is complete); pieces of a long text but for its last are not
    source_bytes: int  # by how much they advance the progress bar
    position: Any  # where the source continues after them, as JSON


def write_texts(
    path: Path,
    made_from: dict[str, Any],
    read: Callable[[Any], Iterator[Batch]],
    *,
    total: int | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> str:
    """Write the texts of a source into a file, or continue where an earlier process stopped.

    In a .txt every text ends with a line end, one of several lines also with an empty line, and pieces of a text follow
    one another as they are. In a .jsonl every text and every piece is a record `{"text": …}`.

    Args:
        path: the final name; its ending says what is written: .txt, .jsonl, .txt.zst or .jsonl.zst.
        made_from: what is written, as JSON; only the same is continued.
        read: yields the batches after a position, None for the beginning.
        total: bytes of the source, for the progress bar (default: unknown).
        limit: stop after the text with which so many bytes are reached (default: no limit).
        progress: whether to show a progress bar (default: yes).

    Returns:
        A sentence about what was written, also where an earlier process was killed after the file was complete.

    Raises:
        ValueError: another ending, the name is taken, another process writes the file, the .part file is made from
            something else, or there was no text.
        OSError: it cannot be written; the message says what to do.
    """
    if not any(path.name.endswith(ending) and path.name != ending for ending in ENDINGS):
        raise ValueError(f"{path}: expected a name that ends with {', '.join(ENDINGS)}, got another; change it")
    state_path = path.with_name(path.name + ".part.json")
    if os.path.lexists(path) and not state_path.is_file():  # nor is a lock file made beside it
        raise _taken(path)
    with _locked(path):
        if os.path.lexists(path):
            try:
                state = _read_state(state_path)
            except ValueError:
                raise _taken(path) from None
            if state["made_from"] != made_from or not _has_size(path, state["size"]):
                raise _taken(path)
            texts, text_bytes = state["texts"], state["text_bytes"]
        else:
            with _PartFile(path, made_from) as part:
                _copy(read, part, total=total, limit=limit, progress=progress)
                part.finish()
            texts, text_bytes = part.texts, part.text_bytes
    with explain_write_errors(path, "it is complete"):
        state_path.unlink(missing_ok=True)
    return f"{path}: {texts:,} texts, {text_bytes:,} bytes"


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _taken(path: Path) -> ValueError:
    return ValueError(f"{path}: expected a name that is free, but it exists; remove it or choose another name")


def _copy(
    read: Callable[[Any], Iterator[Batch]], part: "_PartFile", *, total: int | None, limit: int | None, progress: bool
) -> None:
    """Append what is left of the source, up to the limit."""
    with tqdm(
        desc=part.path.name,
        total=total,
        initial=part.source_bytes,
        unit="B",
        unit_scale=True,
        dynamic_ncols=True,
        disable=not progress,
    ) as bar:
        is_full = limit is not None and part.text_bytes >= limit
        for batch in [] if is_full else read(part.position):
            for text, is_complete in batch.texts:
                if text and not is_full:
                    part.append(text, is_complete)
                    is_full = limit is not None and part.text_bytes >= limit
            part.reached(batch)
            bar.update(batch.source_bytes)
            if is_full:
                break


def _read_state(path: Path) -> dict[str, Any]:
    """What a .part.json says.

    Raises:
        ValueError: it is damaged.
    """
    state = read_json_object(path)
    if is_seal_broken(state):
        raise ValueError(f"{path}: expected it as it was written, but {describe_damage([path.name])}")
    if missing := {"made_from", "size", "texts", "text_bytes", "position"} - state.keys():
        raise ValueError(f"{path}: expected it as it was written, but it lacks {' and '.join(sorted(missing))}")
    return state


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(path.name + ".part.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ValueError(f"{path}: another process is writing it; wait for it or choose another name") from None
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):
            Path(lock.lock_file).unlink()


class _PartFile:
    """The .part file and its state."""

    def __init__(self, path: Path, made_from: dict[str, Any]) -> None:
        self.path, self.made_from = path, made_from
        self.part_path, self.state_path = (path.with_name(path.name + ending) for ending in (".part", ".part.json"))
        size = self.texts = self.text_bytes = self.source_bytes = 0
        self.position: Any = None
        self._pending: list[bytes] = []
        self._pending_bytes, self._saved_at = 0, time.monotonic()
        if state := self._saved_state():
            size, self.texts, self.text_bytes = state["size"], state["texts"], state["text_bytes"]
            self.position, self.source_bytes = state["position"]["source"], state["position"]["read"]
        with explain_write_errors(path):
            if not size:
                self.state_path.unlink(missing_ok=True)  # it says nothing of the file that begins now
            self._file = self.part_path.open("r+b" if size else "w+b")
            self._file.truncate(size)  # what a killed process wrote after its last save
            self._file.seek(0, os.SEEK_END)

    def _saved_state(self) -> dict[str, Any] | None:
        """What an earlier process saved; None where there is nothing to continue from."""
        if not (self.part_path.is_file() and self.state_path.is_file()):
            return None
        try:
            state = _read_state(self.state_path)
        except ValueError as error:
            logger.warning("%s; the file begins again", error)
            return None
        if state["made_from"] != self.made_from:
            different = [key for key, value in self.made_from.items() if state["made_from"].get(key) != value]
            raise ValueError(
                f"{self.part_path}: expected what an earlier run of the same command left, got that of one with "
                f"another {' and '.join(different)}; delete it to start again, or choose another name"
            )
        return state if self.part_path.stat().st_size >= state["size"] else None

    def __enter__(self) -> "_PartFile":
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # what could not be written is tried again; the first error speaks for itself
            self._file.close()
        if not self.state_path.exists():  # nothing was saved, so nothing can be continued
            self.part_path.unlink(missing_ok=True)

    def append(self, text: str, is_complete: bool) -> None:
        raw = text.encode()
        self.texts += is_complete
        self.text_bytes += len(raw)
        if ".jsonl" in self.path.suffixes:
            raw = json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n"
        elif is_complete:
            raw = raw if raw.endswith(b"\n") else raw + b"\n"
            raw += b"\n" if b"\n" in raw[:-1] else b""
        self._pending.append(raw)
        self._pending_bytes += len(raw)

    def reached(self, batch: Batch) -> None:
        """Everything up to the end of `batch` was appended; save it now and then."""
        self.position = batch.position
        self.source_bytes += batch.source_bytes
        if self._pending_bytes >= _SAVE_BYTES or time.monotonic() - self._saved_at >= _SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        content = b"".join(self._pending)
        if self.path.suffix == ".zst" and content:  # a frame of its own
            content = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compress(content)
        with explain_write_errors(self.path):
            self._file.write(content)
            self._file.flush()
            os.fsync(self._file.fileno())
        state = {"made_from": self.made_from, "size": self._file.tell(), "texts": self.texts}
        state |= {"text_bytes": self.text_bytes, "position": {"source": self.position, "read": self.source_bytes}}
        write_json(self.state_path, sealed(state))
        self._pending, self._pending_bytes, self._saved_at = [], 0, time.monotonic()

    def finish(self) -> None:
        """Save what is left, and give the file its name; its state stays."""
        if not self.text_bytes:
            self.state_path.unlink(missing_ok=True)
            raise ValueError(f"{self.path}: expected text to write, got none; nothing was left under this name")
        self._save()
        self._file.close()  # Windows renames no open file
        with explain_write_errors(self.path):
            self.part_path.replace(self.path)
