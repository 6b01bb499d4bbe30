"""Readers of one file by its kind: plain text, JSON lines, parquet or a tar archive, compressed or not."""

import codecs
import gzip
import io
import json
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from corpus.clean import choose_encoding, clean_gutenberg, decode_bytes
from corpus.documents import LONGEST_UNCUT, Document, cut_document, cut_text
from storage.text import first_line, replace_surrogates, unix_newlines

KINDS = {
    ".txt": "text",
    ".jsonl": "records",
    ".ndjson": "records",
    ".json": "records",
    ".parquet": "parquet",
    ".tar": "archive",
    ".tgz": "archive",
    ".txz": "archive",
}
COMPRESSIONS = {".gz": "gzip", ".tgz": "gzip", ".xz": "xz", ".txz": "xz", ".zst": "zstd"}

_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstandard.ZstdError, tarfile.TarError)
_CHUNK = 1 << 18  # bytes read at a time of what does not fit into memory
_ROWS = 1000  # of a parquet file, decoded at a time
_ZSTD_INPUT = 1 << 10  # bytes decompressed at a time, whose output may be ten thousand times as long
_ZSTD_WINDOW = 1 << 31  # bytes; the largest window, which `zstd --long=31` makes


class BrokenFileError(ValueError):
    """A file that cannot be read or holds no text: what `skip_broken` leaves out."""


def read_file(path: Path, *, text_field: str, on_broken: Callable[[BrokenFileError], None]) -> Iterator[Document]:
    """The documents of one file, whose names begin with its path.

    Text is one document, named by the path, cleaned if it comes from Project Gutenberg; what is longer than 16 MB comes
    in pieces and as it is. Records are a document each, named `PATH#NUMBER`, archives a document for each .txt in
    them, named `PATH#MEMBER`. Compressed files are read to their end before their first document is yielded, so that
    a damaged one yields nothing (those of over 16 MB are therefore decompressed twice).

    Args:
        path: the file; its ending says what it is, and an unknown ending is taken for plain text.
        text_field: field of JSON records, or column of a parquet file, that holds the text.
        on_broken: called for a broken text in an archive, which is left out if this returns.

    Raises:
        BrokenFileError: the file cannot be read, is damaged or binary, or holds no text.
        ValueError: it has no such field.
    """
    is_empty = True
    for document in _read(path, text_field, on_broken):
        is_empty = False
        yield document
    if is_empty:
        raise BrokenFileError(f"{path.as_posix()}: expected text, got an empty file; remove it or give another one")


def _read(path: Path, text_field: str, on_broken: Callable[[BrokenFileError], None]) -> Iterator[Document]:
    name, suffix = path.as_posix(), path.suffix.lower()
    kind = KINDS.get(suffix, "text")
    if suffix in COMPRESSIONS and suffix not in KINDS:
        kind = KINDS.get(Path(path.stem).suffix.lower(), "unknown")
    if suffix == ".parquet":
        yield from _read_parquet(path, text_field)
        return
    with _open(path) as stream:
        if kind in ("unknown", "parquet"):  # only the content tells
            kind = "archive" if tarfile.is_tarfile(stream) else "text"
            stream.seek(0)
        if kind == "text":
            yield from _read_text(stream, name)
            return
        if suffix in COMPRESSIONS:
            stream = _verified(stream)
        if kind == "records":
            yield from _read_json_lines(stream, name, text_field)
        else:
            yield from _read_archive(stream, name, on_broken)


# Text


def _read_text(stream: BinaryIO, name: str) -> Iterator[Document]:
    head = stream.read(LONGEST_UNCUT + 1)
    is_short = len(head) <= LONGEST_UNCUT
    try:
        text = clean_gutenberg(decode_bytes(head, name)) if is_short else ""
        encoding = "" if is_short else choose_encoding(chain([head], _chunks(stream)), name)
    except ValueError as error:
        raise BrokenFileError(_unknown_ending(name) or str(error)) from error
    if is_short:
        if text and not text.isspace():
            yield Document(text=text, name=name)
        return
    stream.seek(0)
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)
    texts = (decoder.decode(chunk, final=not chunk) for chunk in chain(_chunks(stream), [b""]))
    for piece, is_last in cut_text(texts):
        yield Document(text=piece, name=name, is_complete=is_last)


