"""Data sets of the Hugging Face Hub, streamed: read row by row over the network, never complete on disk or in memory.

A name that is a folder on this machine is read from there, as `datasets` reads folders. Data sets that need a loading
script (`bookcorpus` is one) are read from the parquet copy that the Hub keeps of each.
"""

import functools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from corpus.documents import Document, cut_text, text_documents
from corpus.readers.records import missing_field
from storage.text import unix_newlines

_BATCH = 1000  # rows in memory at a time
_PARQUET_COPY = "refs/convert/parquet"
_VALIDATION = ("validation", "valid", "dev")
_TIMEOUT = 30.0  # seconds


class Rows(NamedTuple):
    """Consecutive rows of a split."""

    first: int  # number of the first, from 1
    texts: list[str | None]
    after: dict[str, Any]  # where reading continues after them, as JSON: what `HubDataset.read` takes as `start`


@dataclass(frozen=True, kw_only=True, slots=True)
class HubDataset:
    """A data set, open for reading at one version of it."""

    name: str
    version: str | None  # what `open_hub` takes to read the same again: the hash of a commit; None for a folder
    splits: dict[str, Any]  # by name, each an IterableDataset

    def read(self, split: str, text_field: str = "text", *, start: dict[str, Any] | None = None) -> Iterator[Rows]:
        """The rows of a split, in order.

        Args:
            split: its name.
            text_field: the column that holds the text.
            start: where to continue, from `Rows.after` of an earlier pass over this version (default: the beginning).

        Raises:
            ValueError: there is no such split or column (the message lists the existing ones), the column holds no
                text, or the Hub cannot be reached.
        """
        place = f"{self.name}, split {split!r}"
        if split not in self.splits:
            raise ValueError(f"{self.name}: expected a split {split!r}, got {', '.join(map(repr, self.splits))}")
        rows = self.splits[split]
        if rows.column_names is not None:
            if text_field not in rows.column_names:
                raise ValueError(missing_field(place, "column", text_field, rows.column_names))
            rows = rows.select_columns([text_field])
        rows = rows.with_format("arrow")
        first = 1
        if start is not None:
            first = start["row"]
            rows.load_state_dict(start["state"])
        with _explained(self.name):
            for table in rows.iter(_BATCH):
                if text_field not in table.column_names:
                    raise _UserError(missing_field(place, "column", text_field, table.column_names))
                texts = table.column(text_field).to_pylist()
                wrong = next((text for text in texts if text is not None and not isinstance(text, str)), None)
                if wrong is not None:
                    kind = type(wrong).__name__
                    raise _UserError(f"{place}: expected text in the column {text_field!r}, got {kind}; choose another")
                after = {"row": first + len(texts), "state": rows.state_dict()}
                yield Rows(first=first, texts=texts, after=after)
                first += len(texts)


def open_hub(dataset: str, config: str | None = None, *, version: str | None = None) -> HubDataset:
    """Opens a data set of the Hub, or a folder that `datasets` can load.

    Args:
        dataset: `owner/name`, or the path of a folder.
        config: its configuration, where it has several.
        version: commit to read (default: the newest, which later changes then do not touch).

    Raises:
        ValueError: there is no such data set, it is gated or needs a login, the Hub cannot be reached, it has several
            configurations and none is named, or holds nothing that can be read.
    """
    import datasets  # two seconds of imports

    with _explained(dataset), _quiet():
        if Path(dataset).is_dir():
            splits = datasets.load_dataset(dataset, config, streaming=True)
            return HubDataset(name=dataset, version=None, splits=_by_name(splits))
        is_copy = version is not None and version.startswith(_PARQUET_COPY)
        if not is_copy:
            name, commit = _resolve(dataset, version)
            try:
                splits = datasets.load_dataset(name, config, revision=commit, streaming=True)
                return HubDataset(name=dataset, version=commit, splits=_by_name(splits))
            except RuntimeError as error:
                if "scripts are no longer supported" not in str(error):
                    raise
        name, commit = _resolve(dataset, version.partition("@")[2] if version and is_copy else _PARQUET_COPY)
        splits = datasets.load_dataset(name, data_dir=config, revision=commit, streaming=True)
        return HubDataset(name=dataset, version=f"{_PARQUET_COPY}@{commit}", splits=_by_name(splits))


