"""The unit that every source yields and every later stage reads, and the cutting of long texts into pieces."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from storage.text import replace_surrogates, unix_newlines

PIECE = 1_000_000  # characters
LONGEST_UNCUT = 16_000_000  # characters (or bytes, before decoding); longer texts come in pieces

# Where a piece may end, best first. All but the third leave every token as it is in the uncut text: of several line
# ends in a row GPT-2's pattern keeps the last apart from the others if a visible character follows.
_BORDERS = [
    re.compile("(?s:.*)" + place)
    for place in (
        r"(?<=\S\n)(?=\S)",  # between two lines
        r"(?<=\n)(?= \S)",  # before a line that one space indents, as all lines of WikiText are
        r"(?<=\n)(?=\S)",  # between two paragraphs
        r"(?<=[^\W\d_])(?= [^\W\d_])",  # between two words
        r"(?<=\S)(?=\w)",
        r"(?s:.)(?=(?s:.))",
    )
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One self-contained text: a book, a file, a story."""

    text: str
    """The text itself, never empty, with `\\n` as the only line end."""

    name: str
    """Where it came from, for messages and manifests: a path, a title, a number."""

    log_probability: float | None = None
    """Log-probability of the text under its source, in nats; None where the source does not know it."""

    split: Literal["train", "validation"] | None = None
    """Where it belongs, if its source says so; None leaves it to whoever splits the corpus."""

    is_complete: bool = True
    """False: a piece of a long text that continues in the next document. Pieces end after a line end and before a
    character that is no whitespace (where a megabyte has no such place, between words); joined, they are the text."""


def cut_text(texts: Iterable[str], size: int = PIECE) -> Iterator[tuple[str, bool]]:
    """The running text that `texts` make together, in pieces of about `size` characters.

    A piece ends after a line end and before a visible character. Where no such place is in reach (a text on one line),
    it ends between two words, and only without words at any character.

    Yields:
        (piece, whether it is the last). Empty texts yield nothing.
    """
    pending: list[str] = []
    length = 0
    for text in texts:
        pending.append(text)
        length += len(text)
        if length > size:
            joined = "".join(pending)
            start = 0
            while len(joined) - start > size:
                end = start + _last_border(joined[start : start + max(2, size)])
                yield joined[start:end], False
                start = end
            pending = [joined[start:]]
            length = len(joined) - start
    if length:
        yield "".join(pending), True


def text_documents(text: str | None, name: str, **labels: Any) -> Iterable[Document]:
    """The document of a text, cut if it is long; nothing where the text is blank or null.

    Line ends become `\\n`; surrogates are replaced as in `storage.text.replace_surrogates`.
    """
    if not text or text.isspace():
        return ()
    return cut_document(Document(text=replace_surrogates(unix_newlines(text)), name=name, **labels))


def cut_document(document: Document) -> Iterable[Document]:
    """The document as it is, or in pieces if it is longer than `LONGEST_UNCUT`."""
    if len(document.text) <= LONGEST_UNCUT:
        return (document,)
    pieces = cut_text([document.text])
    return (replace(document, text=piece, is_complete=is_last) for piece, is_last in pieces)


def _last_border(text: str) -> int:
    for border in _BORDERS:
        if match := border.match(text):
            return match.end()
    raise AssertionError("a text of two characters has a border")
