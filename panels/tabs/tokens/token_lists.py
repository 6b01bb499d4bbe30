"""A text in tokens, as the Tokens tab and the API give it: its tokens, its merges, a second tokenizer beside it."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.files import as_path, matching_paths
from storage.run_folder import RunFolder
from storage.text import first_line

if TYPE_CHECKING:
    from tokenization.spans import Piece

LONGEST = 100_000
"""Characters of a text."""
SHOWN = 1_000
"""Tokens of a text that are shown one by one."""
REPLAYED = 300
"""Characters whose merges are replayed."""
NONE, BYTES, CHARACTERS, GPT2 = "none", "bytes", "characters", "GPT-2"
RUN = "run "
GPT2_REPOSITORIES = ("openai-community/gpt2", "gpt2")
TOKENIZER_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "slow/*")
"""Patterns of what a tokenizer of the Hub is loaded from."""
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def count_bytes(text: str) -> int:
    """Bytes of a text in UTF-8."""
    from tokenization.tokenization_scratchgpt import text_to_bytes

    return len(text_to_bytes(text))


def in_tokens(name: str, text: str, found: list[Piece]) -> dict[str, Any]:
    """A text in tokens, for the page: `tokens` has id, label, first character, the one after the last, and bytes of
    each of the first `SHOWN`."""
    tokens = [_row(piece) for piece in found[:SHOWN]]
    return {"name": name, "characters": len(text), "bytes": count_bytes(text), "count": len(found), "tokens": tokens}


def as_json(text: str, found: list[Piece]) -> dict[str, Any]:
    """A text in tokens, for the API."""
    size = count_bytes(text)
    names = ("token_id", "text", "start", "end", "bytes")
    tokens = [dict(zip(names, _row(piece), strict=True)) for piece in found]
    return {
        "tokens": tokens,
        "count": len(tokens),
        "bytes": size,
        "bytes_per_token": size / len(tokens) if tokens else None,
    }


def _row(piece: Piece) -> list[Any]:
    return [piece.token_id, piece.label, piece.start, piece.end, piece.byte_count]


def merges_of(tokenizer: Any, text: str) -> dict[str, Any]:
    """The replay of the first `REPLAYED` characters, for the page: `merges` has rank, ids of the two halves and of the
    whole, count in the training text (null: not recorded) and places in the text."""
    from tokenization.merge_trace import replay

    trace = replay(tokenizer, text[:REPLAYED])
    return {
        "message": trace.message,
        "cut": REPLAYED if len(text) > REPLAYED else None,
        "learnt": trace.learnt,
        "words": trace.words,
        "labels": trace.labels,
        "merges": [[each.rank, each.first, each.second, each.made, each.count, each.places] for each in trace.merges],
    }


def characters(text: str) -> list[Piece]:
    """Each character as a token, its code point as the id."""
    from tokenization.spans import Piece, visible_bytes
    from tokenization.tokenization_scratchgpt import text_to_bytes

    contents = map(text_to_bytes, text)
    return [
        Piece(token_id=ord(text[index]), label=visible_bytes(data), start=index, end=index + 1, byte_count=len(data))
        for index, data in enumerate(contents)
    ]


def choices(home: Path) -> list[str]:
    """The second tokenizers that are known: bytes, characters, those of the runs in `home`/runs, GPT-2's where its
    files are in the local cache."""
    folders = ((path.name, RunFolder(path).tokenizer) for path in matching_paths(home, "runs/*"))
    runs = [name for name, tokenizer in folders if (tokenizer / "tokenizer_config.json").is_file()]
    gpt2 = [GPT2] if _cached_gpt2() else []
    return [NONE, BYTES, CHARACTERS, *(RUN + name for name in sorted(runs)), *gpt2]


def in_second_tokens(chosen: str | None, text: str, home: Path, *, anywhere: bool) -> dict[str, Any] | None:
    """A text as `in_tokens` of the chosen tokenizer to compare with, None for none; ValueError where it does not load.

    `chosen` is one of `choices`, or, where it may be `anywhere`, a folder with a tokenizer or a Hub id.
    """
    chosen = (chosen or "").strip()
    if chosen in ("", NONE):
        return None
    if chosen == CHARACTERS:
        return in_tokens(chosen, text, characters(text))
    place, stamp = _place_of(chosen, home, anywhere=anywhere), 0
    try:
        if isinstance(place, Path):
            files = [path for path in matching_paths(place, "tokenizer*") if path.is_file()]
            stamp = max((path.stat().st_mtime_ns for path in files), default=0)
        tokenizer = _load(place, stamp)
    except Exception as error:  # each library below has exceptions of its own for a broken file or a lost network
        raise ValueError(f"Second tokenizer: cannot load {chosen}: {first_line(error)}") from error
    from tokenization.spans import pieces

    return in_tokens(chosen, text, pieces(tokenizer, text))


def _place_of(chosen: str, home: Path, *, anywhere: bool) -> Path | str:
    """The tokenizer's folder, its Hub id, or BYTES."""
    if chosen == BYTES:
        return BYTES
    known = choices(home)
    if chosen in known:
        gpt2 = _cached_gpt2() if chosen == GPT2 else None
        return gpt2 or RunFolder(home / "runs" / chosen.removeprefix(RUN)).tokenizer
    if not anywhere:
        raise ValueError(f"Second tokenizer: expected one of {', '.join(known)}, got {chosen[:80]!r}.")
    expected = "the folder of a tokenizer or a Hub id"
    path = as_path(home / as_path(chosen, expected), expected)
    if path.exists():
        inside = RunFolder(path).tokenizer
        return inside if inside.is_dir() else path
    if HUB_ID.fullmatch(chosen) and not chosen.startswith("."):
        return chosen
    raise ValueError(
        f"Second tokenizer: {chosen[:200]} is no folder here and no Hub id. Choose one of the list, or give the folder "
        "of a run, a bundle or a tokenizer, or a Hub id such as openai-community/gpt2."
    )


def _cached_gpt2() -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for repository in GPT2_REPOSITORIES:
        path = try_to_load_from_cache(repository, "tokenizer.json")
        if isinstance(path, str):
            return Path(path).parent
    return None


@lru_cache(maxsize=8)
def _load(place: Path | str, stamp: int) -> Any:
    """`stamp` says which version of a folder's files it is."""
    from modeling.loading import fetch
    from tokenization import ScratchGPTTokenizer, load_tokenizer

    if place == BYTES:
        return ScratchGPTTokenizer.from_merges([])
    # A tokenizer of the Hub too is held to limits of size and time by `load_tokenizer` alone.
    return load_tokenizer(place if isinstance(place, Path) else fetch(place, files=TOKENIZER_FILES))
