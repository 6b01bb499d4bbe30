"""Files as streams of bytes, decompressed by their ending; what is damaged is said so, also at a missing end."""

import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

COMPRESSIONS = {".gz": "gzip", ".tgz": "gzip", ".xz": "xz", ".txz": "xz", ".zst": "zstd"}

_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstandard.ZstdError, tarfile.TarError)
_CHUNK = 1 << 18  # bytes
_SIP = 1 << 10  # bytes of a zstd file decompressed at a time; they may stand for ten thousand times as many
_LONGEST_WINDOW = 1 << 31  # bytes; what `zstd --long=31` needs


class BrokenFileError(ValueError):
    """A file that cannot be read, or holds no text: what `skip_broken` leaves out."""


@contextmanager
def open_stream(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed if its ending says so; `seek(0)` begins again.

    Raises:
        BrokenFileError: it cannot be opened; while it is read: it is damaged, cut off, or fails on the disk.
    """
    kind = COMPRESSIONS.get(path.suffix.lower())
    with explain_damage(path.as_posix(), kind), path.open("rb") as file:
        if kind == "gzip":
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=file))
        elif kind == "xz":
            stream = cast(BinaryIO, lzma.LZMAFile(file))  # noqa: SIM115 (closed below)
        elif kind == "zstd":
            stream = cast(BinaryIO, io.BufferedReader(_ZstdFile(file), buffer_size=_CHUNK))
        else:
            stream = file
        with stream:
            yield stream


@contextmanager
def explain_damage(name: str, kind: str | None = None) -> Iterator[None]:
    """Rewords what reading a damaged or unreadable file raises into a BrokenFileError that names it."""
    try:
        yield
    except _DAMAGE as error:
        what = f"a whole {kind} file" if kind else "a whole tar archive"
        reason = str(error) or type(error).__name__
        raise BrokenFileError(
            f"{name}: expected {what}, got one that is damaged or cut off ({reason}); fetch it again or leave it out"
        ) from error
    except OSError as error:
        raise BrokenFileError(
            f"{name}: expected a readable file, got: {error.strerror or error}; check its permissions or leave it out"
        ) from error


class _ZstdFile(io.RawIOBase):
    """The frames of a zstd file in a row; unlike the library's own reader it notices when the last one is cut off."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.frame: zstandard.ZstdDecompressionObj | None = None
        self.input = memoryview(b"")
        self.output = memoryview(b"")
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if (offset, whence) == (0, io.SEEK_SET):
            self.file.seek(0)
            self.__init__(self.file)
        elif (offset, whence) != (0, io.SEEK_CUR):
            raise io.UnsupportedOperation("a zstd file is read from its beginning on")
        return self.position

    def readinto(self, buffer: Any) -> int:
        while not self.output:
            self.input = self.input or memoryview(self.file.read(_CHUNK))
            if not self.input:
                if self.frame is not None:
                    raise EOFError("the last frame has no end")
                return 0
            if self.frame is None:
                self.frame = zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW).decompressobj()
            sip = self.input[:_SIP]
            self.output = memoryview(self.frame.decompress(sip))
            self.input = self.input[len(sip) - len(self.frame.unused_data) :]
            if self.frame.eof:
                self.frame = None
        size = min(len(buffer), len(self.output))
        buffer[:size] = self.output[:size]
        self.output = self.output[size:]
        self.position += size
        return size
