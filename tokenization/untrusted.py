"""Tokenizers of other people: files without measure, and patterns that never come to an end.

A tokenizer holds no code, but two of its parts work as long as they like: the regular expression that splits a text,
and the chat template (`tokenization.chat_template`).
"""

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.text import first_line
from tokenization.spans import SENTENCEPIECE_WORDS, is_from_scratch
from tokenization.tokenization_scratchgpt import GPT4_SPLIT_PATTERN

LARGEST = 100_000_000
"""Bytes of a file of a tokenizer. The largest that are known, of 260,000 tokens, have 35 million."""
FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "merge_counts.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
OURS = {GPT4_SPLIT_PATTERN, SENTENCEPIECE_WORDS}
"""Patterns that come to an end."""
SECONDS, SECONDS_A_CHARACTER = 5.0, 1e-4
"""What a pattern that is not ours may take of a text: a thousand times what GPT-2's takes."""


def check_sizes(folder: Path) -> None:
    """Refuse a tokenizer folder with a file that is larger than any tokenizer's, before it is read.

    Raises:
        ValueError: naming the file.
    """
    for path in (place / name for place in (folder, folder / "slow") for name in FILES):
        if path.is_file() and (size := path.stat().st_size) > LARGEST:
            raise ValueError(
                f"{path}: expected a file of a tokenizer, of at most {LARGEST:,} bytes, got {size:,}; it is not read. "
                "Export or copy the tokenizer again."
            )


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Whatever the libraries raise about the files of a tokenizer becomes one message; a ValueError has one already."""
    try:
        yield
    except (ValueError, OSError, MemoryError):
        raise
    except BaseException as error:
        if not (isinstance(error, Exception) or _is_panic(error)):
            raise
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(
            f"{folder}: expected a tokenizer that loads, got one that does not ({reason}). Export or copy it again."
        ) from error


def limit_patterns(tokenizer: Any) -> Any:
    """The tokenizer, whose pattern ends with a ValueError where it takes too long for a text.

    The library `regex`, which the from-scratch class uses, takes a limit of time; the Rust backend gives up by itself
    after ten million tries, with a panic, which is no `Exception`. Our own pattern needs neither.
    """
    if is_from_scratch(tokenizer):
        if tokenizer.pattern != GPT4_SPLIT_PATTERN:
            tokenizer.split.pattern = TimedPattern(tokenizer.split.pattern)
    elif _patterns(getattr(tokenizer, "backend_tokenizer", None)) - OURS:
        tokenizer._encode_plus = functools.partial(without_panics, tokenizer._encode_plus)
    return tokenizer


class TimedPattern:
    """A compiled pattern of the library `regex` with a limit of time."""

    def __init__(self, pattern: Any) -> None:
        self.pattern = pattern

    def findall(self, text: str) -> list[str]:
        """As that of the pattern; ValueError where it takes too long."""
        with self._limited(text) as seconds:
            return self.pattern.findall(text, timeout=seconds)

    def finditer(self, text: str) -> Iterator[Any]:
        """As that of the pattern; ValueError where it takes too long."""
        with self._limited(text) as seconds:
            yield from self.pattern.finditer(text, timeout=seconds)

    @contextmanager
    def _limited(self, text: str) -> Iterator[float]:
        seconds = SECONDS + SECONDS_A_CHARACTER * len(text)
        try:
            yield seconds
        except TimeoutError as error:
            raise ValueError(_gave_up(f"takes more than {seconds:.0f} seconds")) from error


def _patterns(backend: Any) -> set[str]:
    """The regular expressions in a Rust backend (None: there is none), those of a normalizer and a decoder included."""
    parts = [getattr(backend, name, None) for name in ("normalizer", "pre_tokenizer", "decoder")]
    states = [json.loads(part.__getstate__()) for part in parts if part is not None]
    found: set[str] = set()
    while states:
        state = states.pop()
        if isinstance(state, dict):
            if isinstance(state.get("Regex"), str):
                found.add(state["Regex"])
            states += state.values()
        elif isinstance(state, list):
            states += state
    return found


def without_panics(encode: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function of the Rust library makes of its arguments.

    Raises:
        ValueError: it panics, because a pattern of the tokenizer does not come to an end on the text.
    """
    try:
        return encode(*args, **kwargs)
    except BaseException as error:
        if not _is_panic(error):
            raise
        raise ValueError(_gave_up(f"fails: {first_line(error)}")) from error


def _is_panic(error: BaseException) -> bool:
    """Whether a Rust library has panicked; its exception's class cannot be imported."""
    return type(error).__name__ == "PanicException"


def _gave_up(what: str) -> str:
    return (
        f"expected a tokenizer that splits any text, but the pattern of this one {what}. Shorten the text, or take "
        "another tokenizer."
    )
