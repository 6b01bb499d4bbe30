"""The documents of a run, each labelled with the split that it belongs to, as far as the text alone decides it."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from corpus.documents import Document
from corpus.gutenberg import SCIFI_BOOKS, read_gutenberg, read_gutenberg_files
from corpus.hub import read_hub
from corpus.local import file_of, find_files, read_local
from corpus.stories.generator import generate_stories
from train.config import Config, CorpusConfig

Split = Literal["train", "validation"]

LONG_LINE = 10_000  # characters in which a line is expected to begin

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_BORDER = re.compile(r"\n(?=\S)")
_SPACE = re.compile(r"(?<=\S)(?=\s)")


def read_corpus(config: CorpusConfig) -> Iterator[Document]:
    """The documents of a corpus: as its source yields them, or in passages (`cut_passages`); stories are never cut.

    Raises:
        ValueError: for a source without what it needs; the sources raise more of their own.
    """
    documents = _read_source(config)
    if not config.passage_characters or config.source == "stories":
        return documents
    return cut_passages(documents, config.passage_characters)


def _read_source(config: CorpusConfig) -> Iterator[Document]:
    if config.source == "stories":
        stories = generate_stories(seed=config.seed, count=config.validation_stories + config.stories)
        for number, document in enumerate(stories):
            yield replace(document, split="validation" if number < config.validation_stories else "train")
    elif config.source == "gutenberg":
        yield from read_gutenberg(SCIFI_BOOKS, base_url=config.gutenberg_url)
    elif config.source == "hub":
        assert config.dataset is not None
        yield from read_hub(
            config.dataset,
            config=config.dataset_config,
            text_field=config.text_field,
            joined_rows=config.joined_rows,
        )
    elif config.books == "scifi":
        yield from read_gutenberg_files(
            config.paths,
            SCIFI_BOOKS,
            text_field=config.text_field,
            encoding=config.encoding,
            skip_broken=config.skip_broken,
        )
    else:
        yield from read_local(
            config.paths, text_field=config.text_field, encoding=config.encoding, skip_broken=config.skip_broken
        )


def cut_passages(documents: Iterable[Document], characters: int) -> Iterator[Document]:
    """Documents cut into smaller ones before a line with text, each with at least `characters` that are no whitespace.

    Joined, the passages of a document are its text. Pieces of a long document (`is_complete=False`) count as one text.
    The last passage of a document may be shorter.
    """
    lines: list[str] = []
    length = 0
    for document in documents:
        for line in _LINE.findall(document.text):
            if length >= characters and lines[-1].endswith("\n") and line.strip():
                yield replace(document, text="".join(lines), is_complete=True)
                lines, length = [], 0
            lines.append(line)
            length += len(line.strip())
        if document.is_complete:
            yield replace(document, text="".join(lines), is_complete=True)
            lines, length = [], 0


def labelled_documents(config: Config, log: Callable[[str], None] = lambda message: None) -> Iterator[Document]:
    """The documents with their `split`; with `split = tokens` it stays None where the source has no split of its own.

    A document that lies in both is cut after a line end; its pieces are `is_complete=False` but for the last.

    Args:
        log: called when a corpus of one file cannot be split by files and is split by text instead.
    """
    documents, data = read_corpus(config.corpus), config.data
    if data.split == "tokens":
        return documents
    if data.split == "text":
        return split_text(documents, data.validation_chunk, data.validation_fraction)
    if config.corpus.source != "local":
        return split_documents(documents, data.validation_fraction)
    files = [path.as_posix() for path in find_files(config.corpus.paths)]
    if len(files) == 1:
        log(f"one file cannot be split by files: the end of each {data.validation_chunk:,} characters validates")
        return split_text(documents, data.validation_chunk, data.validation_fraction)
    return split_files(documents, files, data.validation_fraction)


def split_text(documents: Iterable[Document], chunk: int, fraction: float) -> Iterator[Document]:
    """Label by place: of each `chunk` characters of the running text, and of what is left at its end, the last share
    of `fraction` is validation.

    A border falls on the first line that begins at or after its place; before a space where lines are very long. What
    has a label keeps it.
    """
    pending: list[Document] = []  # of the current chunk
    length = 0
    for document in documents:
        if document.split is not None:
            yield document
            continue
        rest: Document | None = document
        while rest is not None:
            head, rest = _cut(rest, chunk - length)
            pending.append(head)
            length += len(head.text)
            if length >= chunk:
                yield from _split_chunk(pending, length - round(length * fraction))
                pending, length = [], 0
    yield from _split_chunk(pending, length - round(length * fraction))


def _split_chunk(documents: list[Document], border: int) -> Iterator[Document]:
    """Label the documents of a chunk: before `border` characters training, after it validation."""
    for document in documents:
        head, tail = _cut(document, border) if border > 0 else (None, document)
        if head is not None:
            yield replace(head, split="train")
            border -= len(head.text)
        if tail is not None:
            yield replace(tail, split="validation")


def split_files(documents: Iterable[Document], files: list[str], fraction: float) -> Iterator[Document]:
    """Label by file: the last share of the sorted files, at least one, is validation."""
    heldout = set(sorted(files)[-max(1, round(len(files) * fraction)) :])
    for document in documents:
        yield replace(document, split="validation" if file_of(document.name) in heldout else "train")


def is_heldout(number: int, fraction: float) -> bool:
    """Whether a document or chat validates, by its number from 0: the last of each 1 / `fraction`."""
    return math.floor((number + 1) * fraction) > math.floor(number * fraction)


def split_documents(documents: Iterable[Document], fraction: float) -> Iterator[Document]:
    """Label by number: of each 1 / `fraction` documents the last is validation."""
    number = 0
    for document in documents:
        split: Split = "validation" if is_heldout(number, fraction) else "train"
        yield document if document.split else replace(document, split=split)
        number += document.is_complete


def encoded_file(config: CorpusConfig) -> Path | None:
    """The .npy file of ids that is the corpus; None for a corpus of text.

    Raises:
        ValueError: it is not alone.
    """
    arrays = [path for path in config.paths if path.suffix == ".npy"] if config.source == "local" else []
    if arrays and len(config.paths) > 1:
        raise ValueError(
            f"--corpus: expected a .npy file of token ids alone, got {len(config.paths)} paths: give the texts "
            "themselves, or encode all of them into one file (`python -m tokenization encode`)"
        )
    return arrays[0] if arrays else None


def known_size(config: CorpusConfig) -> int | None:
    """Bytes of the text, where it lies in plain text files; None where only reading tells."""
    if config.source != "local":
        return None
    files = find_files(config.paths)
    return sum(path.stat().st_size for path in files) if all(path.suffix.lower() == ".txt" for path in files) else None


def size_of_files(config: CorpusConfig) -> int:
    """Bytes of the files of a text, of whatever kind; 0 where it lies elsewhere."""
    return sum(path.stat().st_size for path in find_files(config.paths)) if config.source == "local" else 0


def _cut(document: Document, place: int) -> tuple[Document, Document | None]:
    """The document up to a border at or after `place` characters, and what is left of it."""
    text = document.text
    border = _BORDER.search(text, max(0, place - 1), place + LONG_LINE) or _SPACE.search(text, place)
    end = border.end() if border else len(text)
    if place >= len(text) or end == len(text):
        return document, None
    return replace(document, text=text[:end], is_complete=False), replace(document, text=text[end:])
