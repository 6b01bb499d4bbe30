"""Long texts in pieces, so that a text may be larger than the memory."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from corpus.documents import Document

PIECE = 1_000_000  # characters
LONGEST_WHOLE = 16_000_000  # characters (or bytes, before decoding); longer texts come in pieces

# Where a piece may end, best first. All but the third leave every token as it is in the whole text: of several line
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
                end = start + _border(joined[start : start + max(2, size)])
                yield joined[start:end], False
                start = end
            pending = [joined[start:]]
            length = len(joined) - start
    if length:
        yield "".join(pending), True


def cut_document(document: Document) -> Iterable[Document]:
    """The document as it is, or in pieces if it is longer than `LONGEST_WHOLE`."""
    if len(document.text) <= LONGEST_WHOLE:
        return (document,)
    pieces = cut_text([document.text])
    return (replace(document, text=piece, is_complete=is_last) for piece, is_last in pieces)


def _border(text: str) -> int:
    """The last place inside the text where a piece may end."""
    for border in _BORDERS:
        if match := border.match(text):
            return match.end()
    raise AssertionError("a text of two characters has a border")
