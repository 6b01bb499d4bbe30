"""The two steps before a tokenizer that can be run alone: fetching a corpus into one file, and preprocessing it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from corpus.gutenberg import GUTENBERG_URL, SCIFI_BOOKS, read_gutenberg
from corpus.hub import open_hub
from corpus.local import find_files, read_files
from corpus.partial import open_partial
from corpus.records import record_documents
from corpus.tidy import tidy

# (text, whether it is complete) of some texts, the bytes of the source behind them, and where it goes on
_Part = tuple[Iterable[tuple[str, bool]], int, Any]


def download(
    dataset: str,
    out: Path,
    *,
    config: str | None = None,
    split: str = "train",
    text_field: str = "text",
    limit_bytes: int | None = None,
    gutenberg_url: str = GUTENBERG_URL,
    cache_dir: Path | None = None,
    progress: bool = True,
) -> str:
    """Writes the texts of a data set of the Hub, or the books of the sci-fi recipe, into one file.

    A killed download goes on where it was, with the version of the data set that it began with, when it is called with
    the same arguments.

    Args:
        dataset: `owner/name`, the path of a folder that `datasets` can load, or "gutenberg".
        out: a .txt (rows as lines), a .jsonl (a record a row), or one of these with .zst.
        config: configuration of the data set, where it has several.
        split: which of its splits.
        text_field: its column that holds the text.
        limit_bytes: stop behind the text with which so many bytes are reached (default: no limit).
        gutenberg_url: the site of the books, or a mirror.
        cache_dir: where the raw books stay (default: the user's cache).
        progress: whether to show a progress bar.

    Returns:
        What was written, in words.

    Raises:
        ValueError, OSError: as `open_partial`, `open_hub` and `read_gutenberg` say.
    """
    if limit_bytes is not None and limit_bytes < 1:
        raise ValueError(f"limit-bytes: expected at least 1, got {limit_bytes}")
    made_from = {"dataset": dataset, "config": config, "split": split, "text_field": text_field, "limit": limit_bytes}

    def books(start: int | None) -> Iterator[_Part]:
        documents = read_gutenberg(SCIFI_BOOKS, base_url=gutenberg_url, cache_dir=cache_dir, progress=progress)
        for number, document in enumerate(islice(documents, start or 0, None), start=(start or 0) + 1):
            yield [(document.text, True)], len(document.text.encode()), number

    def rows(start: dict[str, Any] | None) -> Iterator[_Part]:
        opened = open_hub(dataset, config, version=start["version"] if start else None)
        for some in opened.read(split, text_field, start=start["rows"] if start else None):
            texts = [
                (document.text, document.is_complete)
                for text in some.texts
                for document in record_documents(text or "", dataset)
            ]
            size = sum(len(text.encode()) for text, _ in texts)
            yield texts, size, {"version": opened.version, "rows": some.after}

    read = books if dataset == "gutenberg" else rows
    return _write(out, made_from, read, total=limit_bytes, limit=limit_bytes, progress=progress)


def clean(
    paths: Sequence[str | Path],
    out: Path,
    *,
    text_field: str = "text",
    skip_broken: bool = False,
    progress: bool = True,
) -> str:
    """Writes the texts of files into one file, in tidy lines as `corpus.tidy.tidy` says.

    Documents of which nothing is left go; a line of over a megabyte is broken where the text was read in pieces. A
    killed run goes on where it was when it is called with the same arguments and the files are the same.

    Args:
        paths, text_field, skip_broken: as for `read_local`.
        out: a .txt, a .jsonl (a record a document; of a text of over 16 MB one a megabyte), or one of these with .zst.
        progress: whether to show a progress bar.

    Returns:
        What was written, in words.

    Raises:
        ValueError, OSError: as `open_partial` and `read_local` say.
    """
    files = find_files(paths)
    sizes = [file.stat() for file in files]
    found = [[file.as_posix(), stat.st_size, stat.st_mtime_ns] for file, stat in zip(files, sizes, strict=True)]
    made_from = {"files": found, "text_field": text_field, "skip_broken": skip_broken}

    def parts(start: dict[str, Any] | None) -> Iterator[_Part]:
        done, last_line = (start["documents"], start["last_line"]) if start else (0, "")
        documents = read_files(files, text_field=text_field, skip_broken=skip_broken)
        for number, document in enumerate(islice(documents, done, None), start=done + 1):
            text, last_line = tidy(document.text, last_line)
            if document.is_complete:
                last_line = ""
            size = len(document.text.encode())
            yield [(text, document.is_complete)], size, {"documents": number, "last_line": last_line}

    is_plain = all(file.suffix.lower() == ".txt" for file in files)
    total = sum(stat.st_size for stat in sizes) if is_plain else None
    return _write(out, made_from, parts, total=total, limit=None, progress=progress)


def _write(
    out: Path,
    made_from: dict[str, Any],
    read: Callable[[Any], Iterator[_Part]],
    *,
    total: int | None,
    limit: int | None,
    progress: bool,
) -> str:
    def is_full() -> bool:
        return limit is not None and partial.text_bytes >= limit

    with open_partial(out, made_from) as partial:
        saved = partial.position or {"source": None, "read": 0}
        with tqdm(
            desc=out.name,
            total=total,
            initial=saved["read"],
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not progress,
        ) as bar:
            for texts, size, position in [] if is_full() else read(saved["source"]):
                for text, is_complete in texts:
                    if text and not is_full():
                        partial.write(text, is_complete=is_complete)
                bar.update(size)
                partial.reached({"source": position, "read": bar.n})
                if is_full():
                    break
        words = f"{out}: {partial.texts:,} texts, {partial.text_bytes:,} bytes"
    return words
