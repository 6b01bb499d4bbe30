"""How code outside the page loads its model: the arguments of `from_pretrained`, as Python code."""

from __future__ import annotations

import json
from pathlib import Path

from panels.models import ModelSource
from storage.records import read_json_object


def from_pretrained_arguments(source: ModelSource, home: Path, *, is_public: bool = False) -> tuple[str, str]:
    """What `from_pretrained` is called with, as Python code: for the model, and for its tokenizer."""
    place, revision = whereabouts(source, home, is_public=is_public)
    has_code = _has_code(source.folder, "config.json")  # which AutoTokenizer reads too, and asks about
    return (
        _call_of(place, revision, has_code),
        _call_of(place, revision, has_code or _has_code(source.folder, "tokenizer_config.json")),
    )


def whereabouts(source: ModelSource, home: Path, *, is_public: bool = False) -> tuple[str, str | None]:
    """Where `from_pretrained` finds the model: a Hub id and its revision, or a folder and None."""
    folder = source.folder
    given = Path(source.given).expanduser()
    if folder is not None and folder.absolute().is_relative_to(given.absolute()):
        inside, home = folder.resolve(), home.resolve()
        if inside.is_relative_to(home):
            return inside.relative_to(home).as_posix(), None
        return (folder.name if is_public else folder.as_posix()), None
    name, _, revision = source.given.partition("@")
    return name, revision or None


def literal(text: str) -> str:
    """`text` as a Python literal on one line."""
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else ascii(text)


def _has_code(folder: Path | None, name: str) -> bool:
    """Whether a folder's config names Python files of its own."""
    path = folder / name if folder else None
    return path is not None and path.is_file() and bool(read_json_object(path).get("auto_map"))


def _call_of(place: str, revision: str | None, has_code: bool) -> str:
    arguments = [
        literal(place),
        f"revision={literal(revision)}" if revision else "",
        "trust_remote_code=True" if has_code else "",
    ]
    return ", ".join(filter(None, arguments))
