"""What every reader reads from: the bytes of a file, decompressed, checked to their end, and the errors of damage."""

import gzip
import importlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from corpus.documents import LONGEST_UNCUT
from corpus.encodings import decode, say_once
from storage.text import first_line

COMPRESSIONS = {".gz": "gzip", ".tgz": "gzip", ".xz": "xz", ".txz": "xz", ".zst": "zstd"}

_DAMAGE = (
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zstandard.ZstdError,
    tarfile.TarError,
    zipfile.BadZipFile,
)
# What something compressed may expand to: deflate makes at most 1,032 bytes of one, zstd any number; text three to ten,
# a row of dashes hundreds.
ALWAYS_FINE = 64_000_000  # bytes
MOST_EXPANSION = 200  # times
LONGEST_RECORD = 1 << 28  # bytes of a line of JSON, characters of a line or cell of a table: it is held in memory
_CHUNK = 1 << 18  # bytes read at a time of what does not fit into memory
_ZSTD_INPUT = 1 << 10  # bytes decompressed at a time, whose output may be ten thousand times as long
_ZSTD_WINDOW = 1 << 31  # bytes; the largest window, which `zstd --long=31` makes


class BrokenFileError(ValueError):
    """A file that cannot be read or holds no text: what `skip_broken` leaves out."""


class EmptyFileError(BrokenFileError):
    """A file that holds nothing but white space."""


def _raise(error: BrokenFileError) -> None:
    raise error


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How files are read."""

    text_field: str = "text"
    """Field of JSON records, or column of tables and parquet files, that holds the text."""
    encoding: str | None = None
    """Encoding of what is not UTF-8, as `corpus.encodings.choose_encoding` takes it; None: it is recognised."""
    most_unpacked: int | None = None
    """Bytes that something compressed may expand to (default: as many as a text of its size has, see `most_bytes`)."""
    on_broken: Callable[[BrokenFileError], None] = _raise
    """Called for a broken member of an archive, which is left out if this returns."""
    say: Callable[[str], None] = say_once
    """Called with a line for the user about what was assumed, replaced or left out (default: logged once)."""


def needs(name: str, module: str, package: str) -> Any:
    """A module of the extra `readers`.

    Raises:
        BrokenFileError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BrokenFileError(
            f"{name}: reading {name.rpartition('.')[2]} files needs the package {package}, which is not installed; "
            "install the extra: pip install -r requirements-readers.txt, or leave the file out"
        ) from error


@contextmanager
def open_stream(path: Path, most_unpacked: int | None = None) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed if its ending says so; `seek(0)` restarts it.

    `most_unpacked` is that of `Options`.

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
                stream = _ZstdFile(file)
            else:
                stream = file
            if kind is not None:
                stream = io.BufferedReader(_Limited(stream, path, most_unpacked), buffer_size=_CHUNK)
            with stream:
                yield stream
    except _DAMAGE as error:
        archives = {tarfile.TarError: "tar archive", zipfile.BadZipFile: "zip archive"}
        what = next((what for type_, what in archives.items() if isinstance(error, type_)), f"{kind} file")
        raise BrokenFileError(
            f"{path.as_posix()}: expected a complete {what}, got one that is damaged or cut off ({first_line(error)}); "
            "fetch it again or leave it out"
        ) from error
    except OSError as error:
        raise BrokenFileError(
            f"{path.as_posix()}: expected a readable file, got: {error.strerror or error}; "
            "check its permissions or leave it out"
        ) from error


def decoded(stream: BinaryIO, name: str, options: Options) -> Iterator[str]:
    """The text of a stream in parts, with `\\n` as its line end.

    Raises:
        BrokenFileError: it is no text, or in an encoding that is not sure.
    """
    try:
        yield from decode(stream, name, options.encoding, options.say)
    except ValueError as error:
        raise BrokenFileError(str(error)) from error


def verified(stream: BinaryIO) -> BinaryIO:
    """The stream from its beginning, after it was read to its end once; a short one is kept in memory."""
    head = stream.read(LONGEST_UNCUT + 1)
    if len(head) <= LONGEST_UNCUT:
        return io.BytesIO(head)
    del head
    while stream.read(_CHUNK):
        pass
    stream.seek(0)
    return stream


def most_bytes(packed: int, most_unpacked: int | None = None) -> int:
    """How many bytes something compressed of so many bytes may expand to and still be taken for text, up to a limit."""
    most = max(ALWAYS_FINE, packed * MOST_EXPANSION)
    return most if most_unpacked is None else min(most, most_unpacked)


class _Limited(io.RawIOBase):
    """A decompressed file, up to as many bytes as a text of its size has."""

    def __init__(self, stream: Any, path: Path, most_unpacked: int | None) -> None:
        self.stream, self.path = stream, path
        self.packed = path.stat().st_size
        self.most = most_bytes(self.packed, most_unpacked)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.stream.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.stream.seek(offset, whence)

    def close(self) -> None:
        self.stream.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        size = self.stream.readinto(buffer)
        if self.stream.tell() > self.most:
            raise BrokenFileError(
                f"{self.path.as_posix()}: expected a compressed text, got {self.packed:,} bytes that expand to more "
                f"than {self.most:,}, as no text does (a decompression bomb?); it is not read. If you trust it, unpack "
                "it and give what was in it"
            )
        return size


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
