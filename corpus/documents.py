"""The unit that every source yields and every later stage reads."""

from dataclasses import dataclass
from typing import Literal


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
    """False: a piece of a long text that goes on in the next document. Pieces part after a line end, before a
    character that is no whitespace (where a megabyte has no such place, between words), and together they are the
    text."""
