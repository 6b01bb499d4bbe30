"""`python -m corpus download DATASET --out FILE`, `clean FILE… --out FILE`. Both can be killed and go on."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from corpus.gutenberg import GUTENBERG_URL


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """Brings the texts of a data set of the Hugging Face Hub, or the books of the sci-fi recipe, into one file that
    `python -m train RECIPE --corpus FILE` reads. Killed, it goes on where it was when the same command is run again.
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
    """Stop behind the text with which so many bytes are reached."""
    gutenberg_url: str = GUTENBERG_URL
    """Base URL of Project Gutenberg or a mirror."""
    cache_dir: Path | None = None
    """Where the raw books stay; unset: the user's cache folder."""

    def execute(self) -> str:
        from corpus.steps import download

        return download(
            self.dataset,
            self.out,
            config=self.config,
            split=self.split,
            text_field=self.text_field,
            limit_bytes=self.limit_bytes,
            gutenberg_url=self.gutenberg_url,
            cache_dir=self.cache_dir,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Clean:
    """Preprocesses texts into one file: control and invisible characters go, white space within a line becomes one
    space, empty lines and lines that repeat the one before go. Killed, it goes on where it was when the same command is
    run again.
    """

    paths: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE…")]
    """Files (txt, jsonl, parquet, tar; gz, xz, zst of them), folders or globs."""
    out: Path
    """The file to make: .txt, .jsonl (a record a document), or one of these with .zst."""
    text_field: str = "text"
    """Field of jsonl records, or column of parquet files, that holds the text."""
    skip_broken: bool = False
    """Leave out, by name, files that cannot be read, instead of stopping at the first."""

    def execute(self) -> str:
        from corpus.steps import clean

        return clean(self.paths, self.out, text_field=self.text_field, skip_broken=self.skip_broken)


Command = Annotated[Download, tyro.conf.subcommand("download")] | Annotated[Clean, tyro.conf.subcommand("clean")]


def main(arguments: list[str] | None = None) -> None:
    """Runs one step; what the user can mend ends it with a message and status 1."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    command = tyro.cli(Command, prog="python -m corpus", description=__doc__, args=arguments)  # type: ignore[arg-type]
    try:
        print(command.execute())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"interrupted; the same command goes on from {command.out}.part")


if __name__ == "__main__":
    main()
