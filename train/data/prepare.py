"""Text → tokenizer → token shards, inside the run folder; what is already there and fits is used again."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corpus.gutenberg import SCIFI_BOOKS, are_books
from corpus.local import describe_changes, find_files, fingerprint
from corpus.readers import BrokenFileError
from corpus.short_texts import least_tokens
from storage.checksums import check_folder, write_checksums
from storage.files import atomic_file, atomic_folder
from storage.run_folder import RunFolder
from storage.shards import TokenSplit, read_ids, read_manifest, tokenizer_hash, write_manifest
from storage.text import replace_surrogates
from tokenization import load_tokenizer, save_tokenizer
from tokenization.chat_template import CHAT_TEMPLATE
from tokenization.tokenization_scratchgpt import END_OF_TEXT, MASK
from tokenization.trainers import add_mask_token, train_own, train_vocabulary
from train.config import Config, as_json
from train.data.batches import document_borders
from train.data.chats import encode_chats
from train.data.encoding import ShardEncoder
from train.data.sources import changed_message, check_sources, describe_change
from train.data.split import encoded_file, known_size, labelled_documents

LARGE = 2**26  # bytes of text from which on encoding is worth a process for each core


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What training needs of the text."""

    tokenizer: Any  # a transformers tokenizer
    train: TokenSplit
    validation: TokenSplit
    end_of_text: int  # id of the document separator
    prompts: list[str]  # beginnings of held-out text, for samples and for the page


def prepare(config: Config, run: RunFolder, log: Callable[[str], None]) -> Prepared:
    """Make the run folder's `tokenizer/`, `tokens/` and `prompts.json`, or take those that are there.

    Args:
        log: called with a line for each stage.

    Raises:
        ValueError: for a corpus that is empty or too short, or a folder made from another corpus or tokenizer.
    """
    if config.corpus.source == "local" and not config.corpus.paths:
        raise ValueError("expected a text to train on, got none: name files or folders with --corpus PATH")
    is_chat = config.data.objective == "chat"
    needed = 2 if is_chat else least_tokens(config.model.max_position_embeddings)  # windows of chats are filled up
    too_short = (
        f"the corpus is too short: expected at least {needed} training tokens (one context window and the tokens "
        "around it), got {}; give more text or a smaller --model.max-position-embeddings"
    )
    # A token is a byte or more: this much is known before hours go into a tokenizer.
    size = None if read_manifest(run.tokens) or encoded_file(config.corpus) else known_size(config.corpus)
    if size is not None and 0 < size < needed - 2:
        raise ValueError(too_short.format(f"a text of {size} bytes"))
    with naming_skip_broken(config):
        tokenizer = prepare_tokenizer(config, run, log)
        manifest = prepare_tokens(config, tokenizer, run, log)
    train, validation = (TokenSplit(run.tokens, manifest[name]) for name in ("train", "validation"))
    for split in (train, validation):
        split.check()
    if len(train) < needed:
        raise ValueError(too_short.format(len(train)))
    if len(validation) < 2:
        raise ValueError(
            f"the corpus is too short: expected at least 2 validation tokens, got {len(validation)}; give more text"
        )
    prompts = manifest["prompts"] if is_chat else corpus_prompts(validation, tokenizer, manifest["end_of_text"])
    run.write_prompts(prompts)
    return Prepared(
        tokenizer=tokenizer,
        train=train,
        validation=validation,
        end_of_text=manifest["end_of_text"],
        prompts=prompts,
    )


@contextmanager
def naming_skip_broken(config: Config) -> Iterator[None]:
    """In the block, a broken file among others names the flag that leaves it out."""
    try:
        yield
    except BrokenFileError as error:
        if config.corpus.skip_broken or len(find_files(config.corpus.paths)) == 1:
            raise
        raise ValueError(f"{error}; --corpus.skip-broken leaves out every file that cannot be read") from error


