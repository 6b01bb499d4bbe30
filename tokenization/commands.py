"""What the commands of `python -m tokenization` do."""

import argparse
import json
import os
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from corpus.documents import Document
from corpus.local import fingerprint, read_local
from storage.files import temporary_folder
from storage.run_folder import RunFolder
from storage.shards import describe_ids, map_array, tokenizer_hash, write_array
from storage.text import count_bytes, replace_surrogates
from tokenization.encoding import encode_corpus, token_dtype
from tokenization.report import as_table, compare, decode_ids
from tokenization.saving import CONFIG, SLOW, load_tokenizer, save_tokenizer
from tokenization.sentencepieces import MODEL_FILE
from tokenization.trainers import GPT2_FILES, add_mask_token, load_gpt2, train_vocabulary


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
    if given.end and tokenizer.eos_token_id is None:
        raise ValueError(
            f"--end: expected a tokenizer with an end-of-text token, got {given.tokenizer}, which has none; leave out "
            "--end, or take another tokenizer"
        )
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
    with temporary_folder("scratchgpt-tokenizer-") as folder:
        save_tokenizer(tokenizer, folder / "tokenizer")  # as a run saves it
        identity = tokenizer_hash(folder / "tokenizer")
    describe_ids(given.out, tokenizer=identity, tokens=tokens, texts=texts, ends=given.end, sources=sources)
    print(f"{given.out}: {tokens:,} tokens of {texts:,} texts")


def decode(given: argparse.Namespace) -> None:
    """`decode DIR [ID…]`: the text of the ids, or of each line of ids on standard input."""
    tokenizer = load(given.tokenizer)
    if len(given.ids) == 1 and given.ids[0].endswith(".npy"):
        array = map_array(Path(given.ids[0]), "write it again with `python -m tokenization encode … --out FILE.npy`")
        rows: Iterator[np.ndarray] | list[np.ndarray] = [array]
        if rows[0].ndim != 1 or rows[0].dtype.kind not in "iu":
            raise ValueError(
                f"{given.ids[0]}: expected one row of whole numbers, got {rows[0].dtype} of shape {rows[0].shape}"
            )
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
    except (ValueError, OverflowError):
        wrong = next((word for word in words if not re.fullmatch(r"[-+]?[0-9]{1,18}", word)), line.strip())
        raise ValueError(f"expected token ids as whole numbers, got {wrong!r}") from None
