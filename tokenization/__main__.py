"""`python -m tokenization`: train a tokenizer, encode and decode with one, compare several on a text."""

import argparse
import json
import logging
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from corpus.documents import Document
from corpus.encodings import say_once, with_own_flags
from corpus.local import fingerprint, read_local
from storage.files import atomic_file
from storage.run_folder import RunFolder
from storage.shards import describe_ids, tokenizer_hash
from storage.text import count_bytes, replace_surrogates
from tokenization.encoding import encode_corpus, token_dtype
from tokenization.report import as_table, compare, decode_ids
from tokenization.saving import CONFIG, SLOW, load_tokenizer, save_tokenizer
from tokenization.sentencepieces import MODEL_FILE
from tokenization.trainers import GPT2, GPT2_FILES, KINDS, add_mask_token, load_gpt2, train_vocabulary


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; errors of the user end it with one line and exit status 1."""
    given = parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        given.command(given)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read the output has gone, `| head` for one
        sys.exit(1)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {with_own_flags(str(error))}")
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
    train_.set_defaults(command=train)

    encode_ = commands.add_parser("encode", help="print the token ids of texts, one text a line")
    encode_.add_argument("tokenizer", type=Path, metavar="DIR", help="folder of a tokenizer, run, checkpoint or bundle")
    encode_.add_argument("files", nargs="*", metavar="FILE", help="text files, folders, patterns; none: standard input")
    encode_.add_argument(
        "--out", type=Path, metavar="FILE.npy", help="write the ids of all texts into one array, which training reads"
    )
    encode_.add_argument("--end", action="store_true", help="put the end-of-text token after each text")
    encode_.add_argument("--workers", type=int, default=1, metavar="N", help="threads, for our own tokenizer")
    encode_.set_defaults(command=encode)

    decode_ = commands.add_parser("decode", help="print the text of token ids")
    decode_.add_argument("tokenizer", type=Path, metavar="DIR", help="folder of a tokenizer, run, checkpoint or bundle")
    decode_.add_argument(
        "ids", nargs="*", metavar="ID", help="ids, or one .npy file; none: standard input, one text a line"
    )
    decode_.set_defaults(command=decode)

    report_ = commands.add_parser("report", help="compare tokenizers on a text, side by side")
    report_.add_argument(
        "paths",
        nargs="+",
        metavar="DIR_OR_FILE",
        help="tokenizers, runs, checkpoints, bundles; texts to measure on",
    )
    report_.add_argument("--text", nargs="+", default=[], metavar="FILE", help="more texts to measure on")
    report_.add_argument("--json", action="store_true", help="print JSON, one object a tokenizer")
    report_.set_defaults(command=report)

    for command in (train_, encode_, report_):
        command.add_argument("--text-field", default="text", metavar="NAME", help="of records and tables (%(default)s)")
        command.add_argument("--encoding", metavar="NAME", help="of texts that are not UTF-8 (default: recognised)")
        command.add_argument("--skip-broken", action="store_true", help="pass over files that cannot be read")
    return top


def train(given: argparse.Namespace) -> None:
    """`train KIND --corpus PATH… --vocab-size N --out DIR`."""
    if given.out.exists():
        raise ValueError(f"{given.out}: expected a name that is free, but it exists; remove it or choose another name")
    if given.kind == "gpt2":
        tokenizer: Any = load_gpt2(given.source)
    elif given.corpus:
        texts = (document.text for document in read(given.corpus, given))
        tokenizer = train_vocabulary(given.kind, texts, given.vocab_size, progress=True)
    else:
        raise ValueError("expected a text to learn from, got none: name files or folders with --corpus PATH")
    if given.mask_token:
        tokenizer = add_mask_token(tokenizer)
    save_tokenizer(tokenizer, given.out)
    print(f"{given.out}: {given.kind} vocabulary of {len(tokenizer):,} tokens")


def encode(given: argparse.Namespace) -> None:
    """`encode DIR FILE…`: a text's ids on a line, or all of them in one array of `--out`."""
    tokenizer = load(given.tokenizer)
    end = [tokenizer.eos_token_id] if given.end else []
    is_complete: deque[bool] = deque()
    texts = 0

    def read_texts() -> Iterator[str]:
        found = documents(given.files, given) if given.files else [Document(text=sys.stdin.read(), name="-")]
        for document in found:
            is_complete.append(document.is_complete)
            yield document.text

    def with_ends() -> Iterator[tuple[np.ndarray, bool]]:
        nonlocal texts
        for ids in encode_corpus(tokenizer, read_texts(), workers=given.workers):
            ends = is_complete.popleft()
            texts += ends
            yield (np.append(ids, np.array(end, dtype=ids.dtype)) if ends and end else ids), ends

    if given.out is None:
        for ids, ends in with_ends():
            print(*ids.tolist(), end="\n" if ends else " ")
        return
    sources = fingerprint([Path(file).resolve() for file in given.files]) if given.files else []
    tokens = write_array(given.out, (ids for ids, _ in with_ends()), token_dtype(len(tokenizer)))
    with TemporaryDirectory() as folder:
        save_tokenizer(tokenizer, Path(folder) / "tokenizer")  # as a run saves it
        identity = tokenizer_hash(Path(folder) / "tokenizer")
    describe_ids(given.out, tokenizer=identity, tokens=tokens, texts=texts, ends=given.end, sources=sources)
    print(f"{given.out}: {tokens:,} tokens of {texts:,} texts")


