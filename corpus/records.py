"""Texts that lie in records: lines of JSON, rows of parquet."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from corpus.chunking import cut_document
from corpus.compressed import BrokenFileError
from corpus.documents import Document

_ROWS = 1000  # of a parquet file, decoded at a time


def read_json_lines(stream: BinaryIO, name: str, text_field: str) -> Iterator[Document]:
    """One document a line of a stream of JSON objects, named `NAME#LINE`; empty lines, and records whose text is null
    or blank, are left out.

    Args:
        stream: UTF-8, with or without a BOM.
        name: the file, for messages and for the names of the documents.
        text_field: which field of the objects holds the text.

    Raises:
        BrokenFileError: a line is no JSON object.
        ValueError: an object has no such field, or something else than text in it; the message lists its fields.
    """
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            record = json.loads(str(line, "utf-8"))
            reason = type(record).__name__
        except ValueError as error:  # no JSON, or no UTF-8
            record, reason = None, str(error)
        except RecursionError:
            record, reason = None, "brackets nested too deep"
        if not isinstance(record, dict):
            raise BrokenFileError(
                f"{name}:{number}: expected one JSON object a line, got {_excerpt(line)} ({reason}); "
                "mend the line or leave the file out"
            )
        text = find_text(record, text_field, f"{name}:{number}")
        yield from record_documents(text, f"{name}#{number}")


def read_parquet(path: Path, text_field: str) -> Iterator[Document]:
    """One document a row of a parquet file, named `PATH#ROW` (from 1), a thousand rows in memory at a time; rows whose
    text is null or blank are left out.

    Raises:
        BrokenFileError: the file cannot be read, or is damaged.
        ValueError: it has no such column, or one that holds no text; the message lists its columns.
    """
    import pyarrow.parquet as pq  # a quarter of a second of imports that other formats can do without

    name = path.as_posix()
    first = 1
    with _parquet_damage(name), pq.ParquetFile(path, pre_buffer=False) as file:
        _check_column(file.schema_arrow, text_field, name)
        for batch in file.iter_batches(batch_size=_ROWS, columns=[text_field]):
            for number, text in enumerate(batch.column(0).to_pylist(), start=first):
                yield from record_documents(text or "", f"{name}#{number}")
            first += batch.num_rows


def record_documents(text: str, name: str, **labels: Any) -> Iterable[Document]:
    """The document of a record, cut if it is long; nothing where the text is blank.

    Line ends become `\\n`, halves of surrogate pairs the replacement character.
    """
    if not text or text.isspace():
        return ()
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return cut_document(Document(text=text, name=name, **labels))


def find_text(record: dict[str, Any], text_field: str, place: str) -> str:
    """The text in a record, "" where it is null.

    Args:
        place: what to call the record in messages.

    Raises:
        ValueError: the record has no such field, or something else than text in it; the message lists its fields.
    """
    if text_field not in record:
        raise ValueError(missing_field(place, "field", text_field, record))
    text = record[text_field]
    if text is not None and not isinstance(text, str):
        raise ValueError(
            f"{place}: expected text in the field {text_field!r}, got {type(text).__name__}; "
            f"choose another field: {', '.join(map(repr, record))}"
        )
    return text or ""


def missing_field(place: str, kind: str, text_field: str, there: Iterable[str]) -> str:
    """The message about a field or column that is not there."""
    return (
        f"{place}: expected a {kind} {text_field!r} with the text, got {', '.join(map(repr, there)) or 'none'}; "
        "say which of them with the text_field (--corpus.text-field of `python -m train`)"
    )


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


@contextmanager
def _parquet_damage(name: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise BrokenFileError(
            f"{name}: expected a parquet file, got one that is damaged or something else "
            f"({str(error).splitlines()[0]}); fetch it again or leave it out"
        ) from error


def _excerpt(line: bytes) -> str:
    text = line.decode("utf-8", "replace").strip()
    return repr(text if len(text) <= 40 else text[:40] + "…")
