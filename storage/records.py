"""JSON files and JSON Lines: one rule for Unicode, line ends and damage.

A line ends at `\\n` alone: U+0085, U+2028 and U+2029 may be in a text, and `str.splitlines` would cut there.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

from storage.files import atomic_file, explain_write_errors

REPLACE = "Put an intact copy in its place, or make it again with what wrote it."
"""What to do with a damaged file of which no more is known."""


def read_json(path: Path, advice: str = REPLACE) -> Any:
    """The value in a JSON file.

    Args:
        advice: what to do where the file is damaged, in sentences (default: get it again).

    Raises:
        ValueError: there is no such file, it cannot be read, or it is not UTF-8 JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: expected a JSON file, but there is no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"{path}: expected JSON, but it cannot be read ({reason}). The file is damaged. {advice}"
        ) from error


def is_json_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a JSON value is an object; its keys are strings then."""
    return isinstance(value, dict)


def read_json_object(path: Path, advice: str = REPLACE) -> dict[str, Any]:
    """The object in a JSON file; `advice` is that of `read_json`.

    Raises:
        ValueError: as `read_json`, or the file holds something else than an object.
    """
    value = read_json(path, advice)
    if not is_json_object(value):
        raise ValueError(f"{path}: expected a JSON object, got a {type(value).__name__}. The file is damaged. {advice}")
    return value


def read_json_object_or_empty(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where `read_json_object` raises.

    For a reader that watches files which another process writes and deletes.
    """
    try:
        return read_json_object(path)
    except ValueError:
        return {}


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically: indented, UTF-8, with a final line end.

    Raises:
        OSError: it cannot be written.
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    content = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as stream:
        stream.write(content + "\n")


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested objects by their dotted names: `{"model": {"norm": "rmsnorm"}}` has `model.norm`."""
    if not is_json_object(tree):
        return {prefix: tree}
    named = ((f"{prefix}.{key}" if prefix else key, value) for key, value in tree.items())
    return {name: leaf for key, value in named for name, leaf in flatten(value, key).items()}


def read_jsonl(path: Path, advice: str = REPLACE) -> list[dict[str, Any]]:
    """The objects of a .jsonl file; none where there is no file (a page may look while it is deleted).

    A last line without its end is left out: its writer is not done with it, or was killed. `advice` is that of
    `read_json`.

    Raises:
        ValueError: another line is not a JSON object.
    """
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return []
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is None:
            excerpt = line[:60].decode("utf-8", "replace")
            raise ValueError(f"{path}: expected JSON in line {number}, got {excerpt!r}. The file is damaged. {advice}")
        records.append(record)
    return records


def append_jsonl(path: Path, record: dict[str, Any]) -> None:
    """Append one line.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have.
        OSError: it cannot be written; the lines before are kept.
    """
    line = _line(record)
    with explain_write_errors(path, "the lines before are kept"), path.open("ab") as stream:
        stream.write(line)


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write a .jsonl file atomically."""
    with atomic_file(path, "wb") as stream:
        stream.writelines(map(_line, records))


class JsonlFollower:
    """The objects of a .jsonl file that another process appends to, read as they come.

    Each `read` reads only what was appended since the one before. A last line without its end waits for it, a broken
    line is left out and counted, and a file that was replaced or cut is read from its beginning.

    Args:
        path: the file; it need not exist yet.
        integer_field: a line counts as broken unless this field holds an integer; None (default): no field is checked.
    """

    def __init__(self, path: Path, integer_field: str | None = None) -> None:
        self.path, self.integer_field = path, integer_field
        self.records: list[dict[str, Any]] = []
        self.broken = 0  # lines that are not JSON objects
        self.offset = 0  # bytes read
        self._file: tuple[int, int] | None = None

    def read(self) -> bool:
        """Read what is new; whether anything changed."""
        try:
            with self.path.open("rb") as stream:
                found = os.fstat(stream.fileno())
                identity = (found.st_dev, found.st_ino)
                again = self._file is not None and (self._file != identity or found.st_size < self.offset)
                if again:
                    self._reset()
                self._file = identity
                stream.seek(self.offset)
                *lines, _ = stream.read().split(b"\n")
        except OSError:
            existed = self._file is not None
            self._reset()
            return existed
        self.offset += sum(len(line) + 1 for line in lines)
        for line in lines:
            record = _parse(line)
            if record is not None and (not self.integer_field or type(record.get(self.integer_field)) is int):
                self.records.append(record)
            elif line.strip():
                self.broken += 1
        return again or bool(lines)

    def _reset(self) -> None:
        self.records, self.broken, self.offset, self._file = [], 0, 0, None


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if is_json_object(value) else None