def decode(given: argparse.Namespace) -> None:
    """`decode DIR [ID…]`: the text of the ids, or of each line of ids on standard input."""
    tokenizer = load(given.tokenizer)
    if len(given.ids) == 1 and given.ids[0].endswith(".npy"):
        rows: Iterator[np.ndarray] | list[np.ndarray] = [np.load(given.ids[0], mmap_mode="r")]
    elif given.ids:
        rows = [parse_ids(" ".join(given.ids))]
    else:
        rows = map(parse_ids, sys.stdin)
    for ids in rows:
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(tokenizer):
            wrong = int(ids.max()) if ids.max() >= len(tokenizer) else int(ids.min())
            raise ValueError(
                f"expected token ids from 0 to {len(tokenizer) - 1}, got {wrong}: is it the right tokenizer?"
            )
        sys.stdout.write(replace_surrogates(decode_ids(tokenizer, ids)) + "\n")


def report(given: argparse.Namespace) -> None:
    """`report DIR… FILE…`: a table of the tokenizers on the texts."""
    folders = [path for path in given.paths if tokenizer_folder(Path(path)) is not None]
    files = [path for path in given.paths if path not in folders] + given.text
    if not folders:
        raise ValueError(
            f"expected at least one tokenizer folder (with {CONFIG}), run, checkpoint or bundle, got none among "
            f"{given.paths}"
        )
    if not files:
        raise ValueError("expected a text to measure on, got tokenizer folders only: name text files too")
    texts = ((document.name, document.text) for document in documents(files, given))
    parent = os.path.commonpath([Path(folder).resolve().parent for folder in folders])
    names = [Path(folder).resolve().relative_to(parent).as_posix() for folder in folders]
    tokenizers = [(name, load(folder)) for name, folder in zip(names, folders, strict=True)]
    measured = compare(tokenizers, texts)
    print(json.dumps(list(map(asdict, measured)), ensure_ascii=False, indent=2) if given.json else as_table(measured))


def read(paths: Sequence[str], given: argparse.Namespace) -> Iterator[Document]:
    """The documents of some files, as the flags say."""
    return read_local(
        paths,
        text_field=given.text_field,
        encoding=given.encoding,
        skip_broken=given.skip_broken,
        say=lambda line: say_once(with_own_flags(line)),
    )


def documents(paths: Sequence[str], given: argparse.Namespace) -> Iterator[Document]:
    """The documents of some files, under a progress bar."""
    found = read(paths, given)
    with tqdm(desc="reading", unit="B", unit_scale=True, dynamic_ncols=True, leave=False) as bar:
        for document in found:
            yield document
            bar.update(count_bytes(document.text))


def tokenizer_folder(path: Path) -> Path | None:
    """Where the tokenizer of a path is: a SentencePiece file, the folder itself (bundles and checkpoints too), or
    `tokenizer/` of a run; None for texts."""
    if path.suffix == ".model":
        return path
    names = (CONFIG, f"{SLOW}/{CONFIG}", MODEL_FILE, *GPT2_FILES)
    folders = (path, RunFolder(path).tokenizer)
    return next((folder for folder in folders if any((folder / name).is_file() for name in names)), None)


def load(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder that `tokenizer_folder` knows.

    Raises:
        ValueError: there is none.
    """
    return load_tokenizer(tokenizer_folder(Path(path)) or path)


def parse_ids(line: str) -> np.ndarray:
    """Token ids as a person or `encode` writes them: numbers with spaces or commas between them, in brackets or not.

    Raises ValueError for anything else.
    """
    words = line.strip().strip("[]").replace(",", " ").split()
    try:
        return np.array(list(map(int, words)), dtype=np.int64)
    except ValueError:
        wrong = next(word for word in words if not word.lstrip("-").isdigit())
        raise ValueError(f"expected token ids as whole numbers, got {wrong!r}") from None


def write_array(path: Path, arrays: Iterator[np.ndarray], dtype: type[np.unsignedinteger]) -> int:
    """Writes arrays one after the other as one .npy file [tokens], without holding them; returns how many tokens."""
    tokens = 0
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
    with atomic_file(path, "wb") as file:
        # The header is written again once the length is known; numpy leaves room for a length of 21 digits.
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (0,)})
        for ids in arrays:
            file.write(ids.tobytes())
            tokens += len(ids)
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (tokens,)})
    return tokens


if __name__ == "__main__":
    main()