def _unknown_ending(name: str) -> str | None:
    suffix = Path(name).suffix.lower()
    if not suffix or suffix in KINDS or suffix in COMPRESSIONS or "#" in name:
        return None
    return (
        f"{name}: expected a text or one of the endings {', '.join([*KINDS, *COMPRESSIONS])}, "
        f"got a binary file with the ending {suffix}; convert it or leave it out"
    )


# Records


def record_documents(text: str | None, name: str, **labels: Any) -> Iterable[Document]:
    """The document of a record, cut if it is long; nothing where the text is blank or null.

    Line ends become `\\n`; surrogates are replaced as in `storage.text.replace_surrogates`.
    """
    if not text or text.isspace():
        return ()
    return cut_document(Document(text=replace_surrogates(unix_newlines(text)), name=name, **labels))


def missing_field(place: str, kind: str, text_field: str, found: Iterable[str]) -> str:
    """The message about a field or column that does not exist."""
    return (
        f"{place}: expected a {kind} {text_field!r} with the text, got {', '.join(map(repr, found)) or 'none'}; "
        "say which of them with the text_field (--corpus.text-field of `python -m train`)"
    )


def _read_json_lines(stream: BinaryIO, name: str, text_field: str) -> Iterator[Document]:
    """One document a line of JSON objects in UTF-8, with or without a BOM, named `NAME#LINE`."""
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
            continue
        place = f"{name}:{number}"
        try:
            record = json.loads(str(line, "utf-8"))
            reason = type(record).__name__
        except ValueError as error:  # no JSON, or no UTF-8
            record, reason = None, str(error)
        except RecursionError:
            record, reason = None, "brackets nested too deep"
        if not isinstance(record, dict):
            excerpt = line.decode("utf-8", "replace").strip()
            excerpt = excerpt if len(excerpt) <= 40 else excerpt[:40] + "…"
            raise BrokenFileError(
                f"{place}: expected one JSON object a line, got {excerpt!r} ({reason}); "
                "fix the line or leave the file out"
            )
        if text_field not in record:
            raise ValueError(missing_field(place, "field", text_field, record))
        text = record[text_field]
        if text is not None and not isinstance(text, str):
            raise ValueError(
                f"{place}: expected text in the field {text_field!r}, got {type(text).__name__}; "
                f"choose another field: {', '.join(map(repr, record))}"
            )
        yield from record_documents(text, f"{name}#{number}")


def _read_parquet(path: Path, text_field: str) -> Iterator[Document]:
    """One document a row, named `PATH#ROW` (from 1)."""
    import pyarrow as pa  # a quarter of a second of imports that other formats can do without
    import pyarrow.parquet as pq

    name, first = path.as_posix(), 1
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            _check_column(file.schema_arrow, text_field, name)
            for batch in file.iter_batches(batch_size=_ROWS, columns=[text_field]):
                for number, text in enumerate(batch.column(0).to_pylist(), start=first):
                    yield from record_documents(text, f"{name}#{number}")
                first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise BrokenFileError(
            f"{name}: expected a parquet file, got one that is damaged or something else "
            f"({first_line(error)}); fetch it again or leave it out"
        ) from error


def _check_column(schema: Any, text_field: str, name: str) -> None:
    from pyarrow import types

    if text_field not in schema.names:
        raise ValueError(missing_field(name, "column", text_field, schema.names))
    kind = schema.field(text_field).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise ValueError(
            f"{name}: expected text in the column {text_field!r}, got {kind}; "
            f"choose another column: {', '.join(map(repr, schema.names))}"
        )


# Archives


