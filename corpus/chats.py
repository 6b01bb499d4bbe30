"""Chats for instruction tuning: JSON lines of messages, each by a user, an assistant or the system.

    {"messages": [{"role": "user", "content": "Who is Rosa?"}, {"role": "assistant", "content": "A miller."}]}

That is the format of OpenAI and of the Hub's data sets. The other spellings that plain training reads (`corpus.readers.
records`: the field `conversations`, `from` and `value`) are read too, and said. Unlike there, a chat that cannot be
trained on is an error: a missing or empty answer would teach the model to say nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from corpus.encodings import check_encoding, say_once
from corpus.local import find_files
from corpus.readers.records import CHAT_FIELDS, json_records, message_parts
from corpus.readers.streams import COMPRESSIONS, Options, open_stream
from storage.text import replace_surrogates, unix_newlines

ROLES = ("system", "user", "assistant")
OTHER_NAMES = {"human": "user", "gpt": "assistant"}
"""Roles by their names in ShareGPT's files."""
SUFFIXES = (".jsonl", ".ndjson", ".json")
SHAPE = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'


class Message(NamedTuple):
    """What somebody says in a chat."""

    role: str  # one of ROLES
    content: str  # never blank


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat:
    """A chat with at least one answer."""

    messages: tuple[Message, ...]
    name: str  # where it came from, for messages: `FILE:LINE`, or what it is about
    split: Literal["train", "validation"] | None = None  # where it belongs, if its source says so
    kind: str | None = None  # what kind of question it asks, if its source knows


def read_chats(
    paths: Sequence[str | Path], *, encoding: str | None = None, say: Callable[[str], None] = say_once
) -> Iterator[Chat]:
    """The chats of JSON lines (.jsonl, .ndjson, or a .json with an array; also compressed), in the order of `paths`.

    Args:
        paths: files, folders and globs.
        encoding: of what is not UTF-8.
        say: called with a line for the user about what was assumed.

    Raises:
        ValueError: a path does not exist, a file is of another kind, or a line is no chat; the message names the file
            and the line, what was expected and what was got.
    """
    check_encoding(encoding)
    options = Options(encoding=encoding, say=say)
    for path in find_files(paths, say=say):
        name = path.as_posix()
        suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSIONS]
        if not suffixes or suffixes[-1] not in SUFFIXES:
            raise ValueError(
                f"{name}: expected chats as JSON lines, a file that ends in {', '.join(SUFFIXES)}, got another kind; "
                "name only files of chats with --corpus, or train on text with another recipe"
            )
        is_empty = True
        with open_stream(path) as stream:
            for place, record in json_records(stream, name, options):
                is_empty = False
                yield Chat(messages=_messages(record, place, say), name=place)
        if is_empty:
            raise ValueError(f"{name}: expected a line such as {SHAPE}, got an empty file; give another one")


def _messages(record: Any, place: str, say: Callable[[str], None]) -> tuple[Message, ...]:
    field = next((name for name in CHAT_FIELDS if isinstance(record, dict) and name in record), None)
    value = record.get(field) if field else None
    if field is None or not isinstance(value, list) or not value:
        got = f"{field!r} with {_kind(value)}" if field else f"the fields {', '.join(map(repr, record)) or 'none'}"
        raise ValueError(f"{place}: expected a chat such as {SHAPE}, got {got}; fix the line or leave it out")
    messages = [_message(message, f"{place}: message {number}", say) for number, message in enumerate(value, start=1)]
    if all(message.role != "assistant" for message in messages):
        raise ValueError(
            f"{place}: expected at least one answer (a message of the role 'assistant'), got none; write it, or leave "
            "the line out"
        )
    return tuple(messages)


def _message(message: Any, place: str, say: Callable[[str], None]) -> Message:
    parts = message_parts(message)
    if parts is None:
        got = f"the fields {', '.join(map(repr, message))}" if isinstance(message, dict) else _kind(message)
        raise ValueError(f"{place}: expected an object with 'role' and 'content', got {got}; fix the line")
    given, content = parts
    role = OTHER_NAMES.get(given.lower(), given.lower())
    if role not in ROLES:
        raise ValueError(
            f"{place}: expected a role of {', '.join(map(repr, ROLES))}, got {given!r}; rename it, or leave "
            "the line out"
        )
    if role != given:
        say(f"roles are read by other names: {given!r} as {role!r}")
    what = "an answer" if role == "assistant" else "a text"
    if not isinstance(content, str):
        raise ValueError(f"{place} ({role}): expected {what} as content, got {_kind(content)}; fix the line")
    if not content.strip():
        raise ValueError(f"{place} ({role}): expected {what}, got an empty one; write it, or leave the line out")
    return Message(role, replace_surrogates(unix_newlines(content.strip())))


def _kind(value: Any) -> str:
    return "null" if value is None else "an empty list" if value == [] else f"a {type(value).__name__}"