def read_hub(
    dataset: str, *, config: str | None = None, text_field: str = "text", joined_rows: bool = False
) -> Iterator[Document]:
    """The documents of a data set: its train split, and its validation split where it has one, labelled as such.

    The test split is never read. Rows without text are left out. Where there is a validation split, documents carry
    `split`, else None. The data set is opened when the iterator starts.

    Args:
        dataset: `owner/name` on the Hub, or a folder that `datasets` can load.
        config: its configuration, where it has several.
        text_field: the column that holds the text.
        joined_rows: the rows of a split are the lines of one running text, which comes in pieces of about a million
            characters (a row without a line end gets one); otherwise each row is a document, named
            `DATASET/SPLIT#ROW`.

    Raises:
        ValueError: what `open_hub` and `HubDataset.read` raise, or there is no train split.
    """
    opened = open_hub(dataset, config)
    validation = next((name for name in _VALIDATION if name in opened.splits), None)
    labels: list[tuple[str, Literal["train", "validation"] | None]] = [("train", "train" if validation else None)]
    if validation:
        labels.append((validation, "validation"))
    for split, label in labels:
        batches = opened.read(split, text_field)
        name = f"{dataset}/{split}"
        if joined_rows:
            texts = (_as_lines(text) for rows in batches for text in rows.texts if text)
            for piece, is_last in cut_text(texts):
                yield Document(text=piece, name=name, split=label, is_complete=is_last)
        else:
            for rows in batches:
                for number, text in enumerate(rows.texts, start=rows.first):
                    yield from text_documents(text, f"{name}#{number}", split=label)


def _by_name(splits: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): rows for name, rows in splits.items()}


def _resolve(dataset: str, version: str | None) -> tuple[str, str | None]:
    """The full name of a data set, and the hash of the version's commit."""
    import huggingface_hub

    try:
        info = huggingface_hub.HfApi().dataset_info(dataset, revision=version, timeout=_TIMEOUT)
    except json.JSONDecodeError as error:  # not the Hub answered, but the login page of a network, say
        raise ConnectionError("something answered in its place, and not in JSON") from error
    return info.id, info.sha


def _as_lines(row: str) -> str:
    """A row as a line or several, each with `\\n` as its end."""
    row = unix_newlines(row)
    return row if row.endswith("\n") else row + "\n"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars, which show single requests."""
    import datasets

    was_on = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if was_on:
            datasets.enable_progress_bars()


class _UserError(ValueError):
    """An error whose message is complete."""


@contextmanager
def _explained(dataset: str) -> Iterator[None]:
    """Rewords what goes wrong between here and the Hub into one message."""
    try:
        yield
    except _UserError:
        raise
    except Exception as error:
        if message := _explain(dataset, error):
            raise ValueError(f"{dataset}: {message}") from error
        raise


def _explain(dataset: str, error: Exception) -> str | None:
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import errors

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    text = str(error)
    reason = next((line for line in text.splitlines() if line.strip()), type(error).__name__)

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in chain)

    if has(errors.GatedRepoError) or "gated dataset" in text:
        return (
            "is a gated data set; accept its terms on its page at the Hub, log in with `hf auth login`, "
            "and run the same command again"
        )
    if has(errors.RevisionNotFoundError):
        return "needs a loading script, which is not run, and the Hub has no parquet copy of it; choose another one"
    if has(errors.RepositoryNotFoundError, DatasetNotFoundError):
        return (
            "expected a data set of the Hub or a folder, got a name that the Hub does not show you; check its spelling "
            "(owner/name), and if it is private log in with `hf auth login`"
        )
    if has(errors.HFValidationError):
        return "expected a data set of the Hub (owner/name) or a folder, got neither; check the name"
    if configs := re.search(r"(?:available configs|Available): \[(.*)\]", text):
        found = "none" if "missing" in text else "another"
        return f"expected the name of one of its configurations, {configs[1]}, got {found}; choose one of them"
    if has(errors.OfflineModeIsEnabled):
        return "cannot be reached, as HF_HUB_OFFLINE is set in the environment; unset it, or use --corpus"
    if has(*connection_errors()):
        return (
            f"the Hub cannot be reached ({reason}); check the network and run the same command again, or use text on "
            "this machine: --corpus PATH"
        )
    if has(errors.HfHubHTTPError):
        return f"the Hub answers {reason}; run the same command again later, or use text on this machine: --corpus PATH"
    if isinstance(error, (OSError, ValueError)) or type(error).__module__.partition(".")[0] in ("datasets", "pyarrow"):
        return f"expected a data set that can be read, got: {reason}; choose another, or fix its files"
    return None


@functools.cache
def connection_errors() -> tuple[type[Exception], ...]:
    """The exceptions that mean that the Hub did not answer: no such host, refused, reset, cut short, too slow.

    An answer with an error status is huggingface_hub's own HfHubHTTPError. It derives from the same HTTP library's
    errors, httpx or httpx2 according to the version of huggingface_hub, and so tells which of them to catch.
    """
    from huggingface_hub.errors import HfHubHTTPError

    base = next((kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"), Exception)
    library = sys.modules.get(base.__module__.partition(".")[0])
    request_error = getattr(library, "RequestError", None)
    return (*((request_error,) if request_error else ()), ConnectionError, TimeoutError)
