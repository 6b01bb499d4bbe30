"""Readers of records: JSON lines and arrays, chats, tables (CSV, TSV) and parquet."""

import codecs
import csv
import functools
import io
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

from corpus.documents import Document, text_documents
from corpus.readers.streams import LONGEST_RECORD, BrokenFileError, Options, decoded, most_bytes
from storage.text import first_line

NO_ARRAY = ".json without an array of records"
"""Why a .json is left out of a folder or an archive: these are full of settings. Named by its user it is read."""

FIELD_FLAG = "--text-field"
"""How errors name the place where the user says a field; the page puts its own there."""
_ROWS = 1000  # of a parquet file, decoded at a time
_NO_DELIMITER = "\ufdd0"  # a noncharacter, which no text has: the csv module wants some delimiter
_EXCERPT = 40  # characters

# A chat is a list of messages in one of these fields; a message names who speaks, and what.
CHAT_FIELDS = ("messages", "conversations", "conversation")
_SPEAKER, _SPOKEN = ("role", "from", "author", "speaker", "name"), ("content", "value", "text")


def missing_field(place: str, kind: str, text_field: str, found: Iterable[str]) -> str:
    """The message about a field or column that does not exist."""
    return (
        f"{place}: expected a {kind} {text_field!r} with the text, got {', '.join(map(repr, found)) or 'none'}; "
        f"say which of them holds it ({FIELD_FLAG})"
    )


def read_json_lines(stream: BinaryIO, name: str, options: Options) -> Iterator[Document]:
    """One document a line of JSON objects in UTF-8, with or without a BOM, named `NAME#LINE`."""
    for number, record in _json_lines(stream, name, options):
        yield from text_documents(_text_of(record, f"{name}:{number}", name, options), f"{name}#{number}")


def read_json(stream: BinaryIO, name: str, options: Options) -> Iterator[Document]:
    """One document an object or string of an array, named `NAME#NUMBER` (from 1); what is no array is read as JSON
    lines. An array is held in memory.
    """
    is_array = begins_with_bracket(stream)
    stream.seek(0)
    if not is_array:
        yield from read_json_lines(stream, name, options)
        return
    for number, record in _json_array(stream, name, options):
        place = f"{name}#{number}"
        if record is not None and not isinstance(record, (dict, str)):
            kind = type(record).__name__
            raise BrokenFileError(f"{place}: expected an array of objects or texts, got one with {kind}; convert it")
        text = _text_of(record, place, name, options) if isinstance(record, dict) else record
        yield from text_documents(text, place)


def json_records(stream: BinaryIO, name: str, options: Options) -> Iterator[tuple[str, Any]]:
    """Each record of JSON lines with its place, `NAME:LINE`, or of an array, `NAME#NUMBER`.

    Raises:
        BrokenFileError: a line is no JSON object, or the array no JSON.
    """
    is_array = begins_with_bracket(stream)
    stream.seek(0)
    records = (_json_array if is_array else _json_lines)(stream, name, options)
    yield from ((f"{name}{'#' if is_array else ':'}{number}", record) for number, record in records)


def _json_lines(stream: BinaryIO, name: str, options: Options) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(iter(lambda: stream.readline(LONGEST_RECORD + 1), b""), start=1):
        if len(line) > LONGEST_RECORD:
            raise too_long(f"{name}:{number}", _excerpt(line))
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
            continue
        try:
            record = json.loads(_json_text(line, options.encoding))
            reason = type(record).__name__
        except ValueError as error:  # no JSON, or another encoding
            record, reason = None, str(error)
        except RecursionError:
            record, reason = None, "brackets nested too deep"
        if not isinstance(record, dict):
            hint = "; name a file with one array of all records .json" if line.startswith(b"[") else ""
            raise BrokenFileError(
                f"{name}:{number}: expected one JSON object a line, got {_excerpt(line)} ({reason}); "
                f"fix the line or leave the file out{hint}"
            )
        yield number, record


