"""Checksums of what was written, and what no longer matches them.

A folder has them in SHA256SUMS, in the format of sha256sum (`sha256sum -c SHA256SUMS` checks it by hand); a JSON object
has that of all its other fields under `checksum`. Folders and objects without any, of older versions or made by hand,
cannot be checked and count as intact, without a word.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.files import matching_paths

SUMS = "SHA256SUMS"
FIELD = "checksum"


def file_checksum(path: Path, length: int | None = None) -> str:
    """The SHA-256 of a file, in hexadecimal digits.

    Args:
        length: of its first so many bytes; None (default): of all.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        if length is None:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        return hashlib.sha256(stream.read(length)).hexdigest()


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS into a folder that is complete but for it: a line for every file in it, hidden ones left out."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    listed = [name for name in names if name != SUMS and not any(part.startswith(".") for part in name.split("/"))]
    lines = [f"{file_checksum(folder / name)}  {name}\n" for name in listed]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def read_checksums(folder: Path) -> dict[str, str]:
    """The checksums in a folder's SHA256SUMS by the names of the files; none where it has no such file.

    A line that is damaged has a name or a checksum that fits no file.
    """
    path = folder / SUMS
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}


def damaged_files(folder: Path, checksums: Mapping[str, str] | None = None, *, leave_out: str = "") -> list[str]:
    """The names of a folder's files that are missing or do not have their checksum, sorted.

    Args:
        checksums: by name; None (default): those of SHA256SUMS.
        leave_out: names that begin with this are not read; "" (default): all are.
    """
    known = read_checksums(folder) if checksums is None else checksums
    names = [name for name in known if not (leave_out and name.startswith(leave_out))]
    return sorted(name for name in names if not _is_intact(folder, name, known[name]))


def _is_intact(folder: Path, name: str, checksum: str) -> bool:
    """Whether a file of a folder has its checksum; nothing else is opened, since a folder of somebody else may name
    anything: a device or a pipe, whose reading never ends."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return False
    try:
        return (folder / name).is_file() and file_checksum(folder / name) == checksum
    except (OSError, ValueError):  # unreadable; or a damaged name with a NUL
        return False


def file_stamps(folder: Path, endings: tuple[str, ...]) -> dict[str, tuple[int, int, int]]:
    """Inode, size in bytes and modification time of the files of a folder with these endings, by name.

    Two equal answers mean that nobody replaced or wrote one of them in between; no file is read.
    """
    found: dict[str, tuple[int, int, int]] = {}
    for path in matching_paths(folder, "*"):
        with contextlib.suppress(OSError):  # it was removed just now: it is missing from the answer
            if path.name.endswith(endings):
                state = path.stat()
                found[path.name] = (state.st_ino, state.st_size, state.st_mtime_ns)
    return found


def describe_damage(names: list[str]) -> str:
    """A clause that names damaged files, for a message: "a.json and b.json do not have the checksums they had"."""
    listed = [*names[:5], f"{len(names) - 5} more"] if len(names) > 6 else names
    shown = " and ".join(filter(None, (", ".join(listed[:-1]), listed[-1])))
    one = len(names) == 1
    return (
        f"{shown} {'does' if one else 'do'} not have the {'checksum it' if one else 'checksums they'} had when written"
    )


def check_folder(folder: Path, advice: str, *, leave_out: str = "") -> None:
    """Refuse a folder whose files do not match its SHA256SUMS.

    Args:
        advice: what to do, a sentence.
        leave_out: as for `damaged_files`.

    Raises:
        ValueError: naming the files.
    """
    if damaged := damaged_files(folder, leave_out=leave_out):
        raise ValueError(
            f"{folder}: expected the files as they were written, but {describe_damage(damaged)}. {advice} (Where it "
            f"was changed on purpose, delete {SUMS}.)"
        )


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with the checksum of its fields."""
    fields = {key: part for key, part in value.items() if key != FIELD}
    return {FIELD: _object_checksum(fields), **fields}  # the first line, which an editor deletes without a trace


def is_seal_broken(value: dict[str, Any]) -> bool:
    """Whether a JSON object has a checksum, and it is not that of its fields."""
    return FIELD in value and value[FIELD] != _object_checksum(value)


def check_seal(path: Path, value: dict[str, Any], advice: str) -> None:
    """Refuse the JSON object of a file that has a checksum, and it is not that of its fields.

    Args:
        advice: what to do, in sentences.

    Raises:
        ValueError: naming the file.
    """
    if is_seal_broken(value):
        raise ValueError(f"{path}: expected the file as it was written, but {describe_damage([path.name])}. {advice}")


def _object_checksum(value: dict[str, Any]) -> str:
    fields = {key: part for key, part in value.items() if key != FIELD}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
