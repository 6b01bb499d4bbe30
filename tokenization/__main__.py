"""`python -m tokenization`: train a tokenizer, encode and decode with one, compare several on a text."""

import argparse
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tokenization.kinds import GPT2, KINDS


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; errors of the user end it with one line and exit status 1."""
    given = parser().parse_args(arguments)
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            # A pipe of Windows has the encoding of the system's language.
            stream.reconfigure(encoding="utf-8", errors=stream.errors)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    from tokenization import commands  # after the parsing: --help and a wrong flag need no transformers

    try:
        getattr(commands, given.command)(given)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read the output has gone, `| head` for one
        sys.exit(1)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written under a final name")


def parser() -> argparse.ArgumentParser:
    """The parser of `train`, `encode`, `decode` and `report`."""
    top = argparse.ArgumentParser(prog="python -m tokenization", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="train|encode|decode|report")

    train_ = commands.add_parser("train", help="learn a vocabulary from texts and save it as a tokenizer folder")
    train_.add_argument("kind", choices=KINDS, help="bpe is our own byte-level BPE; gpt2 learns nothing")
    train_.add_argument("--corpus", nargs="+", default=[], metavar="PATH", help="text files, folders, patterns")
    train_.add_argument("--vocab-size", type=int, default=8257, metavar="N", help="all tokens together (%(default)s)")
    train_.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make; must not exist")
    train_.add_argument("--mask-token", action="store_true", help="add <|mask|>, for masked language modelling")
    train_.add_argument("--source", default=GPT2, metavar="DIR_OR_REPO", help="of kind gpt2: where its files are")
    train_.set_defaults(command="train")

    encode_ = commands.add_parser("encode", help="print the token ids of texts, one text a line")
    encode_.add_argument("tokenizer", type=Path, metavar="DIR", help="folder of a tokenizer, run, checkpoint or bundle")
    encode_.add_argument("files", nargs="*", metavar="FILE", help="text files, folders, patterns; none: standard input")
    encode_.add_argument(
        "--out", type=Path, metavar="FILE.npy", help="write the ids of all texts into one array, which training reads"
    )
    encode_.add_argument("--end", action="store_true", help="put the end-of-text token after each text")
    encode_.add_argument("--workers", type=int, default=1, metavar="N", help="threads, for our own tokenizer")
    encode_.set_defaults(command="encode")

    decode_ = commands.add_parser("decode", help="print the text of token ids")
    decode_.add_argument("tokenizer", type=Path, metavar="DIR", help="folder of a tokenizer, run, checkpoint or bundle")
    decode_.add_argument(
        "ids", nargs="*", metavar="ID", help="ids, or one .npy file; none: standard input, one text a line"
    )
    decode_.set_defaults(command="decode")

    report_ = commands.add_parser("report", help="compare tokenizers on a text, side by side")
    report_.add_argument(
        "paths",
        nargs="+",
        metavar="DIR_OR_FILE",
        help="tokenizers, runs, checkpoints, bundles; texts to measure on",
    )
    report_.add_argument("--text", nargs="+", default=[], metavar="FILE", help="more texts to measure on")
    report_.add_argument("--json", action="store_true", help="print JSON, one object a tokenizer")
    report_.set_defaults(command="report")

    for command in (train_, encode_, report_):
        command.add_argument("--text-field", default="text", metavar="NAME", help="of records and tables (%(default)s)")
        command.add_argument("--encoding", metavar="NAME", help="of texts that are not UTF-8 (default: recognised)")
        command.add_argument("--skip-broken", action="store_true", help="pass over files that cannot be read")
    return top


if __name__ == "__main__":
    main()
