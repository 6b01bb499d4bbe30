"""Text files on this machine: single ones, folders and globs of them, in every format that `corpus.readers` reads."""

import contextlib
import filecmp
import glob
import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from corpus.documents import Document
from corpus.encodings import check_encoding, say_once, warn
from corpus.readers import BrokenFileError, EmptyFileError, Options, accepted_suffixes, read_file
from corpus.readers.records import NO_ARRAY, begins_with_bracket

_RECORD = re.compile(rf"(?s:(.+?(?:{'|'.join(map(re.escape, accepted_suffixes()))})))#[^#]*", re.I)
_ADDRESS = re.compile(r"(?:.*/)?(https?|ftp|hf|s3|gs):/+(.*)")  # a Path has one slash of them, made absolute or not

_BEGINNING = 1 << 16  # bytes


def read_local(
    paths: Sequence[str | Path],
    *,
    text_field: str = "text",
    encoding: str | None = None,
    most_unpacked: int | None = None,
    skip_broken: bool = False,
    say: Callable[[str], None] = say_once,
) -> Iterator[Document]:
    """The documents of files, in the order of `paths`, the files of a folder or glob sorted by path.

    See `find_files` for which files these are, `corpus.readers.read_file` for what each kind of file yields, and
    `file_of` for the file of a document. The paths are checked when this is called; the files are read one at a time
    as the iterator advances.

    Args:
        paths: files, folders and globs.
        text_field: field of JSON records, or column of tables and parquet files, that holds the text.
        encoding: the encoding of texts that are not UTF-8 (default: it is recognised, see `corpus.encodings`).
        most_unpacked: bytes that something compressed may expand to (default: as many as a text of its size has).
        skip_broken: leave out files that cannot be read, or are damaged or binary, each named in a warning, instead of
            stopping at the first (files without text are left out anyway). A damaged compressed file yields nothing; of
            a damaged parquet file or of JSON lines with a wrong one, the records before the damage stay.
        say: called with a line for the user about what was assumed, replaced or left out (default: logged once).

    Raises:
        ValueError: a path does not exist or cannot be read, a folder or glob holds no text, a file is broken (with
            `skip_broken`: all are), no file holds text, records have no such field, no such encoding.
    """
    files = find_files(paths, say=say)
    return read_files(
        files,
        text_field=text_field,
        encoding=encoding,
        most_unpacked=most_unpacked,
        skip_broken=skip_broken,
        say=say,
    )


