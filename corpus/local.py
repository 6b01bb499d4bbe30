"""Text files on this machine: a file, several, or folders of .txt."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .clean import clean_gutenberg, decode_bytes
from .documents import Document


def read_local(paths: Sequence[str | Path]) -> Iterator[Document]:
    """One document a file, in the order of `paths`, the files of a folder sorted by path.

    A folder gives the .txt files in it and below it, hidden ones left out; a path to a file gives that file whatever
    its ending. A file reached twice is read once. Files of Project Gutenberg are cleaned. The paths are looked at
    when this is called, the files read one at a time as the iterator advances.

    Args:
        paths: files and folders.

    Raises:
        ValueError: a path does not exist or cannot be read, a folder holds no .txt file, a file holds no text or is
            binary.
    """
    files = find_files(paths)
    return (read_document(file) for file in files)


def find_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files that `read_local` would read, in its order.

    Raises:
        ValueError: no path is given, a path does not exist or cannot be listed, a folder holds no .txt file.
    """
    if not paths:
        raise ValueError("expected at least one text file or folder, got none; give a path to your text")
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(_text_files_below(path))
            if not files:
                raise ValueError(f"{path}: expected a folder with .txt files, got none in it or below it")
        elif path.is_file():
            files = [path]
        elif os.path.lexists(path):
            raise ValueError(
                f"{path}: expected a text file or a folder, got something else (a device, pipe or dead link)"
            )
        else:
            raise ValueError(f"{path}: no such file or folder (looked from {Path.cwd()}); check the path")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def read_bytes(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path}: expected a readable file, got: {error.strerror}; check its permissions or leave it out"
        ) from error


def read_document(path: Path) -> Document:
    """The text of one file, cleaned if it comes from Project Gutenberg.

    Raises:
        ValueError: the file cannot be read, is binary, or holds no text.
    """
    name = path.as_posix()
    text = clean_gutenberg(decode_bytes(read_bytes(path), name))
    if not text.strip():
        raise ValueError(f"{name}: expected text, got an empty file; remove it or give another one")
    return Document(text=text, name=name)


def _text_files_below(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise ValueError(
            f"{error.filename}: expected a readable folder, got: {error.strerror}; check its permissions"
        ) from error

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() == ".txt" and not name.startswith(".") and path.is_file():
                yield path
