"""Readers of plain text: books and notes, subtitles, WhatsApp exports."""

import html
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from corpus.clean import clean_gutenberg
from corpus.documents import LONGEST_UNCUT, Document, cut_text, text_documents
from corpus.readers.streams import BrokenFileError, Options, decoded

# "31.12.23, 21:15 - Ann: text" (Android) or "[12/31/23, 9:15:03 PM] Ann: text" (iOS), in the date format of the phone.
_CLOCK = r"\d{1,2}[:.]\d{2}(?:[:.]\d{2})?(?:[ \u00a0\u202f]?[AaPp]\.?[ \u00a0]?[Mm]\.?)?"
_DATE = r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}"
_MESSAGE = re.compile(rf"\u200e?(?:\[{_DATE},? {_CLOCK}\]|{_DATE},? {_CLOCK} -) (?:([^:\n]{{1,60}}): )?(.*)")
_NO_TEXT = re.compile(r"\u200e|<[^<>]*>$|null$")  # a picture, a recording; a notice of the program
_FIRST_LINES = 50  # that show whether a text is an export

_CUE = re.compile(r"^[\d:.,]+[ \t]+-->[ \t]+[\d:.,]+.*$", re.M)
_TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")


def read_text(stream: BinaryIO, name: str, options: Options) -> Iterator[Document]:
    """One document: a book without what Project Gutenberg adds to it, the messages of a WhatsApp export, or the text
    as it is. What is longer than 16 MB comes in pieces and as it is.
    """
    head = stream.read(LONGEST_UNCUT + 1)
    if len(head) <= LONGEST_UNCUT:
        text = "".join(decoded(io.BytesIO(head), name, options))
        if text.startswith("{\\rtf"):
            raise BrokenFileError(f"{name}: expected plain text, got RTF; save it as .txt or .docx, or leave it out")
        yield from text_documents(_without_dates(text, name, options) or clean_gutenberg(text), name)
        return
    del head
    stream.seek(0)
    for piece, is_last in cut_text(decoded(stream, name, options)):
        yield Document(text=piece, name=name, is_complete=is_last)


def read_subtitles(stream: BinaryIO, name: str, options: Options) -> Iterator[Document]:
    """One document: the lines that are spoken, without numbers, times and tags; a line that stays is there once."""
    lines: list[str] = []
    has_cues = False
    for block in re.split(r"\n[ \t]*\n", "".join(decoded(stream, name, options))):
        if cue := _CUE.search(block):
            has_cues = True
            spoken = (html.unescape(_TAG.sub("", line)).strip() for line in block[cue.end() :].split("\n"))
            lines += [line for line in spoken if line]
    if not has_cues:
        raise BrokenFileError(f"{name}: expected subtitles with times (00:01 --> 00:02), got none; rename or remove it")
    kept = [line for line, before in zip(lines, ["", *lines], strict=False) if line != before]
    yield from text_documents("\n".join(kept) + "\n" if kept else "", name)


def _without_dates(text: str, name: str, options: Options) -> str | None:
    """The messages of a WhatsApp export as lines "Name: text"; None where the text is none."""
    lines = text.strip().split("\n")
    first = [_MESSAGE.match(line) for line in lines[:_FIRST_LINES] if line.strip()]
    if sum(bool(match and match[1]) for match in first) < max(3, len(first) / 2):
        return None
    kept: list[str] = []
    dropped, is_kept = 0, False
    for line in lines:
        if match := _MESSAGE.match(line):
            is_kept = bool(match[1] and match[2] and not _NO_TEXT.match(match[2]))
            dropped += not is_kept
            line = f"{match[1]}: {match[2]}"
        if is_kept:
            kept.append(line)
    options.say(
        f"{name}: read as a WhatsApp export: {len(lines):,} lines without their dates, "
        f"{dropped:,} notices and attachments left out"
    )
    return "\n".join(kept) + "\n"
