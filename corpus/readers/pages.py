"""Readers of formatted text: HTML, EPUB, Word (DOCX), OpenDocument (ODT), PDF. Only their text is read.

Each through a library of the extra `readers`. These formats but for HTML and PDF are zip archives of XML, which are
checked for what no such document holds before a library reads them: names outside of the archive, decompression bombs
(`corpus.readers.archives.open_zip`), entities of XML.
"""

import io
import logging
import posixpath
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO
from urllib.parse import unquote

from corpus.clean import clean_gutenberg
from corpus.documents import Document, text_documents
from corpus.readers.archives import open_zip
from corpus.readers.streams import BrokenFileError, Options, decoded, needs
from storage.text import first_line

_CONTAINER = "META-INF/container.xml"
_PAGES = ("application/xhtml+xml", "text/html")


def read_html(stream: BinaryIO, name: str, options: Options) -> Iterator[Document]:
    """One document: the text of a page, without markup, scripts and styles."""
    yield from _book(_html_text(stream.read(), name, options), name)


def read_epub(stream: BinaryIO, name: str, options: Options) -> Iterator[Document]:
    """One document: the chapters of a book in their order."""
    etree = needs(name, "lxml.etree", "lxml")
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    with _damaged(name, "an EPUB book"), _checked_zip(stream, name) as archive:

        def parsed(member: str) -> Any:
            return etree.fromstring(archive.read(member), parser)

        package = parsed(_CONTAINER).find(".//{*}rootfile").get("full-path")
        book = parsed(package)
        items = {item.get("id"): item for item in book.iterfind(".//{*}manifest/{*}item")}
        spine = [items[page.get("idref")] for page in book.iterfind(".//{*}spine/{*}itemref")]
        pages = [unquote(item.get("href")) for item in spine if item.get("media-type") in _PAGES]
        members = [posixpath.normpath(posixpath.join(posixpath.dirname(package), page)) for page in pages]
        chapters = [_html_text(archive.read(member), f"{name}#{member}", options) for member in members]
    yield from _book("\n\n".join(chapter for chapter in chapters if chapter.strip()), name)


def read_docx(stream: BinaryIO, name: str, options: Options) -> Iterator[Document]:
    """One document: a paragraph a line, the cells of a table's row between tabs."""
    docx = needs(name, "docx", "python-docx")
    with _damaged(name, "a Word document (.docx)"):
        _checked_zip(stream, name).close()
        stream.seek(0)
        lines = []
        for block in docx.Document(stream).iter_inner_content():
            if hasattr(block, "rows"):
                lines += ["\t".join(cell.text for cell in row.cells) for row in block.rows]
            else:
                lines.append(block.text)
    yield from _book("\n".join(lines), name)


def read_odt(stream: BinaryIO, name: str, options: Options) -> Iterator[Document]:
    """One document: a paragraph or heading a line."""
    odfdo = needs(name, "odfdo", "odfdo")
    with _damaged(name, "an OpenDocument text (.odt)"):
        _checked_zip(stream, name).close()
        stream.seek(0)
        body = odfdo.Document(io.BytesIO(stream.read())).body
        lines = [paragraph.inner_text for paragraph in body.xpath("//text:p|//text:h")]
    yield from _book("\n".join(lines), name)


def read_pdf(stream: BinaryIO, name: str, options: Options) -> Iterator[Document]:
    """One document: the text of the pages, each with a line end after it."""
    pypdf = needs(name, "pypdf", "pypdf")
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns of what it repairs
    with _damaged(name, "a PDF file"):
        file = pypdf.PdfReader(stream)
        if file.is_encrypted and not file.decrypt(""):
            raise BrokenFileError(f"{name}: expected a PDF file without a password, got one with; save it without")
        pages = [page.extract_text().rstrip() + "\n" for page in file.pages]
    if not "".join(pages).strip():
        raise BrokenFileError(
            f"{name}: expected a PDF file with text, got {len(pages)} pages without (pictures of pages?); "
            "recognise its text first (OCR), or leave it out"
        )
    yield from _book("".join(pages), name)


def _html_text(raw: bytes, name: str, options: Options) -> str:
    inscriptis = needs(name, "inscriptis", "inscriptis")
    page = "".join(decoded(io.BytesIO(raw), name, options))
    page = re.sub(r"\A\s*<\?xml[^>]*\?>", "", page)  # its encoding is that of the bytes, not of a str
    return inscriptis.get_text(page) if page.strip() else ""


def _book(text: str, name: str) -> Iterator[Document]:
    yield from text_documents(clean_gutenberg(text), name)


def _checked_zip(stream: BinaryIO, name: str) -> zipfile.ZipFile:
    """The archive that a document is, without entities in its XML, which could expand without end."""
    archive = open_zip(stream, name)
    for member in archive.namelist():
        if member.lower().endswith((".xml", ".opf", ".rels")) and b"<!ENTITY" in archive.read(member):
            raise BrokenFileError(
                f"{name}: expected a document, got one whose {member} declares entities of XML, which may expand "
                "without end; it is not read. If you trust it, save it anew"
            )
    return archive


@contextmanager
def _damaged(name: str, what: str) -> Iterator[None]:
    """Whatever a library raises about a file becomes one message: these formats are broken in many ways."""
    try:
        yield
    except (BrokenFileError, MemoryError):
        raise
    except Exception as error:
        raise BrokenFileError(
            f"{name}: expected {what}, got one that is damaged or something else ({first_line(error)}); "
            "open and save it anew, or leave it out"
        ) from error
