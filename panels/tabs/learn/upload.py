"""The text that a visitor trains on: pasted, or read from an uploaded file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from corpus.local import read_text as read_corpus
from storage.text import replace_surrogates

LARGEST_FILE, LARGEST_TEXT = 20_000_000, 100_000_000
"""Bytes of an uploaded file, and characters of the text in it."""


def read_text(
    pasted: str, upload: str | Path | None, *, encoding: str | None = None, text_field: str = "text"
) -> tuple[str, list[str]]:
    """The text to train on, and lines about how it was read: that of the uploaded file, of any kind that
    `corpus.local.read_text` reads, where there is one, else the pasted one.

    ValueError: there is none, the file or its text is too large, or it cannot be read.
    """
    if upload is None:
        text = replace_surrogates(pasted or "")
        if not text.strip():
            raise ValueError("Expected a text to train on, got none: paste one, or choose a file.")
        return text, []
    path = Path(upload)
    try:
        found = path.stat()
    except OSError as error:
        raise ValueError(f"{path.name} could not be read ({error.strerror}); choose it again.") from error
    command = f"Train on it with `python -m train modern --corpus {path.name}`."
    if found.st_size > LARGEST_FILE:
        size = f"expected at most {LARGEST_FILE // 10**6} MB, got {found.st_size / 1e6:.0f} MB"
        raise ValueError(f"{path.name}: {size}. {command}")
    text, notes = _read_file(path, found.st_mtime_ns, encoding, (text_field or "").strip() or "text")
    if (pasted or "").strip():
        notes = [*notes, f"A run trains on the file, {path.name}, and not on the pasted text: take one of them away."]
    return text, notes


@lru_cache(maxsize=2)
def _read_file(path: Path, stamp: int, encoding: str | None, text_field: str) -> tuple[str, list[str]]:
    """Once for all estimates of a form; `stamp` says which version of the file it is."""
    return read_corpus(path, encoding=encoding, text_field=text_field, longest=LARGEST_TEXT)
