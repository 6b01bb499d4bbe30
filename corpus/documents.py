"""The unit that every source yields and every later stage reads."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One self-contained text: a book, a file, a story."""

    text: str
    """The text itself, never empty, with `\\n` as the only line end."""

    name: str
    """Where it came from, for messages and manifests: a path, a title, a number."""

    log_probability: float | None = None
    """Log-probability of the text under its source, in nats; None where the source does not know it."""
