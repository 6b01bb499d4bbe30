"""A text file that is written for hours: it can be killed at any time, goes on where it was, and appears when whole.

What is there so far is `NAME.part`; `NAME.part.json` says how much of it counts, and where its source goes on.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import zstandard

from storage.files import atomic_file, explain_write_errors

ENDINGS = (".txt", ".jsonl", ".txt.zst", ".jsonl.zst")

_SAVE_BYTES = 8_000_000  # of text, or
_SAVE_SECONDS = 5.0  # whichever comes first
_LEVEL = 6  # of zstd: 60 MB/s, a third of the size


class PartialFile:
    """The file while it is written; made by `open_partial`."""

    def __init__(self, path: Path, file: BinaryIO, made_from: dict[str, Any], saved: dict[str, Any]) -> None:
        self.path = path
        self.position: Any = saved.get("position")
        """Where the source goes on; None at the beginning."""
        self.texts: int = saved.get("texts", 0)
        """How many texts were written."""
        self.text_bytes: int = saved.get("text_bytes", 0)
        """How long they are, in UTF-8."""
        self._file = file
        self._made_from = made_from
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._saved_at = time.monotonic()

    def write(self, text: str, *, is_complete: bool = True) -> int:
        """Appends a text, or a piece of one, and returns its bytes in UTF-8.

        In a .txt every text ends with a line end, one of several lines also with an empty line, and pieces of a text
        follow one another as they are. In a .jsonl every text and every piece is a record `{"text": …}`.
        """
        size = len(text.encode())
        if ".jsonl" in self.path.suffixes:
            content = json.dumps({"text": text}, ensure_ascii=False) + "\n"
        elif not is_complete:
            content = text
        else:
            content = text if text.endswith("\n") else text + "\n"
            content += "\n" if "\n" in content[:-1] else ""
        self._pending.append(content.encode())
        self._pending_bytes += size
        self.texts += is_complete
        self.text_bytes += size
        return size

    def reached(self, position: Any) -> None:
        """Says that everything before `position`, which is JSON, has been written; saves it now and then."""
        self.position = position
        if self._pending_bytes >= _SAVE_BYTES or time.monotonic() - self._saved_at >= _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Makes what is written so far survive anything."""
        content = b"".join(self._pending)
        if self.path.suffix == ".zst" and content:  # a frame of its own
            content = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(content)
        with explain_write_errors(self.path):
            self._file.write(content)
            self._file.flush()
            os.fsync(self._file.fileno())
            size = self._file.tell()
        state = {"made_from": self._made_from, "size": size, "position": self.position}
        with atomic_file(_state_path(self.path)) as file:
            json.dump(state | {"texts": self.texts, "text_bytes": self.text_bytes}, file)
        self._pending.clear()
        self._pending_bytes = 0
        self._saved_at = time.monotonic()


@contextmanager
def open_partial(path: Path, made_from: dict[str, Any]) -> Iterator[PartialFile]:
    """Opens a text file to be written on from where an earlier process left it; when the block ends well it takes its
    name.

    Args:
        path: the final name; its ending says what is written: .txt, .jsonl, .txt.zst or .jsonl.zst.
        made_from: what is written, as JSON; only the same goes on.

    Raises:
        ValueError: another ending, the name is taken, another process writes it, what lies there is made from
            something else, or nothing was written.
        OSError: it cannot be written; the message says what to do.
    """
    if not any(path.name.endswith(ending) and path.name != ending for ending in ENDINGS):
        raise ValueError(f"{path}: expected a name that ends with {', '.join(ENDINGS)}, got another; change it")
    if os.path.lexists(path):
        raise ValueError(f"{path}: expected a name that is free, but it exists; remove it or choose another name")
    part, state_path = _part_path(path), _state_path(path)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(path.name + ".part.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ValueError(f"{path}: another process is writing it; wait for it or choose another name") from None
    try:
        saved = _read_state(path, made_from)
        with explain_write_errors(path):
            file = part.open("r+b" if saved else "w+b")
        with file:
            file.truncate(saved.get("size", 0))
            file.seek(0, os.SEEK_END)
            partial = PartialFile(path, file, made_from, saved)
            yield partial
            if not partial.text_bytes:
                state_path.unlink(missing_ok=True)
                raise ValueError(f"{path}: expected text to write, got none; nothing was left under this name")
            partial.save()
        with explain_write_errors(path):
            part.replace(path)
        state_path.unlink()
    finally:
        if not state_path.exists():  # then nothing can go on from what is there
            part.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            Path(lock.lock_file).unlink()


def _read_state(path: Path, made_from: dict[str, Any]) -> dict[str, Any]:
    """What an earlier process saved; {} where there is nothing to go on from."""
    part, state_path = _part_path(path), _state_path(path)
    if not (part.is_file() and state_path.is_file()):
        return {}
    state = json.loads(state_path.read_text(encoding="utf-8"))
    if state["made_from"] != made_from:
        different = [key for key, value in made_from.items() if state["made_from"].get(key) != value]
        raise ValueError(
            f"{part}: expected what an earlier run of the same command left, got that of one with another "
            f"{' and '.join(different)}; delete it to begin again, or choose another name"
        )
    return {} if part.stat().st_size < state["size"] else state


def _part_path(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _state_path(path: Path) -> Path:
    return path.with_name(path.name + ".part.json")
