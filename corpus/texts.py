"""One file of any kind that the corpus knows, as documents: plain text, records, archives, compressed or not."""

import codecs
import io
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from corpus.chunking import LONGEST_WHOLE, cut_text
from corpus.clean import choose_encoding, clean_gutenberg, decode_bytes
from corpus.compressed import COMPRESSIONS, BrokenFileError, explain_damage, open_stream
from corpus.documents import Document
from corpus.records import read_json_lines, read_parquet

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

_CHUNK = 1 << 18  # bytes read at a time of what does not fit into memory


def raise_broken(error: BrokenFileError) -> None:
    """What `read_file` does with broken files unless told otherwise."""
    raise error


def kind_of(path: Path) -> str | None:
    """ "text", "records", "parquet" or "archive" by the ending of the file; None where only its content tells."""
    suffix = path.suffix.lower()
    if suffix in COMPRESSIONS and suffix not in KINDS:
        kind = KINDS.get(Path(path.stem).suffix.lower())
        return None if kind == "parquet" else kind
    return KINDS.get(suffix, "text")


def read_file(
    path: Path, *, text_field: str = "text", on_broken: Callable[[BrokenFileError], None] = raise_broken
) -> Iterator[Document]:
    """The documents of one file, whose names begin with its path.

    Text is one document, named by the path, cleaned if it comes from Project Gutenberg; what is longer than 16 MB comes
    in pieces and as it is. Records are a document each, named `PATH#NUMBER`, archives a document for each .txt in
    them, named `PATH#MEMBER`. Compressed files are read to their end before their first document is yielded, so that
    a damaged one yields nothing (records and archives of over 16 MB are decompressed twice for that).

    Args:
        path: the file; its ending says what it is, and an unknown ending is taken for plain text.
        text_field: field of JSON records, or column of a parquet file, that holds the text.
        on_broken: told of a text inside an archive that is none, which is then left out (default: raises it).

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
    name, kind = path.as_posix(), kind_of(path)
    if kind == "parquet":
        yield from read_parquet(path, text_field)
        return
    with open_stream(path) as stream:
        if kind is None:
            kind = "archive" if _is_archive(stream.read(tarfile.BLOCKSIZE)) else "text"
            stream.seek(0)
        if kind == "text":
            yield from _read_text(stream, name)
            return
        source = _checked(stream) if path.suffix.lower() in COMPRESSIONS else stream
        if kind == "records":
            yield from read_json_lines(source, name, text_field)
        else:
            yield from _read_archive(source, name, on_broken)


def _read_text(stream: BinaryIO, name: str) -> Iterator[Document]:
    """The text of a stream, which is begun again if it is long."""
    head = stream.read(LONGEST_WHOLE + 1)
    try:
        if len(head) <= LONGEST_WHOLE:
            text = clean_gutenberg(decode_bytes(head, name))
            if not text.isspace() and text:
                yield Document(text=text, name=name)
            return
        encoding = choose_encoding(_chunks(stream, head), name)
    except BrokenFileError:
        raise
    except ValueError as error:
        raise BrokenFileError(_unknown_ending(name) or str(error)) from error
    stream.seek(0)
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)
    texts = (decoder.decode(chunk, final=not chunk) for chunk in _chunks(stream, end=b""))
    for piece, is_last in cut_text(texts):
        yield Document(text=piece, name=name, is_complete=is_last)


def _chunks(stream: BinaryIO, *start: bytes, end: bytes | None = None) -> Iterator[bytes]:
    yield from start
    while chunk := stream.read(_CHUNK):
        yield chunk
    if end is not None:
        yield end


def _checked(stream: BinaryIO) -> BinaryIO:
    """The stream from its beginning, after it was read to its end once; a short one out of memory."""
    head = stream.read(LONGEST_WHOLE + 1)
    if len(head) <= LONGEST_WHOLE:
        return io.BytesIO(head)
    del head
    for _ in _chunks(stream):
        pass
    stream.seek(0)
    return stream


def _is_archive(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


class _Member(tarfile.TarInfo):
    """A member whose damaged header is an error; the library takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error


def _read_archive(stream: BinaryIO, name: str, on_broken: Callable[[BrokenFileError], None]) -> Iterator[Document]:
    others: list[str] = []
    has_text = False
    with explain_damage(name), tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # the library remembers all of them
            if not member.isfile():
                continue
            if not member.name.lower().endswith(".txt"):
                others.append(member.name) if len(others) < 3 else None
                continue
            has_text = True
            with _seekable(cast(BinaryIO, archive.extractfile(member)), member.size) as file:
                try:
                    yield from _read_text(file, f"{name}#{member.name.replace('#', '%23')}")
                except BrokenFileError as error:
                    on_broken(error)
    if not has_text:
        held = f"{', '.join(others)} …" if others else "nothing"
        raise BrokenFileError(f"{name}: expected an archive with .txt files, got one with {held}; unpack it first")


def _seekable(member: BinaryIO, size: int) -> BinaryIO:
    if size <= LONGEST_WHOLE:
        return member
    copy = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    shutil.copyfileobj(member, copy)
    copy.seek(0)
    return cast(BinaryIO, copy)


def _unknown_ending(name: str) -> str | None:
    suffix = Path(name).suffix.lower()
    if not suffix or suffix in KINDS or suffix in COMPRESSIONS or "#" in name:
        return None
    return (
        f"{name}: expected a text or one of the endings {', '.join([*KINDS, *COMPRESSIONS])}, "
        f"got a binary file with the ending {suffix}; convert it or leave it out"
    )