def read_files(
    files: Iterable[Path],
    *,
    text_field: str = "text",
    encoding: str | None = None,
    most_unpacked: int | None = None,
    skip_broken: bool = False,
    say: Callable[[str], None] = say_once,
    read_special: Callable[[Path], Document | None] = lambda path: None,
) -> Iterator[Document]:
    """The documents of files that exist, as `read_local` reads them.

    Args:
        text_field, encoding, most_unpacked, skip_broken, say: as for `read_local`.
        read_special: reads a file that is more than text, and returns None for all others.
    """
    check_encoding(encoding)

    def leave_out(error: BrokenFileError) -> None:
        if not skip_broken:
            raise error
        warn(f"left out: {error}")

    said: set[str] = set()

    def say_new(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    def documents() -> Iterator[Document]:
        options = Options(
            text_field=text_field,
            encoding=encoding,
            most_unpacked=most_unpacked,
            on_broken=leave_out,
            say=say_new,
        )
        is_empty, broken = True, None
        empty: list[str] = []
        for file in files:
            try:
                special = read_special(file)
                for document in [special] if special else read_file(file, options):
                    is_empty = False
                    yield document
            except EmptyFileError as error:
                broken = error
                empty.append(file.as_posix())
            except BrokenFileError as error:
                broken = error
                leave_out(error)
        if empty and not is_empty:
            say(f"{_counted(len(empty), 'file')} without text left out: {_some(empty)}")
        if is_empty and len(empty) == 1 and broken:
            raise broken
        if is_empty and broken:
            raise ValueError(f"expected at least one file that can be read, got none; the last error was: {broken}")

    return documents()


def read_text(
    path: str | Path, *, text_field: str = "text", encoding: str | None = None, longest: int | None = None
) -> tuple[str, list[str]]:
    """The whole text of one file of any kind that is read, and lines for the user about how it was read.

    Documents are joined by empty lines. In the lines and in error messages the file is called by its name alone.

    Args:
        text_field, encoding: as for `read_local`.
        longest: the most characters (default: any number). Reading stops where there are more.

    Raises:
        ValueError: as `read_local`, or the text is too long.
    """
    path = Path(path)
    folder = f"{path.parent.as_posix()}/"
    notes: list[str] = []
    texts: list[str] = []
    is_complete, length = True, 0
    most = None if longest is None else 4 * longest  # bytes: a character of UTF-8 has at most four
    try:
        for document in read_local(
            [path], text_field=text_field, encoding=encoding, most_unpacked=most, say=notes.append
        ):
            texts.append(document.text if is_complete is False or not texts else "\n\n" + document.text)
            is_complete, length = document.is_complete, length + len(texts[-1])
            if longest is not None and length > longest:
                raise ValueError(f"{path.as_posix()}: expected at most {longest:,} characters in it, got more")
    except ValueError as error:
        raise ValueError(str(error).replace(folder, "")) from error
    return "".join(texts), [note.replace(folder, "") for note in notes]


def file_of(name: str) -> str:
    """The file from which `read_local` read the document of this name: its path without `#NUMBER` or `#MEMBER`."""
    match = _RECORD.fullmatch(name)
    return match[1] if match else name


def find_files(paths: Sequence[str | Path], *, say: Callable[[str], None] = say_once) -> list[Path]:
    """The files that `read_local` would read, in its order.

    A folder gives the files in it and below it whose endings are known (`corpus.readers.accepted_suffixes`); what is
    left out of it, hidden and empty files too, is said with counts. A path to a file gives that file whatever its
    ending, and a glob (`*`, `?`, `[…]`, `**`) what the shell would give for it. A file that is reached twice, or whose
    content is that of another one, is read once.

    Args:
        paths: files, folders and globs.
        say: called with a line for the user about what is left out (default: logged once).

    Raises:
        ValueError: no path is given, a path does not exist or cannot be listed or is an address, a folder holds no
            file of a known ending, a glob matches nothing.
    """
    if not paths:
        raise ValueError("expected at least one text file or folder, got none; give a path to your text")
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        for file in _matches(path):
            for one in _text_files_below(file, say) if file.is_dir() else [file]:
                found.setdefault(one.resolve(), one)
    return _without_copies(list(found.values()), say)


def _without_copies(files: list[Path], say: Callable[[str], None]) -> list[Path]:
    """The files whose content differs; only those of one size and beginning are compared."""
    sizes = Counter(_size(file) for file in files)
    alike: dict[tuple[int, bytes], list[Path]] = defaultdict(list)
    kept, copies = [], []
    for file in files:
        size = _size(file)
        original = None
        if size and sizes[size] > 1:
            with contextlib.suppress(OSError):  # it is named when it is read
                with file.open("rb") as stream:
                    same = alike[size, hashlib.sha256(stream.read(_BEGINNING)).digest()]
                original = next((other for other in same if filecmp.cmp(file, other, shallow=False)), None)
                same.append(file)
        if original:
            copies.append(f"{file.as_posix()} = {original.as_posix()}")
        else:
            kept.append(file)
    if copies:
        noun = (
            "file is identical to another and counts" if len(copies) == 1 else "files are identical to others and count"
        )
        say(f"{len(copies):,} {noun} once: {_some(copies)}")
    return kept


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


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:3], *(["…"] if len(names) > 3 else [])])


def _matches(path: Path) -> list[Path]:
    """The files and folders that a path or glob stands for."""
    if path.is_dir() or path.is_file():
        return [path]
    if address := _ADDRESS.fullmatch(path.as_posix()):
        raise ValueError(
            f"{address[1]}://{address[2]}: expected a file or folder on this machine, got an address; download it "
            "first (`curl -LO ADDRESS`) and give the file, or name a data set of the Hub: "
            "--corpus.source hub --corpus.dataset OWNER/NAME"
        )
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


def _text_files_below(folder: Path, say: Callable[[str], None]) -> list[Path]:
    found: list[Path] = []
    left_out: Counter[str] = Counter()

    def fail(error: OSError) -> None:
        raise ValueError(
            f"{error.filename}: expected a readable folder, got: {error.strerror}; check its permissions"
        ) from error

    for parent, folders, names in os.walk(folder, onerror=fail):
        left_out["hidden"] += sum(name.startswith(".") for name in [*folders, *names])
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            if reason := _why_not(path):
                left_out[reason] += 1
            else:
                found.append(path)
    kinds = ", ".join(f"{count:,} {reason}" for reason, count in left_out.most_common(8) if count)
    if not found:
        endings = ", ".join(accepted_suffixes())
        raise ValueError(
            f"{folder}: expected a folder with text files ({endings}), got none in it or below it"
            + (f" but {kinds}" if kinds else "")
        )
    if kinds:
        say(f"{folder}: {_counted(len(found), 'file')} read; left out: {kinds}")
    return sorted(found)


def _why_not(path: Path) -> str | None:
    """Why a file of a folder is left out; None: it is read."""
    suffix = path.suffix.lower()
    if suffix not in accepted_suffixes():
        return suffix or "without an ending"
    if not path.is_file():
        return "devices, pipes and dead links"
    try:
        if path.stat().st_size == 0:
            return "empty"
        if suffix == ".json":
            with path.open("rb") as file:
                return None if begins_with_bracket(file) else NO_ARRAY
    except OSError:  # it is named when it is read
        pass
    return None