def _json_array(stream: BinaryIO, name: str, options: Options) -> Iterator[tuple[int, Any]]:
    raw = stream.read()
    try:
        records = json.loads(_json_text(raw, options.encoding, first=json.detect_encoding(raw)))
    except ValueError as error:
        raise BrokenFileError(f"{name}: expected a JSON array, got {_excerpt(raw)} ({error}); fix it") from error
    except RecursionError as error:
        raise BrokenFileError(f"{name}: expected a JSON array, got brackets nested too deep; fix it") from error
    yield from enumerate(records, start=1)


def begins_with_bracket(stream: BinaryIO) -> bool:
    """Whether the stream begins as a JSON array does."""
    return re.match(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[\s\0]*\[", stream.read(256)) is not None


def read_table(stream: BinaryIO, name: str, options: Options, delimiters: str = ",;\t|") -> Iterator[Document]:
    """One document a row of a table with a header, named `NAME#ROW` (from 1, without the header).

    Args:
        delimiters: what may separate the columns; the one that the header has most often does. Where it has none of
            them, there is one column, whose texts may hold all of them.

    Raises:
        BrokenFileError: a row is damaged, or has more cells than the header (a text holds the delimiter, unquoted).
    """
    lines = _lines(decoded(stream, name, options), name)
    header = next(lines, "")
    csv.field_size_limit(LONGEST_RECORD)
    delimiter = max(delimiters, key=header.count)
    if delimiter not in header:
        delimiter = _NO_DELIMITER
    rows = csv.reader(chain([header], lines), delimiter=delimiter, strict=True)
    try:
        columns = next(rows, None)
        if columns is None:
            return
        if options.text_field not in columns:
            raise ValueError(missing_field(name, "column", options.text_field, columns))
        column = columns.index(options.text_field)
        for number, row in enumerate(filter(None, rows), start=1):
            if any(cell.strip() for cell in row[len(columns) :]):  # empty ones at the end are a habit of spreadsheets
                raise BrokenFileError(
                    f"{name}#{number}: expected {len(columns)} cells, as the header has, got {len(row)}; put texts "
                    f"that hold the delimiter {delimiter!r} in quotes"
                )
            yield from text_documents(row[column] if column < len(row) else None, f"{name}#{number}")
    except csv.Error as error:
        raise BrokenFileError(
            f"{name}:{rows.line_num}: expected a row of a table, got what is none ({error}); fix it or leave it out"
        ) from error


def _lines(texts: Iterable[str], name: str) -> Iterator[str]:
    pending: list[str] = []
    length = number = 0
    for text in texts:
        first, *others = text.split("\n")
        pending.append(first)
        length += len(first)
        if length > LONGEST_RECORD:
            raise too_long(f"{name}:{number + 1}", _excerpt(pending[0].encode()))
        if others:
            yield "".join(pending) + "\n"
            yield from (line + "\n" for line in others[:-1])
            number += len(others)
            pending, length = [others[-1]], len(others[-1])
    if length:
        yield "".join(pending)


def too_long(place: str, excerpt: str) -> BrokenFileError:
    """The error about a line that is not held in memory."""
    return BrokenFileError(
        f"{place}: expected lines of at most {LONGEST_RECORD:,} bytes, got a longer one ({excerpt}); give plain text, "
        "which may be of any length, or one record a line"
    )


read_tsv = functools.partial(read_table, delimiters="\t")


def read_parquet(stream: BinaryIO, name: str, options: Options) -> Iterator[Document]:
    """One document a row, named `NAME#ROW` (from 1)."""
    import pyarrow as pa  # a quarter of a second of imports that other formats can do without
    import pyarrow.parquet as pq

    column, first, length = options.text_field, 1, 0
    stream.seek(0, io.SEEK_END)
    most = most_bytes(stream.tell(), options.most_unpacked)
    stream.seek(0)
    is_file = isinstance(getattr(stream, "raw", None), io.FileIO)  # which the library reads in less memory by its name
    try:
        with pq.ParquetFile(name if is_file else stream, pre_buffer=False) as file:
            _check_column(file.schema_arrow, column, name)
            for batch in file.iter_batches(batch_size=_ROWS, columns=[column]):
                for number, text in enumerate(batch.column(0).to_pylist(), start=first):
                    length += len(text or "")
                    if length > most:  # a column of one long text many times is a few bytes of a dictionary
                        raise BrokenFileError(
                            f"{name}#{number}: expected a table of texts, got one that expands to more than {most:,} "
                            "characters, as no text does (a decompression bomb?); it is not read further. If you "
                            "trust it, convert it to .jsonl"
                        )
                    yield from text_documents(text, f"{name}#{number}")
                first += batch.num_rows
    except UnicodeDecodeError as error:  # the library does not look at texts before they are made into Python's
        raise BrokenFileError(
            f"{name}: expected texts in UTF-8 in the column {column!r}, got other bytes ({first_line(error)}); write "
            "the file again with texts in UTF-8, or leave it out"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise BrokenFileError(
            f"{name}: expected a parquet file, got one that is damaged or something else "
            f"({first_line(error)}); fetch it again or leave it out"
        ) from error


def _check_column(schema: Any, text_field: str, name: str) -> None:
    from pyarrow import types

    if text_field not in schema.names:
        raise ValueError(missing_field(name, "column", text_field, schema.names))
    kind = schema.field(text_field).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise ValueError(
            f"{name}: expected text in the column {text_field!r}, got {kind}; "
            f"choose another column: {', '.join(map(repr, schema.names))}"
        )


def _text_of(record: dict[str, Any], place: str, name: str, options: Options) -> str | None:
    """The text of a record: of its field, or of the messages of a chat.

    Raises:
        ValueError: there is no such field, or it holds something else.
    """
    field = options.text_field
    if field not in record:
        field = next((chat for chat in CHAT_FIELDS if isinstance(record.get(chat), list)), field)
        if field not in record:
            raise ValueError(missing_field(place, "field", field, record))
    text = record[field]
    if text is None or isinstance(text, str):
        return text
    if text == [] and field in CHAT_FIELDS:  # a chat in which nobody said anything is as a text that is blank
        return None
    if (messages := _messages(text)) is not None:
        options.say(f"{name}: read as chats: the messages of {field!r}, each a line that begins with who speaks")
        return "".join(f"{speaker}: {spoken}\n" for speaker, spoken in messages)
    kind = type(text).__name__
    if isinstance(text, list):
        kind = f"a list of {type(text[0]).__name__}" if text else "an empty list"
        kind += " (a text, or a list of messages with 'role' and 'content', is read; join others first)"
    others = [other for other in record if other != field]
    raise ValueError(
        f"{place}: expected text in the field {field!r}, got {kind}; "
        + (f"choose another field: {', '.join(map(repr, others))}" if others else "convert the file")
    )


def _messages(value: Any) -> list[tuple[str, str]] | None:
    """(who speaks, what) of each message of a chat that has text; None where it is no chat."""
    if not isinstance(value, list) or not value:
        return None
    messages = []
    for message in value:
        if (parts := message_parts(message)) is None:
            return None
        speaker, spoken = parts
        if isinstance(spoken, str) and spoken.strip():
            messages.append((speaker[:1].upper() + speaker[1:], spoken.strip()))
    return messages


def message_parts(message: Any) -> tuple[str, Any] | None:
    """(who speaks, what) of a message of a chat; of content in parts, the text of all that are text. None where it is
    no message."""
    if not isinstance(message, dict):
        return None
    speaker = next((message[key] for key in _SPEAKER if isinstance(message.get(key), str)), None)
    key = next((key for key in _SPOKEN if key in message), None)
    if speaker is None or key is None:
        return None
    spoken = message[key]
    if isinstance(spoken, list):  # parts, of which some are text
        parts = [part.get("text") for part in spoken if isinstance(part, dict)]
        spoken = "".join(part for part in parts if isinstance(part, str))
    return speaker, spoken


def _json_text(raw: bytes, encoding: str | None, first: str = "utf-8") -> str:
    """JSON as text: in UTF-8, or else in the encoding that the user says."""
    try:
        return str(raw, first)
    except UnicodeDecodeError:
        if encoding is None:
            raise
        return str(raw, encoding)


def _excerpt(raw: bytes) -> str:
    text = raw[: 8 * _EXCERPT].decode("utf-8", "replace").strip()
    return repr(text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…")
