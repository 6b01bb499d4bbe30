"""Text → tokenizer → token shards, inside the run folder; what is there already and fits is used again."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from corpus.documents import Document
from corpus.gutenberg import SCIFI_BOOKS, read_gutenberg, read_gutenberg_files
from corpus.local import read_local
from corpus.stories import generate_stories
from tokenization import ScratchGPTTokenizer, load_tokenizer, save_tokenizer, train_bpe
from tokenization.encoding import encode_corpus, token_dtype
from train.batches import document_borders
from train.recipe import Config, CorpusConfig, as_json
from train.report import write_json
from train.shards import SplitWriter, TokenSplit, read_manifest, write_manifest

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What training needs of the text."""

    tokenizer: Any  # a transformers tokenizer
    train: TokenSplit
    validation: TokenSplit
    end_of_text: int  # id of the document separator
    prompts: list[str]  # beginnings of held-out text, for samples and for the page


def training_documents(config: CorpusConfig) -> Iterator[Document]:
    """The documents of a corpus, without the held-out stories."""
    if config.source == "stories":
        return generate_stories(seed=config.seed, count=config.stories, start=config.validation_stories)
    if config.source == "gutenberg":
        return read_gutenberg(SCIFI_BOOKS, base_url=config.gutenberg_url)
    return read_gutenberg_files(config.paths, SCIFI_BOOKS) if config.books == "scifi" else read_local(config.paths)


def heldout_documents(config: CorpusConfig) -> Iterator[Document]:
    """The held-out stories; other corpora are split by tokens and have none."""
    if config.source == "stories":
        return generate_stories(seed=config.seed, count=config.validation_stories)
    return iter(())


def prepare(config: Config, run_dir: Path, say: Callable[[str], None]) -> Prepared:
    """Make the run folder's `tokenizer/`, `tokens/` and `prompts.json`, or take those that are there.

    Args:
        say: told one line per stage.

    Raises:
        ValueError: for a corpus that is empty or too short, or a folder made from another corpus or tokenizer.
    """
    if config.corpus.source == "local" and not config.corpus.paths:
        raise ValueError("expected a text to train on, got none: name files or folders with --corpus PATH")
    tokenizer = prepare_tokenizer(config, run_dir / "tokenizer", say)
    manifest = prepare_tokens(config, tokenizer, run_dir, say)
    folder = run_dir / "tokens"
    train, validation = (TokenSplit(folder, manifest[name]) for name in ("train", "validation"))
    needed = config.model.max_position_embeddings + 2
    if len(train) < needed:
        raise ValueError(
            f"the corpus is too short: expected at least {needed} training tokens (one context window and the "
            f"tokens around it), got {len(train)}; give more text or a smaller --model.max-position-embeddings"
        )
    if len(validation) < 2:
        raise ValueError(
            f"the corpus is too short: expected at least 2 validation tokens, got {len(validation)}; give more text"
        )
    prompts = corpus_prompts(validation, tokenizer, manifest["end_of_text"])
    write_json(run_dir / "prompts.json", prompts)
    return Prepared(
        tokenizer=tokenizer,
        train=train,
        validation=validation,
        end_of_text=manifest["end_of_text"],
        prompts=prompts,
    )


def prepare_tokenizer(config: Config, folder: Path, say: Callable[[str], None]) -> Any:
    """The run's tokenizer: from its folder, from `tokenizer.path`, or trained on the corpus."""
    if folder.exists():
        return load_tokenizer(folder)
    if config.tokenizer.path is not None:
        tokenizer = load_tokenizer(config.tokenizer.path)
        if tokenizer.convert_tokens_to_ids(END_OF_TEXT) is None:
            raise ValueError(f"{config.tokenizer.path}: expected a tokenizer with the token {END_OF_TEXT}, got none")
    else:
        say(f"training a byte-level BPE tokenizer of {config.tokenizer.vocab_size} tokens")
        texts = (document.text for document in training_documents(config.corpus))
        merges = train_bpe(texts, config.tokenizer.vocab_size, special_tokens=(END_OF_TEXT,), progress=True)
        tokenizer = ScratchGPTTokenizer.from_merges(merges, special_tokens=(END_OF_TEXT,))
        if len(tokenizer) < config.tokenizer.vocab_size:
            say(f"the text has no more pairs to merge: the vocabulary has {len(tokenizer)} tokens")
    save_tokenizer(tokenizer, folder)
    return tokenizer