def prepare_tokenizer(config: Config, run: RunFolder, log: Callable[[str], None]) -> Any:
    """The run's tokenizer: from its folder, from `tokenizer.path`, or trained on the corpus."""
    if run.tokenizer.exists():
        check_folder(run.tokenizer, "Delete this folder and tokens/ beside it, and the same command makes them again.")
        return load_tokenizer(run.tokenizer)
    kind, size = config.tokenizer.kind, config.tokenizer.vocab_size
    masked = config.data.objective == "masked"
    if config.tokenizer.path is not None:
        tokenizer = load_tokenizer(config.tokenizer.path)
        if tokenizer.eos_token_id is None:
            raise ValueError(f"{config.tokenizer.path}: expected a tokenizer with an end-of-text token, got none")
    elif kind == "bpe":
        log(f"training a byte-level BPE tokenizer of {size} tokens")
        special = (END_OF_TEXT, MASK) if masked else (END_OF_TEXT,)
        tokenizer = train_own(_tokenizer_texts(config), size, special_tokens=special, progress=True)
        if len(tokenizer) < size:
            log(f"the text has no more pairs to merge: the vocabulary has {len(tokenizer)} tokens")
    else:
        log(f"making the tokenizer: {kind}")
        tokenizer = train_vocabulary(kind, _tokenizer_texts(config), size, progress=True)
    if config.data.objective == "chat" and not tokenizer.chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
        log("the tokenizer gets a chat template: User: … Assistant: … (tokenization/chat_template.py)")
    if masked and tokenizer.mask_token_id is None:
        tokenizer = add_mask_token(tokenizer)
    if config.tokenizer.kind == "characters" and config.tokenizer.path is None:
        # Characters that would break the lines of the file are written as in a Python literal: \n, \t, \u2028.
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        lines = [token if token.isprintable() else token.encode("unicode_escape").decode() for token in tokens]
        with atomic_file(run.vocabulary) as stream:
            stream.write("\n".join(lines) + "\n")
    with atomic_folder(run.tokenizer) as folder:  # last: where it is, nothing is made again
        save_tokenizer(tokenizer, folder)
        write_checksums(folder)
    return tokenizer


def prepare_tokens(config: Config, tokenizer: Any, run: RunFolder, log: Callable[[str], None]) -> dict[str, Any]:
    """The run's token shards; return their manifest."""
    folder = run.tokens
    tree = as_json(config)
    made_from = {
        "tokenizer": tokenizer_hash(run.tokenizer),
        "corpus": tree["corpus"],
        "split": {key: tree["data"][key] for key in ("split", "validation_chunk", "validation_fraction")},
    }
    is_chat = config.data.objective == "chat"
    if is_chat:
        made_from["chat_template"] = hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()
    manifest = read_manifest(folder)
    if manifest is not None:
        before = manifest["made_from"]
        before |= {"corpus": as_json(Config())["corpus"] | before["corpus"]}  # a field that is newer has its default
        different = [key for key in sorted(made_from.keys() | before.keys()) if before.get(key) != made_from.get(key)]
        if different:
            raise ValueError(
                f"{folder}: expected tokens of this run's {' and '.join(different)}, got those of another; "
                "choose another --run-dir, or delete the folder to make it again"
            )
        check_sources(run, manifest, keep=config.run.keep_tokens, log=log)
        return manifest
    sources = fingerprint(config.corpus.paths) if config.corpus.source == "local" else []
    if is_chat:
        manifest = {"format": 1, "made_from": made_from, "sources": sources, "end_of_text": tokenizer.eos_token_id}
        manifest |= encode_chats(config, tokenizer, folder, log)
        write_manifest(folder, manifest)
        return manifest
    encoder = ShardEncoder(
        folder,
        tokenizer,
        end_of_text=tokenizer.eos_token_id,
        chunk=config.data.validation_chunk,
        fraction=config.data.validation_fraction,
        made_from=made_from,
        sources=sources,
    )
    if encoder.damage:
        log(encoder.damage)
    if change := describe_changes(encoder.sources, sources):  # since an earlier process began to encode
        raise ValueError(changed_message(run, change, can_keep=False))
    done = encoder.tally.documents
    log(f"turning the text into token shards{f', from document {done + 1:,} on' if done else ''}")
    array = encoded_file(config.corpus)
    if array is not None:
        encoder.run_ids(read_encoded(array, made_from["tokenizer"], config, log))
    else:
        size = known_size(config.corpus)
        is_large = config.corpus.source == "hub" or (size or 0) > LARGE
        encoder.run(labelled_documents(config, log), size=size, workers=(os.cpu_count() or 1) if is_large else 1)
    manifest = {
        "format": 1,
        "made_from": made_from,
        "sources": encoder.sources,
        "end_of_text": tokenizer.eos_token_id,
        **encoder.description(),
    }
    if sources and config.corpus.books == "scifi":  # what cards say of the text
        manifest["only_books"] = are_books(config.corpus.paths, SCIFI_BOOKS)
    write_manifest(folder, manifest)
    encoder.forget_progress()
    if sources and (change := describe_change(encoder.sources, config.corpus.paths)):
        log(
            f"the text has changed while it was read ({change}): the tokens may be of the text before or after; to go "
            "on with them when the run is resumed: --keep-tokens"
        )
    log(
        f"{manifest['train']['tokens']:,} training and {manifest['validation']['tokens']:,} validation tokens, "
        f"{manifest['train']['bytes'] / max(1, manifest['train']['tokens']):.2f} bytes each"
    )
    return manifest


