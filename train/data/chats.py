"""Chats → ids and marks in the shards: which ids belong to an answer, and where each chat begins."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from corpus.chats import Chat, read_chats
from corpus.stories.questions import generate_chats
from storage.shards import MARK_ANSWER, MARK_FIRST, MARK_READ, SplitWriter
from storage.text import count_bytes
from tokenization.chat_template import ChatEncoder
from tokenization.encoding import token_dtype
from train.config import Config, CorpusConfig
from train.data.split import is_heldout

PROMPTS = 8
"""First messages of held-out chats that are kept for samples and for the page."""


@dataclass(kw_only=True)
class ChatWriter:
    """The shards of one split of chats: ids, and a mark for each."""

    folder: Path
    name: str
    tokenizer: Any
    bytes: int = 0  # of all messages
    answer_bytes: int = 0
    chats: int = 0
    _writers: dict[str, SplitWriter] = field(init=False)

    def __post_init__(self) -> None:
        kinds = {self.name: token_dtype(len(self.tokenizer)), f"{self.name}-marks": np.uint8}
        self._writers = {name: SplitWriter(folder=self.folder, name=name, dtype=kind) for name, kind in kinds.items()}

    def append(self, chat: Chat, ids: list[int], is_answer: list[bool]) -> None:
        """Append a chat."""
        marks = np.where(is_answer, MARK_ANSWER, MARK_READ)
        marks[0] = MARK_FIRST
        for writer, values in zip(self._writers.values(), (np.array(ids), marks), strict=True):
            writer.append(values)
        self.bytes += sum(count_bytes(message.content) for message in chat.messages)
        self.answer_bytes += sum(count_bytes(each.content) for each in chat.messages if each.role == "assistant")
        self.chats += 1

    def description(self) -> dict[str, Any]:
        """The manifest's entry; what is pending goes to the disk."""
        for writer in self._writers.values():
            writer.flush()
        ids, marks = (
            {"tokens": writer.tokens, "files": writer.files, "sha256": writer.checksums}
            for writer in self._writers.values()
        )
        shared = {"documents": self.chats, "log_probability": None}
        return ids | shared | {"bytes": self.bytes, "marks": marks | shared | {"bytes": self.answer_bytes}}


def labelled_chats(corpus: CorpusConfig, fraction: float) -> Iterator[Chat]:
    """The chats of a corpus with their `split`: as their source says, else of each 1 / `fraction` the last validates.

    Raises:
        ValueError: as `corpus.chats.read_chats`.
    """
    if corpus.source == "stories":
        chats = generate_chats(seed=corpus.seed, count=corpus.validation_stories + corpus.stories)
        for number, chat in enumerate(chats):
            yield replace(chat, split="validation" if number < corpus.validation_stories else "train")
        return
    for number, chat in enumerate(read_chats(corpus.paths, encoding=corpus.encoding)):
        yield replace(chat, split="validation" if is_heldout(number, fraction) else "train")


def encode_chats(config: Config, tokenizer: Any, folder: Path, log: Callable[[str], None]) -> dict[str, Any]:
    """Write the shards of both splits; return what the manifest says of them, and `prompts`.

    Args:
        tokenizer: with a chat template.
        log: called with a line on what was cut or left out.

    Raises:
        ValueError: a chat that cannot be trained on, by its file and line; too few chats for both splits.
    """
    encoder, length = ChatEncoder(tokenizer), config.model.max_position_embeddings
    writers = {name: ChatWriter(folder=folder, name=name, tokenizer=tokenizer) for name in ("train", "validation")}
    prompts: list[str] = []
    long = unanswered = unknown = 0
    for chat in labelled_chats(config.corpus, config.data.validation_fraction):
        assert chat.split is not None
        try:
            ids, is_answer = encoder.encode([message._asdict() for message in chat.messages])
        except ValueError as error:
            raise ValueError(f"{chat.name}: {error}") from error
        writers[chat.split].append(chat, ids, is_answer)
        long += len(ids) > length + 1
        unanswered += chat.messages[-1].role != "assistant"
        unknown += 0 if tokenizer.unk_token_id is None else ids.count(tokenizer.unk_token_id)
        if chat.split == "validation" and len(prompts) < PROMPTS and chat.messages[0].role == "user":
            prompts.append(chat.messages[0].content)
    count = sum(writer.chats for writer in writers.values())
    if not all(writer.chats for writer in writers.values()):
        raise ValueError(
            f"the corpus is too short: expected at least {math.ceil(1 / config.data.validation_fraction)} chats, of "
            f"which one validates, got {count}; give more chats, or a larger --data.validation-fraction"
        )
    log(f"{writers['train'].chats:,} chats for training, {writers['validation'].chats:,} for validation")
    if long:
        log(
            f"{long:,} of {count:,} chats are longer than the model's context of {length} tokens: of these the last "
            f"{length + 1} tokens are trained on"
        )
    if unanswered:
        log(f"{unanswered:,} of {count:,} chats end without an answer: what follows the last answer is left out")
    if unknown:
        log(f"{unknown:,} tokens of the chats are unknown to the vocabulary, and read as {tokenizer.unk_token}")
    return {name: writer.description() for name, writer in writers.items()} | {"prompts": prompts}
