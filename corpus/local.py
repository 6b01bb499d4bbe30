"""Text files on this machine: single ones, folders and globs of them, in every format that `corpus.readers` reads."""

import contextlib
import glob
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from corpus.documents import Document
from corpus.readers import COMPRESSIONS, KINDS, BrokenFileError, read_file

# Of an uncompressed .json only its user knows whether it holds a record a line; folders are full of others.
_IN_FOLDERS = sorted((KINDS.keys() | COMPRESSIONS.keys()) - {".json"})
_RECORD = re.compile(r"(?s:(.+\.(?:{})))#[^#]*".format("|".join(e[1:] for e in [*KINDS, *COMPRESSIONS])), re.I)

_log = logging.getLogger(__name__)


def read_local(
    paths: Sequence[str | Path], *, text_field: str = "text", skip_broken: bool = False
) -> Iterator[Document]:
    """The documents of files, in the order of `paths`, the files of a folder or glob sorted by path.

    A folder gives the files in it and below it whose endings are known (txt; jsonl and ndjson; parquet; tar; gz, xz
    and zst of all but parquet), hidden ones left out; a path to a file gives that file whatever its ending, and a glob
    (`*`, `?`, `[…]`, `**`) what the shell would give for it. A file reached twice is read once. See
    `corpus.readers.read_file` for what each kind of file yields, and `file_of` for the file of a document. The paths
    are checked when this is called; the files are read one at a time as the iterator advances.

    Args:
        paths: files, folders and globs.
        text_field: field of JSON records, or column of parquet files, that holds the text.
        skip_broken: leave out files that cannot be read, are damaged or binary, or hold no text, each named in a
            warning, instead of stopping at the first. A damaged compressed file yields nothing; of a damaged parquet
            file or of JSON lines with a wrong one, the records before the damage stay.

    Raises:
        ValueError: a path does not exist or cannot be read, a folder or glob holds no text, a file is broken (with
            `skip_broken`: all are), records have no such field.
    """
    return read_files(find_files(paths), text_field=text_field, skip_broken=skip_broken)


def read_files(
    files: Iterable[Path],
    *,
    text_field: str = "text",
    skip_broken: bool = False,
    read_special: Callable[[Path], Document | None] = lambda path: None,
) -> Iterator[Document]:
    """The documents of files that exist, as `read_local` reads them.

    Args:
        text_field, skip_broken: as for `read_local`.
        read_special: reads a file that is more than text, and returns None for all others.
    """

    def leave_out(error: BrokenFileError) -> None:
        if not skip_broken:
            raise error
        _log.warning("left out: %s", error)

    is_empty, broken = True, None
    for file in files:
        try:
            special = read_special(file)
            for document in [special] if special else read_file(file, text_field=text_field, on_broken=leave_out):
                is_empty = False
                yield document
        except BrokenFileError as error:
            leave_out(error)
            broken = error
    if is_empty and broken:
        raise ValueError(f"expected at least one file that can be read, got none; the last error was: {broken}")


def file_of(name: str) -> str:
    """The file from which `read_local` read the document of this name: its path without `#NUMBER` or `#MEMBER`."""
    match = _RECORD.fullmatch(name)
    return match[1] if match else name


def find_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files that `read_local` would read, in its order.

    Raises:
        ValueError: no path is given, a path does not exist or cannot be listed, a folder holds no file of a known
            ending, a glob matches nothing.
    """
    if not paths:
        raise ValueError("expected at least one text file or folder, got none; give a path to your text")
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        for file in _matches(path):
            for one in _text_files_below(file) if file.is_dir() else [file]:
                found.setdefault(one.resolve(), one)
    return list(found.values())


def fingerprint(paths: Sequence[str | Path], known: Iterable[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """What tells whether the files that `find_files` finds are still the same: a record a file, as JSON, in its order.

    Args:
        paths: files, folders and globs.
        known: an earlier fingerprint; a file of the same size and time of modification is not read again.

    Returns:
        `{"path": …, "bytes": …, "modified": nanoseconds since 1970, "sha256": …}` a file; None for what cannot be read.

    Raises:
        ValueError: as `find_files`.
    """
    earlier = {record["path"]: record for record in known}
    records = []
    for path in find_files(paths):
        record: dict[str, Any] = {"path": path.as_posix(), "bytes": None, "modified": None, "sha256": None}
        with contextlib.suppress(OSError):  # of a file that cannot be read; who reads it says so, or leaves it out
            stat = path.stat()
            record |= {"bytes": stat.st_size, "modified": stat.st_mtime_ns}
            before = earlier.get(record["path"], {})
            if all(record[key] == before.get(key) for key in ("bytes", "modified")):
                record["sha256"] = before["sha256"]
            else:
                with path.open("rb") as file:
                    record["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        records.append(record)
    return records


def describe_changes(before: Iterable[dict[str, Any]], after: Iterable[dict[str, Any]]) -> str:
    """What happened to the files between two fingerprints, such as "1 file added (b.txt), 1 edited (a.txt)".

    Returns:
        "" where the same bytes come in the same order, whatever the files are called.
    """
    old, new = ({record["path"]: record["sha256"] for record in records} for records in (before, after))
    if list(old.values()) == list(new.values()):
        return ""
    kinds = {
        "added": [path for path in new if path not in old],
        "removed": [path for path in old if path not in new],
        "edited": [path for path in new if path in old and new[path] != old[path]],
    }
    parts = [f"{_counted(len(found), 'file')} {kind} ({_some(found)})" for kind, found in kinds.items() if found]
    return ", ".join(parts) or "the files come in another order"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:3], *(["…"] if len(names) > 3 else [])])


def _matches(path: Path) -> list[Path]:
    """The files and folders that a path or glob stands for."""
    if path.is_dir() or path.is_file():
        return [path]
    if os.path.lexists(path):
        raise ValueError(f"{path}: expected a text file or a folder, got something else (a device, pipe or dead link)")
    if not glob.has_magic(str(path)):
        raise ValueError(f"{path}: no such file or folder (looked from {Path.cwd()}); check the path")
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 (Path has no such)
    if "**" in path.parts:  # it matches the folders on the way as well
        matches = [match for match in matches if match.is_file()]
    if not matches:
        raise ValueError(f"{path}: no file or folder matches (looked from {Path.cwd()}); check the pattern")
    return matches


def _text_files_below(folder: Path) -> list[Path]:
    found: list[Path] = []

    def fail(error: OSError) -> None:
        raise ValueError(
            f"{error.filename}: expected a readable folder, got: {error.strerror}; check its permissions"
        ) from error

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() in _IN_FOLDERS and not name.startswith(".") and path.is_file():
                found.append(path)
    if not found:
        endings = ", ".join(_IN_FOLDERS)
        raise ValueError(f"{folder}: expected a folder with text files ({endings}), got none in it or below it")
    return sorted(found)