class _CheckedTarInfo(tarfile.TarInfo):
    """Raises where the header of a member is damaged; the library takes it for the end of the archive."""

    @classmethod
    def fromtarfile(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, archive: tarfile.TarFile
    ) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error


def _read_archive(stream: BinaryIO, name: str, on_broken: Callable[[BrokenFileError], None]) -> Iterator[Document]:
    others: list[str] = []
    has_text = False
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_CheckedTarInfo) as archive:
        for member in iter(archive.next, None):
            archive.members.clear()  # type: ignore[attr-defined]  # the library keeps all of them in memory
            if not member.isfile():
                continue
            if not member.name.lower().endswith(".txt"):
                others.append(member.name)
                del others[3:]
                continue
            has_text = True
            with tempfile.SpooledTemporaryFile(LONGEST_UNCUT) as file:
                shutil.copyfileobj(cast(BinaryIO, archive.extractfile(member)), file)
                file.seek(0)
                try:
                    yield from _read_text(cast(BinaryIO, file), f"{name}#{member.name.replace('#', '%23')}")
                except BrokenFileError as error:
                    on_broken(error)
    if not has_text:
        held = f"{', '.join(others)} …" if others else "nothing"
        raise BrokenFileError(f"{name}: expected an archive with .txt files, got one with {held}; unpack it first")


# Compression


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed if its ending says so; `seek(0)` restarts it.

    Raises:
        BrokenFileError: it cannot be opened; while it is read: it is damaged, cut off, or fails on the disk.
    """
    kind = COMPRESSIONS.get(path.suffix.lower())
    try:
        with path.open("rb") as file:
            if kind == "gzip":
                stream: Any = gzip.GzipFile(fileobj=file)
            elif kind == "xz":
                stream = lzma.LZMAFile(file)  # noqa: SIM115 (closed below)
            elif kind == "zstd":
                stream = io.BufferedReader(_ZstdFile(file), buffer_size=_CHUNK)
            else:
                stream = file
            with stream:
                yield stream
    except _DAMAGE as error:
        what = "tar archive" if isinstance(error, tarfile.TarError) else f"{kind} file"
        reason = str(error) or type(error).__name__
        raise BrokenFileError(
            f"{path.as_posix()}: expected a complete {what}, got one that is damaged or cut off ({reason}); "
            "fetch it again or leave it out"
        ) from error
    except OSError as error:
        raise BrokenFileError(
            f"{path.as_posix()}: expected a readable file, got: {error.strerror or error}; "
            "check its permissions or leave it out"
        ) from error


class _ZstdFile(io.RawIOBase):
    """The frames of a zstd file in a row; unlike the library's own reader it notices when the last one is cut off."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self._restart()

    def _restart(self) -> None:
        self.file.seek(0)
        self.outputs, self.output, self.position = self._decompress(), memoryview(b""), 0

    def _decompress(self) -> Iterator[bytes]:
        frame = None
        while data := self.file.read(_ZSTD_INPUT):
            while data:
                frame = frame or zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
                if output := frame.decompress(data):
                    yield output
                data = frame.unused_data
                frame = None if frame.eof else frame
        if frame:
            raise EOFError("the last frame has no end")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if offset or whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a zstd file is read from its beginning")
        self._restart()
        return 0

    def readinto(self, buffer: Any) -> int:
        self.output = self.output or memoryview(next(self.outputs, b""))
        size = min(len(buffer), len(self.output))
        buffer[:size], self.output = self.output[:size], self.output[size:]
        self.position += size
        return size


def _verified(stream: BinaryIO) -> BinaryIO:
    """The stream from its beginning, after it was read to its end once; a short one is kept in memory."""
    head = stream.read(LONGEST_UNCUT + 1)
    if len(head) <= LONGEST_UNCUT:
        return io.BytesIO(head)
    del head
    for _ in _chunks(stream):
        pass
    stream.seek(0)
    return stream


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: stream.read(_CHUNK), b"")
