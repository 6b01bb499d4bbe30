"""Cleaning of text: its lines, and what Project Gutenberg adds to a book.

Project Gutenberg has wrapped its books in many ways since 1991: start and end markers between stars, a "small print"
licence above or below the book, credits of the volunteers, notes on the transcription. The rules here were written
against the forms that 31 files of 1991 to 2018 show. A text without any such marker is left as it is.
"""

import re
import unicodedata
from collections.abc import Iterator

from storage.text import unix_newlines

_LINE_ENDS = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")
_INVISIBLE = re.compile("[\0-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff]")
_SPACES = re.compile(r"[^\S\n]+")

_START = re.compile(r"^[ \t]*\*{2,}[ \t]*START OF (?:THE |THIS )?PROJECT GUTENBERG.*$", re.M | re.I)
# Both the marker between stars and the plain line that older files have instead of it or above it.
_END = re.compile(r"^[ \t*_\[(]*(?:This is the )?End of (?:the |this )?Project Gutenberg", re.M | re.I)
_SMALL_PRINT_START = re.compile(r"^[ \t]*\*+[ \t]*START[ *]*THE SMALL PRINT.*$", re.M | re.I)
_STOP = re.compile(f"(?:{_END.pattern})|(?:{_SMALL_PRINT_START.pattern})", re.M | re.I)
_SMALL_PRINT_END = re.compile(r"^[ \t]*\*+[ \t]*END[ *]*THE SMALL PRINT.*$", re.M | re.I)

_BLOCK = re.compile(r"(?:^.*\S.*(?:\n|\Z))+", re.M)
# Matched against lower case, which is four times as fast as ignoring case.
_BOILERPLATE = re.compile(
    r"project\s+gutenberg|gutenberg\s+project|gutenberg-tm|gutenberg\.(?:org|net)|pgdp\.net|(?<!\w)e-?texts?\b"
    r"|distributed\s+proofread|copyright\s+on\s+this\s+publication\s+was\s+(?:not\s+)?renewed"
)
_CREDIT = re.compile(
    r"\W{0,20}(?:(?:This|The)\s+)?(?:e-?book|e-?text|text|file|HTML\s+version|transcription)?\s*(?:was\s+|is\s+)?"
    r"(?:produced|prepared|created|transcribed|scanned|typed|digiti[sz]ed|proofread)\b(?:\s+and\s+[a-z]+)?\s+by\b"
    r"|\W{0,20}(?:HTML\s+version\s+by\b|Credits?:|Portions\s+of\s+this\s+(?:header|eBook))",
    re.I,
)
_CONTACT = re.compile(r"https?://|ftp://|[\w.+-]+@[\w-]+\.\w|\(BBS\)|Voice/Fax|\(\d{3}\) ?\d{3}-\d{4}", re.I)
_NOTE = re.compile(
    r"\W{0,300}(?:original\s+)?(?:transcriber|redactor|proofer|e-?text\s+editor)s?['’]?s?['’]?\s+(?:end-?)?notes?\b"
    r"|\*{5,}[ \t]*Notes?:",
    re.I,
)
_BOX = re.compile(r"(?:[ \t]*[+|].*(?:\n|\Z))+")  # each round takes a whole line, or a long table takes forever
_BARE_END = re.compile(r"\s*\*+[ \t]*(?:The[ \t]+)?End[ \t]*\*+\s*", re.I)

_FRONT_BLOCKS = 12  # credits and addresses are among the first paragraphs
_TAIL_SHARE = 0.9  # a heading "Transcriber's Notes" in the last tenth opens the last section of the file
_LONGEST_HEADER = 20_000  # characters, the small print on top included
_LONGEST_NOTE = 4_000  # characters; a longer paragraph is a book without blank lines, never a notice


def clean_lines(text: str, last_line: str = "") -> tuple[str, str]:
    """The text without what only looks like text: a line a paragraph or sentence, each with its line end.

    In this order: form feeds, vertical tabs and Unicode's separators of lines and paragraphs become line ends; control
    characters, soft hyphens, zero-width spaces, word joiners and byte order marks are removed; every run of white space
    within a line becomes one space, and is removed at its ends; empty lines are removed, and so is a line that is
    identical to the one before it. Lines that recur elsewhere are kept: people say "yes" more than once. Letters, case
    and punctuation do not change.

    Args:
        text: any text, `\\n` as its line end.
        last_line: the last line of what comes before it.

    Returns:
        (text, its last line); the text is "" where nothing is left.
    """
    text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))
    kept = []
    for line in _SPACES.sub(" ", text).split("\n"):
        line = line.strip(" ")
        if line and line != last_line:
            kept.append(line + "\n")
            last_line = line
    return "".join(kept), last_line


def clean_gutenberg(text: str) -> str:
    """The book in a file of Project Gutenberg, or any other text as it is, with `\\n` as its line end and no BOM.

    What is removed from a Gutenberg file: everything up to the first start marker (or, where there is none, up to the
    end of the small print on top), everything from the first end marker or end line on, paragraphs that name Project
    Gutenberg or an etext, credits ("Produced by …") and addresses among the first paragraphs, notes of the
    transcriber. Several Gutenberg files in one text give their books in a row.
    """
    text = unix_newlines(text.removeprefix("\ufeff"))
    lower = text.lower()  # thirty times as fast as searching each text for the markers
    if "gutenberg" not in lower and "small print" not in lower:
        return text
    if not any(marker.search(text) for marker in (_START, _END, _SMALL_PRINT_START, _SMALL_PRINT_END)):
        return text
    books = [_without_notices(book) for book in _cut_at_markers(text)]
    return "\n\n".join(book for book in books if book)


