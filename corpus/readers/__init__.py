"""Readers of files by their endings: one a kind of file, from plain text to zip archives, compressed or not."""

import functools
import tarfile
from collections.abc import Iterator
from pathlib import Path

from corpus.documents import Document
from corpus.encodings import NotTextError
from corpus.readers.archives import Reader, read_tar, read_zip
from corpus.readers.pages import read_docx, read_epub, read_html, read_odt, read_pdf
from corpus.readers.records import read_json, read_json_lines, read_parquet, read_table, read_tsv
from corpus.readers.streams import COMPRESSIONS, BrokenFileError, EmptyFileError, Options, open_stream, verified
from corpus.readers.text import read_subtitles, read_text

_FILES: dict[str, Reader] = {
    ".txt": read_text,
    ".md": read_text,
    ".markdown": read_text,
    ".srt": read_subtitles,
    ".vtt": read_subtitles,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_table,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".html": read_html,
    ".htm": read_html,
    ".xhtml": read_html,
    ".epub": read_epub,
    ".docx": read_docx,
    ".odt": read_odt,
    ".pdf": read_pdf,
}
_read_tar = functools.partial(read_tar, readers=_FILES)
READERS: dict[str, Reader] = _FILES | {
    ".zip": functools.partial(read_zip, readers=_FILES),
    ".tar": _read_tar,
    ".tgz": _read_tar,
    ".txz": _read_tar,
}


def accepted_suffixes() -> list[str]:
    """The endings of the files that are read, each once, such as ".txt"; those of compressed files (.gz) at the end."""
    return list(dict.fromkeys([*READERS, *COMPRESSIONS]))


def read_file(path: Path, options: Options) -> Iterator[Document]:
    """The documents of one file, whose names begin with its path.

    Text, pages and books are one document, named by the path, cleaned if it comes from Project Gutenberg; plain text
    that is longer than 16 MB comes in pieces and as it is. Records are a document each, named `PATH#NUMBER`; archives
    give the documents of each member whose ending is known, named `PATH#MEMBER`. Compressed files are read to their
    end before their first document is yielded, so that a damaged one yields nothing (those of over 16 MB are therefore
    decompressed twice).

    Args:
        path: the file; its ending says what it is, and an unknown ending is taken for plain text.
        options: how it is read.

    Raises:
        BrokenFileError: the file cannot be read, is damaged or binary, or needs a library that is not installed; where
            it holds no text, EmptyFileError.
        ValueError: it has no such field.
    """
    is_empty = True
    for document in _read(path, options):
        is_empty = False
        yield document
    if is_empty:
        raise EmptyFileError(
            f"{path.as_posix()}: expected text, got an empty file (or only white space); remove it or give another one"
        )


def _read(path: Path, options: Options) -> Iterator[Document]:
    suffix = path.suffix.lower()
    is_packed = suffix in COMPRESSIONS
    with open_stream(path, options.most_unpacked) as stream:
        if is_packed and suffix not in READERS:
            suffix = Path(path.stem).suffix.lower()
        reader = READERS.get(suffix)
        if reader is None and is_packed:  # only the content tells
            reader = _read_tar if tarfile.is_tarfile(stream) else read_text
            stream.seek(0)
        if is_packed and reader is not read_text:
            stream = verified(stream)
        try:
            yield from (reader or read_text)(stream, path.as_posix(), options)
        except BrokenFileError as error:
            if reader is not None or not suffix or not isinstance(error.__cause__, NotTextError):
                raise
            raise BrokenFileError(
                f"{path.as_posix()}: expected a text or one of the endings {', '.join(accepted_suffixes())}, "
                f"got a binary file with the ending {suffix}; convert it or leave it out"
            ) from error
