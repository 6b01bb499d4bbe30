"""Readers of archives (tar, zip): each member that is text is read as a file of its kind is."""

import io
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from corpus.documents import LONGEST_UNCUT, Document
from corpus.readers.records import NO_ARRAY, begins_with_bracket
from corpus.readers.streams import BrokenFileError, Options, most_bytes

Reader = Callable[[BinaryIO, str, Options], Iterator[Document]]

_LINKS, _SPARSE = "links", "sparse files"
"""Why members are left out: text has neither; a link leads elsewhere, a sparse file of a few bytes is of any size."""


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


def read_tar(stream: BinaryIO, name: str, options: Options, readers: dict[str, Reader]) -> Iterator[Document]:
    """The documents of a tar archive, those of a member named `NAME#MEMBER`."""

    def members(archive: tarfile.TarFile) -> Iterator[tuple[str, BinaryIO | str]]:
        for member in iter(archive.next, None):
            archive.members.clear()  # type: ignore[attr-defined]  # the library keeps all of them in memory
            if member.issym() or member.islnk():
                yield member.name, _LINKS
            elif member.issparse():
                yield member.name, _SPARSE
            elif member.isfile():
                yield member.name, cast(BinaryIO, archive.extractfile(member))

    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_CheckedTarInfo) as archive:
        yield from _read_members(members(archive), name, options, readers)


def read_zip(stream: BinaryIO, name: str, options: Options, readers: dict[str, Reader]) -> Iterator[Document]:
    """The documents of a zip archive, those of a member named `NAME#MEMBER`."""
    with open_zip(stream, name, options.most_unpacked) as archive:
        files = (info for info in archive.infolist() if not info.filename.endswith("/"))  # is_dir() wants a name
        # By its entry: a name that is there twice would give the last of them twice.
        members = ((info.filename, _LINKS if is_link(info) else cast(BinaryIO, archive.open(info))) for info in files)
        yield from _read_members(members, name, options, readers)


def is_link(info: zipfile.ZipInfo) -> bool:
    """Whether a member of a zip is a symbolic link, as zip on Unix notes it."""
    return stat.S_ISLNK(info.external_attr >> 16)


METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
"""The ways to compress a member of a zip that Python reads; Windows takes another one for files above 2 GB."""


def open_zip(stream: BinaryIO, name: str, most_unpacked: int | None = None) -> zipfile.ZipFile:
    """A zip archive, or a book or document that is one, whose directory promises no harm.

    `most_unpacked` is that of `Options`.

    Raises:
        BrokenFileError: it is encrypted, expands to far more than text does, or is compressed in an unusual way.
        zipfile.BadZipFile: it is damaged.
    """
    try:
        archive = zipfile.ZipFile(stream)
    except NotImplementedError as error:
        raise BrokenFileError(
            f"{name}: expected a zip archive that Python reads, got one that needs a newer reader ({error}); unpack it "
            "and give the folder"
        ) from error
    infos = archive.infolist()
    size, packed = (sum(getattr(info, field) for info in infos) for field in ("file_size", "compress_size"))
    packed = min(packed, stream.seek(0, io.SEEK_END))  # members may overlap: all of them are the same few bytes
    if size > most_bytes(packed, most_unpacked):
        raise BrokenFileError(
            f"{name}: expected an archive of texts, got one that expands from {packed:,} to {size:,} bytes, as no "
            "text does (a decompression bomb?); it is not read. If you trust it, unpack it and give the folder"
        )
    for info in infos:
        check_member(info.filename, name)
        if info.flag_bits & 1:
            raise BrokenFileError(f"{name}: expected an archive without a password, got one with; unpack it first")
        if info.compress_type not in METHODS:
            raise BrokenFileError(
                f"{name}: expected members that are stored or compressed by deflate, bzip2 or lzma, got "
                f"{info.filename!r}, which is compressed in another way (method {info.compress_type}); unpack it and "
                "give the folder"
            )
    return archive


def check_member(member: str, name: str) -> None:
    """Refuse an archive whose member would lie outside of the folder into which it is unpacked.

    Nothing is ever written under these names, but who made such an archive means harm.
    """
    path = PurePosixPath(member.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts[:1] and path.parts[0].endswith(":")):
        raise BrokenFileError(
            f"{name}: expected an archive of texts, got one with a member {member!r}, whose name leaves the folder; "
            "it is not read"
        )


def _read_members(
    members: Iterator[tuple[str, BinaryIO | str]], name: str, options: Options, readers: dict[str, Reader]
) -> Iterator[Document]:
    """The documents of members: of each its name and its bytes, or why it is left out."""
    left_out: Counter[str] = Counter()
    has_text = False
    for member, stream in members:
        check_member(member, name)
        if isinstance(stream, str):
            left_out[stream] += 1
            continue
        path = PurePosixPath(member)
        reader = readers.get(path.suffix.lower())
        is_hidden = path.parts[:1] == ("__MACOSX",) or path.name.startswith(".")
        if reader is None or is_hidden:
            left_out["hidden" if is_hidden else path.suffix.lower() or path.name or "without a name"] += 1
            continue
        place = f"{name}#{member.replace('#', '%23')}"
        with tempfile.SpooledTemporaryFile(LONGEST_UNCUT) as file:
            try:
                with stream:
                    shutil.copyfileobj(stream, file)
                file.seek(0)
                if path.suffix.lower() == ".json" and not begins_with_bracket(cast(BinaryIO, file)):
                    left_out[NO_ARRAY] += 1
                    continue
                file.seek(0)
                is_empty = True
                for document in reader(cast(BinaryIO, file), place, options):
                    is_empty, has_text = False, True
                    number = document.name[len(place) :].replace("#", ":")
                    yield replace(document, name=place + number)
                if is_empty:
                    left_out["without text"] += 1
            except BrokenFileError as error:
                has_text = True
                options.on_broken(error)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in left_out.most_common(6))
    if not has_text:
        raise BrokenFileError(
            f"{name}: expected an archive with texts, got one with {kinds or 'nothing'}; unpack it first"
        )
    if left_out:
        options.say(f"{name}: left out of it: {kinds}")