def check_title(text: str, expected: str, name: str) -> None:
    """Makes sure that a Gutenberg file is the book it is taken for.

    Titles agree when their main parts do: subtitles (after a colon, semicolon, dash, bracket or "or"), case,
    punctuation, accents and articles do not count.

    Args:
        text: the file with its header.
        expected: the title of the book that was asked for.
        name: what to call the file in messages, such as "book 105".

    Raises:
        ValueError: the header states another title, or none.
    """
    lines = _title_lines(text)
    if not lines:
        raise ValueError(
            f"{name}: expected {expected!r}, got a text whose header states no title; "
            "give the file as Project Gutenberg publishes it, header included"
        )
    title = " ".join(lines)
    if _main_title(expected) not in {_main_title(title), _main_title(lines[0])}:
        raise ValueError(
            f"{name}: expected {expected!r}, got {title!r}: the number belongs to another book; "
            "look the right number up at gutenberg.org and correct the list of books"
        )


def _cut_at_markers(text: str) -> Iterator[str]:
    position = 0
    while True:
        start = _book_start(text, position)
        stop = _STOP.search(text, start)
        yield text[start : stop.start() if stop else len(text)]
        if not stop or not (again := _START.search(text, stop.start())):
            return
        position = again.start()


def _book_start(text: str, position: int) -> int:
    """Where the book begins: after the start marker, else after the small print on top, else at `position`."""
    marker = _START.search(text, position)
    # No search goes further than where its answer would count: a text of nothing but markers would take quadratic time.
    before = marker.start() if marker else len(text)
    end = _END.search(text, position, before)
    if small_print := _SMALL_PRINT_END.search(text, position, end.start() if end else before):
        position = small_print.end()
        # Some editions put the marker right below the small print, others nowhere.
        if not (marker and marker.start() - position < 2000):
            return position
    if not marker:
        return position
    lines = text[marker.end() : marker.end() + 400].split("\n")[1:4]
    if not marker.group().rstrip().endswith("*"):  # the title ran over onto the next lines
        for index, line in enumerate(lines, start=1):
            if line.rstrip().endswith("**"):
                return marker.end() + len("\n".join(["", *lines[:index]]))
            if not line.strip():
                break
    return marker.end()


def _without_notices(book: str) -> str:
    """Drops the paragraphs of a book that the transcription added to it."""
    blocks = list(_BLOCK.finditer(book))
    tail = len(book) * _TAIL_SHARE
    kept: list[str] = []
    position = 0
    inside_bracket = False  # a note in brackets is still open
    heading = False  # the paragraph before was the heading of a note
    for index, block in enumerate(blocks):
        paragraph = block.group()
        gap = book[position : block.start()]
        position = block.end()
        if inside_bracket:
            inside_bracket = "]" not in paragraph
            continue
        short = len(paragraph) <= _LONGEST_NOTE
        if note := _NOTE.match(paragraph):
            bracket = note.group().lstrip().startswith("[")
            heading = not bracket and (len(paragraph) - note.end() < 20 or note.group().startswith("*"))
            if heading and block.start() > tail:
                break
            inside_bracket = bracket and "]" not in paragraph and "]" in book[position : position + _LONGEST_NOTE]
            if short or _BOX.fullmatch(paragraph):
                continue
        noticed = short and (
            heading
            or _BOILERPLATE.search(paragraph.lower())
            or (index < _FRONT_BLOCKS and (_CREDIT.match(paragraph) or _CONTACT.search(paragraph)))
            or (index == len(blocks) - 1 and _BARE_END.fullmatch(paragraph))
        )
        heading = False
        if not noticed:
            kept += [gap if kept else "", paragraph]
    cleaned = "".join(kept).rstrip()
    return cleaned + "\n" if cleaned else ""


def _title_lines(text: str) -> list[str]:
    """The lines of the title in the header: of the field "Title:", else of the first line that announces the book."""
    text = unix_newlines(text.removeprefix("\ufeff"))
    marker = _START.search(text)
    header = text[: min(marker.start() if marker else _LONGEST_HEADER, _LONGEST_HEADER)]
    if field := re.search(r"^Title:[ \t]*(\S.*(?:\n[ \t]+\S.*)*)", header, re.M | re.I):
        return [line.strip() for line in field.group(1).split("\n")]
    announced = re.search(
        r"^[ \t*\[_]*(?:The )?(?:\w+ )?Project Gutenberg(?:['’]s | e-?(?:text|book)(?: of|,) )"
        r"[ \t]*(\S.*?)(?:,? by\b.*)?[^\w\n]*$",
        header,
        re.M | re.I,
    )
    if not announced:
        return []
    quoted = re.search(r"[\"“](.+)", announced.group(1))
    return [quoted.group(1) if quoted else announced.group(1)]


def _main_title(title: str) -> str:
    title = unicodedata.normalize("NFKD", title).casefold().replace("&", " and ")
    title = re.sub(r"[\u0300-\u036f'’‘`´.,]", "", title)
    main = re.split(r"[:;(\[/—–]|--|\bor\b", title.strip(' "“”'))[0]
    words = [word for word in re.findall(r"\w+", main) if word not in {"a", "an", "the"}]
    return " ".join(words)
