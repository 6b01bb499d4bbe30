"""A recipe for a text that is too short for it: context length, vocabulary, batch and validation share are fitted.

Only what the recipe says is changed; what the command line says is kept.
"""

import math
import shlex
from collections.abc import Collection
from itertools import chain
from pathlib import Path
from typing import Any

from corpus.documents import Document
from storage.run_folder import RunFolder
from storage.text import count_bytes
from tokenization import load_tokenizer
from tokenization.bpe import count_pretokens
from tokenization.encoding import encode_corpus
from tokenization.tokenization_scratchgpt import END_OF_TEXT, GPT4_SPLIT_PATTERN, MASK, Splitter
from tokenization.trainers import train_characters, train_own
from train.config import Config, as_flag, replace_fields, value_of
from train.data.split import encoded_file, read_corpus

WINDOWS = 8
"""Windows that the training text should fill; with fewer, the context is too long for it."""
LONGEST_TOKEN = 12
"""Bytes of a token, on average, that no text is expected to exceed."""
BYTES_PER_MERGE = 32
"""Bytes of text for each merge of the vocabulary of a short one."""
LEAST_CONTEXT, CONTEXT_UNIT = 8, 8
MINUTES = "run.minutes"
"""What a plan is made for: 0 in the config that was planned, the minutes among the fields that were fitted."""
MOST_VALIDATION = 0.25


def fit_to_text(config: Config, kept: Collection[str]) -> tuple[Config, list[str]]:
    """The config for its text, and a line on each field that was changed; the config as it is for a text that will do.

    It is read as far as it takes to see that it is long enough.

    Args:
        kept: the fields that are left alone (`kept_fields`).

    Raises:
        ValueError: the text cannot be read.
    """
    documents = _short_text(config)
    if documents is None:
        return config, []
    texts = [document.text for document in documents]
    size = sum(map(count_bytes, texts))
    length, share = config.model.max_position_embeddings, config.data.validation_fraction
    is_bpe = config.tokenizer.kind == "bpe" and config.tokenizer.path is None
    # A token of BPE is a word at most, however large the vocabulary.
    fewest = count_pretokens(texts, Splitter(GPT4_SPLIT_PATTERN)).total() if is_bpe else _count_tokens(config, texts)
    if fewest is None or fewest * (1 - share) >= WINDOWS * (length + 1):
        return config, []
    lines: list[str] = []

    def fit(name: str, value: Any, what: str) -> None:
        nonlocal config
        before = value_of(config, name)
        if value != before and name not in kept:
            config = replace_fields(config, {name: value})
            was, now = (f"{each:.0%}" if isinstance(each, float) else f"{each:,}" for each in (before, value))
            lines.append(f"the text is short ({size:,} bytes): {what} {now}, not {was} ({as_flag(name)})")

    if is_bpe:
        special = 2 if config.data.objective == "masked" else 1
        vocabulary = min(config.tokenizer.vocab_size, 256 + special + size // BYTES_PER_MERGE)
        fit("tokenizer.vocab_size", vocabulary, "a vocabulary of")
    tokens = _count_tokens(config, texts) or fewest
    fitting = tokens // (WINDOWS + 2) // CONTEXT_UNIT * CONTEXT_UNIT
    if config.run.base_model is None:  # the context of a model that is there already is kept
        fit("model.max_position_embeddings", min(length, max(LEAST_CONTEXT, fitting)), "a context of")
    length = config.model.max_position_embeddings
    # One window validates, at least.
    wanted = math.ceil(100 * (length + 1) / max(1, tokens)) / 100
    fit("data.validation_fraction", max(share, min(MOST_VALIDATION, wanted)), "for validation")
    if config.data.gradient_accumulation_steps == 1:
        windows = int(tokens * (1 - config.data.validation_fraction)) // length
        fit("data.batch_size", min(config.data.batch_size, max(1, windows)), "windows in a batch:")
    return config, lines


def fitted_before(config: Config, kept: Collection[str], folder: RunFolder) -> Config | None:
    """The config with what was fitted when the folder's run began, but for `kept` fields; None where none began.

    Raises:
        ValueError: `--minutes` of another number than the plan of the run was made for.
    """
    if not folder.is_begun:
        return None
    recipe = folder.peek_recipe()
    saved = recipe.get("fitted")
    fields = dict(saved) if isinstance(saved, dict) else {}
    earlier = (recipe.get("config") or {}).get("run") or {}  # of a version that left the minutes there
    planned = fields.pop(MINUTES, earlier.get("minutes", 0.0))
    if config.run.minutes not in (0.0, planned):
        before = f"{planned:g}, by which it was planned" if planned else "none, without which it began"
        words = ("python", "-m", "train", str(folder.recipe_file), "--run-dir", str(folder.path), "--resume")
        raise ValueError(
            f"--minutes: expected that of the run in {folder.path}, {before}, got {config.run.minutes:g}: its plan is "
            f"kept; to train it longer, `{shlex.join(words)} --steps N --run.max-seconds 0`; for another plan, another "
            "--run-dir"
        )
    fields = {name: value for name, value in fields.items() if name not in kept}
    return replace_fields(config, {**fields, MINUTES: 0.0})


def _short_text(config: Config) -> list[Document] | None:
    """All documents of a corpus that may be too short; None for one that is not, or whose tokens are given."""
    if config.data.objective == "chat":  # its windows are filled up, and its context is the model's
        return None
    if config.corpus.source != "local" or not config.corpus.paths or encoded_file(config.corpus) is not None:
        return None
    enough = (
        WINDOWS * LONGEST_TOKEN * (config.model.max_position_embeddings + 1) / (1 - config.data.validation_fraction)
    )
    size, documents = 0, []
    for document in read_corpus(config.corpus):
        documents.append(document)
        size += count_bytes(document.text)
        if size > enough:
            return None
    return documents


def _count_tokens(config: Config, texts: list[str]) -> int | None:
    """Tokens of the texts with the tokenizer that the run will make, and what divides them; None for other kinds."""
    tokenizer, kind = config.tokenizer, config.tokenizer.kind
    if isinstance(tokenizer.path, Path):
        encoder = load_tokenizer(tokenizer.path)
    elif kind == "bpe":
        special = (END_OF_TEXT, MASK) if config.data.objective == "masked" else (END_OF_TEXT,)
        encoder = train_own(texts, tokenizer.vocab_size, special_tokens=special)
    elif kind == "characters":
        encoder = train_characters(texts)
    else:
        return None
    return sum(map(len, encode_corpus(encoder, chain(texts), workers=1))) + len(texts) + 1