def read_encoded(path: Path, tokenizer: str, config: Config, log: Callable[[str], None]) -> np.ndarray:
    """The ids of a .npy file that `python -m tokenization encode` wrote with this run's tokenizer, memory-mapped.

    Args:
        tokenizer: `tokenizer_hash` of this run's tokenizer.

    Raises:
        ValueError: there is no such array, or its ids are another tokenizer's.
    """
    ids, facts = read_ids(path)
    if facts["tokenizer"] != tokenizer:
        masked = " (--data.objective masked needs one with a mask token: `train … --mask-token`)"
        raise ValueError(
            f"{path}: expected ids of this run's tokenizer, got those of another: encode the text again with the "
            f"folder of --tokenizer.path{masked if config.data.objective == 'masked' else ''}, or give the text itself"
        )
    ends = "" if facts["ends"] or facts["texts"] < 2 else "; nothing divides the texts (`encode --end` would)"
    log(f"{path}: {facts['tokens']:,} tokens of {facts['texts']:,} texts, encoded before{ends}")
    if config.data.split != "tokens":
        log(f"ids are split by tokens: the end of each {config.data.validation_chunk:,} validates")
    if change := describe_change(facts["sources"], [record["path"] for record in facts["sources"]]):
        log(f"{path}: its texts have changed since it was written ({change}); encode them again for the new text")
    return ids


def corpus_prompts(split: TokenSplit, tokenizer: Any, end_of_text: int, count: int = 8) -> list[str]:
    """Beginnings of sentences from held-out text, of up to eight words each, spread evenly over it."""
    borders = document_borders(split, end_of_text)[:-1]
    at_documents = len(borders) >= count
    places = borders if at_documents else np.linspace(0, max(0, len(split) - 100), count)
    prompts = []
    for place in places[np.linspace(0, len(places) - 1, count).astype(int)]:
        ids = split.read(int(place), min(100, len(split) - int(place)))
        text = tokenizer.decode(ids[ids != end_of_text].tolist()).strip("\ufffd")
        beginning = re.search(r"\S.*" if at_documents else r"(?<=[.!?]\s)[A-Z].*|(?<=\s)\w.*", replace_surrogates(text))
        if beginning is not None and len(words := beginning[0].split()) >= 4:
            prompts.append(" ".join(words[:8]))
    return list(dict.fromkeys(prompts))


def _tokenizer_texts(config: Config) -> Iterator[str]:
    """The text that a vocabulary is learned from: what is not known to be held out, and all of it for characters."""
    everything = config.tokenizer.kind == "characters"
    documents = labelled_documents(config)
    return (document.text for document in documents if everything or document.split != "validation")