def prepare_tokens(config: Config, tokenizer: Any, run_dir: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The run's token shards; return their manifest."""
    folder = run_dir / "tokens"
    tree = as_json(config)
    made_from = {
        "tokenizer": tokenizer_hash(run_dir / "tokenizer"),
        "corpus": tree["corpus"],
        "split": {key: tree["data"][key] for key in ("validation_chunk", "validation_fraction")},
    }
    manifest = read_manifest(folder)
    if manifest is not None:
        different = [key for key, value in made_from.items() if manifest["made_from"][key] != value]
        if different:
            raise ValueError(
                f"{folder}: expected tokens of this run's {' and '.join(different)}, got those of another; "
                "choose another --run-dir, or delete the folder to make it again"
            )
        return manifest
    say("turning the text into token shards")
    end_of_text = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    dtype = token_dtype(len(tokenizer))
    writers = {name: SplitWriter(folder=folder, name=name, dtype=dtype) for name in ("train", "validation")}
    sizes = token_bytes(tokenizer)
    counts = {name: {"bytes": 0, "documents": 0} for name in writers}
    log_probability: float | None = 0.0 if config.corpus.source == "stories" else None

    def append(name: str, ids: np.ndarray) -> None:
        writers[name].append(ids)
        counts[name]["bytes"] += int(sizes[ids].sum())
        counts[name]["documents"] += int((ids == end_of_text).sum())

    if config.corpus.source == "stories":
        for name, documents in (
            ("validation", heldout_documents(config.corpus)),
            ("train", training_documents(config.corpus)),
        ):
            writers[name].append(np.array([end_of_text]))
            kept: list[Document] = list(documents) if name == "validation" else []
            for ids in _encoded(tokenizer, kept or documents, end_of_text):
                append(name, ids)
            if kept:
                log_probability = sum(document.log_probability or 0.0 for document in kept)
    else:
        pieces = chain([np.array([end_of_text])], _encoded(tokenizer, training_documents(config.corpus), end_of_text))
        for name, ids in split_chunks(pieces, config.data.validation_chunk, config.data.validation_fraction):
            append(name, ids)
    for writer in writers.values():
        writer.flush()
    manifest = {
        "format": 1,
        "made_from": made_from,
        "end_of_text": end_of_text,
        **{name: {"tokens": writer.tokens, "files": writer.files, **counts[name]} for name, writer in writers.items()},
    }
    manifest["validation"]["log_probability"] = log_probability
    write_manifest(folder, manifest)
    say(
        f"{manifest['train']['tokens']:,} training and {manifest['validation']['tokens']:,} validation tokens, "
        f"{manifest['train']['bytes'] / max(1, manifest['train']['tokens']):.2f} bytes each"
    )
    return manifest


def split_chunks(pieces: Iterable[np.ndarray], chunk: int, fraction: float) -> Iterator[tuple[str, np.ndarray]]:
    """Cut a stream of ids in chunks and the end of each chunk, a share of `fraction`, off for validation.

    The last chunk is as long as what is left of the stream, and is split in the same proportion.

    Yields:
        ("train" | "validation", ids).
    """

    def parts(ids: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        border = len(ids) - round(len(ids) * fraction)
        yield "train", ids[:border]
        yield "validation", ids[border:]

    pending = np.empty(0, dtype=np.int64)
    for piece in pieces:
        pending = np.concatenate([pending, piece])
        while len(pending) >= chunk:
            yield from parts(pending[:chunk])
            pending = pending[chunk:]
    yield from parts(pending)


def corpus_prompts(split: TokenSplit, tokenizer: Any, end_of_text: int, count: int = 8) -> list[str]:
    """Beginnings of sentences from held-out text, of up to eight words each, spread evenly over it."""
    borders = document_borders(split, end_of_text)[:-1]
    at_documents = len(borders) >= count
    places = borders if at_documents else np.linspace(0, max(0, len(split) - 100), count)
    prompts = []
    for place in places[np.linspace(0, len(places) - 1, count).astype(int)]:
        ids = split.read(int(place), min(100, len(split) - int(place)))
        text = tokenizer.decode(ids[ids != end_of_text].tolist()).strip("\ufffd")
        text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        beginning = re.search(r"\S.*" if at_documents else r"(?<=[.!?]\s)[A-Z].*|(?<=\s)\w.*", text)
        if beginning is not None and len(words := beginning[0].split()) >= 4:
            prompts.append(" ".join(words[:8]))
    return list(dict.fromkeys(prompts))


def token_bytes(tokenizer: Any) -> np.ndarray:
    """Bytes that each id of a byte-level tokenizer stands for, int64; special tokens stand for none.

    A byte-level token is written with one character per byte.
    """
    special = set(tokenizer.all_special_ids)
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return np.array([0 if index in special else len(token) for index, token in enumerate(tokens)])


def tokenizer_hash(folder: Path) -> str:
    """What identifies a tokenizer: the SHA-256 of its tokenizer.json."""
    return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()


def _encoded(tokenizer: Any, documents: Iterable[Document], end_of_text: int) -> Iterator[np.ndarray]:
    """The ids of each document with its end, under a progress bar."""
    texts = (document.text for document in documents)
    separator = np.array([end_of_text])
    with tqdm(desc="encoding", unit="token", unit_scale=True, dynamic_ncols=True) as bar:
        for ids in encode_corpus(tokenizer, texts):
            bar.update(len(ids) + 1)
            yield np.concatenate([ids, separator])
