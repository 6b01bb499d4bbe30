"""`python -m corpus download DATASET --out FILE`, `clean FILE… --out FILE`. A killed one continues when run again."""

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from corpus.gutenberg import GUTENBERG_URL

if TYPE_CHECKING:
    from corpus.resumable import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """Download the texts of a data set of the Hugging Face Hub, or the books of the sci-fi recipe, into one file that
    `python -m train RECIPE --corpus FILE` reads. After a kill the same command continues where it was, with the version
    of the data set that it started with.
    """

    dataset: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATASET")]
    """A data set of the Hub (`bookcorpus`, `Salesforce/wikitext`), a folder that `datasets` loads, or `gutenberg`."""
    out: Path
    """The file to make: .txt (rows as lines), .jsonl (a record a row), or one of these with .zst."""
    config: str | None = None
    """Configuration of the data set, where it has several."""
    split: str = "train"
    """Which of its splits."""
    text_field: str = "text"
    """Its column that holds the text."""
    limit_bytes: int | None = None
    """Stop after the text with which so many bytes are reached."""
    gutenberg_url: str = GUTENBERG_URL
    """Base URL of Project Gutenberg or a mirror."""
    cache_dir: Path | None = None
    """Where the raw books are kept; unset: the user's cache folder."""

    def execute(self) -> str:
        from corpus.resumable import write_texts  # imports that --help can do without

        if self.limit_bytes is not None and self.limit_bytes < 1:
            raise ValueError(f"limit-bytes: expected at least 1, got {self.limit_bytes}")
        made_from = {
            "dataset": self.dataset,
            "config": self.config,
            "split": self.split,
            "text_field": self.text_field,
            "limit": self.limit_bytes,
        }
        read = self._books if self.dataset == "gutenberg" else self._rows
        return write_texts(self.out, made_from, read, total=self.limit_bytes, limit=self.limit_bytes)

    def _books(self, start: int | None) -> Iterator["Batch"]:
        from corpus.gutenberg import SCIFI_BOOKS, read_gutenberg
        from corpus.resumable import Batch

        books = read_gutenberg(SCIFI_BOOKS, base_url=self.gutenberg_url, cache_dir=self.cache_dir)
        for number, book in enumerate(islice(books, start or 0, None), start=(start or 0) + 1):
            yield Batch([(book.text, True)], len(book.text.encode()), number)

    def _rows(self, start: dict[str, Any] | None) -> Iterator["Batch"]:
        from corpus.documents import text_documents
        from corpus.hub import open_hub
        from corpus.resumable import Batch

        opened = open_hub(self.dataset, self.config, version=start["version"] if start else None)
        for rows in opened.read(self.split, self.text_field, start=start["rows"] if start else None):
            documents = [document for text in rows.texts for document in text_documents(text, self.dataset)]
            yield Batch(
                texts=[(document.text, document.is_complete) for document in documents],
                source_bytes=sum(len(document.text.encode()) for document in documents),
                position={"version": opened.version, "rows": rows.after},
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Clean:
    """Preprocess texts into one file: control and invisible characters are removed, white space within a line becomes
    one space, empty lines and lines identical to the one before are removed. After a kill the same command continues
    where it was.
    """

    paths: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE…")]
    """Files, folders or globs, of every kind that docs/corpora.md lists."""
    out: Path
    """The file to make: .txt, .jsonl (a record a document; of a text of over 16 MB one a megabyte), or one of these
    with .zst."""
    text_field: str = "text"
    """Field of JSON records, or column of tables and parquet files, that holds the text."""
    encoding: str | None = None
    """Encoding of texts that are not UTF-8; unset: what the file states or what is recognised."""
    skip_broken: bool = False
    """Leave out, by name, files that cannot be read, instead of stopping at the first."""

    def execute(self) -> str:
        from corpus.clean import clean_lines
        from corpus.local import find_files, read_files
        from corpus.resumable import Batch, write_texts

        files = find_files(self.paths)
        stats = [file.stat() for file in files]
        found = [[file.as_posix(), stat.st_size, stat.st_mtime_ns] for file, stat in zip(files, stats, strict=True)]
        made_from = {"files": found, "text_field": self.text_field, "skip_broken": self.skip_broken}
        made_from["encoding"] = self.encoding

        def read(start: dict[str, Any] | None) -> Iterator[Batch]:
            done, last_line = (start["documents"], start["last_line"]) if start else (0, "")
            documents = read_files(
                files,
                text_field=self.text_field,
                encoding=self.encoding,
                skip_broken=self.skip_broken,
            )
            for number, document in enumerate(islice(documents, done, None), start=done + 1):
                text, last_line = clean_lines(document.text, last_line)
                if document.is_complete:
                    last_line = ""
                yield Batch(
                    texts=[(text, document.is_complete)],
                    source_bytes=len(document.text.encode()),
                    position={"documents": number, "last_line": last_line},
                )

        is_plain = all(file.suffix.lower() == ".txt" for file in files)
        total = sum(stat.st_size for stat in stats) if is_plain else None
        return write_texts(self.out, made_from, read, total=total)


Command = Annotated[Download, tyro.conf.subcommand("download")] | Annotated[Clean, tyro.conf.subcommand("clean")]


def main(arguments: list[str] | None = None) -> None:
    """Run one command; an error of the user's ends it with a message and status 1."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    command = tyro.cli(Command, prog="python -m corpus", description=__doc__, args=arguments)  # type: ignore[arg-type]
    try:
        print(command.execute())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command continues where this one stopped")


if __name__ == "__main__":
    main()
