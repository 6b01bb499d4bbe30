"""The share of questions that a model answers right: its likeliest answer against the one that is known."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from corpus.chats import Chat
from modeling.generation import SamplingSettings, stream
from modeling.loading import context_length
from storage.text import replace_surrogates
from tokenization.chat_template import prompt_ids

LONGEST_ANSWER = 200
"""Tokens after which an answer that has not ended is wrong."""


def measure_answers(model: Any, tokenizer: Any, chats: Iterable[Chat], *, progress: bool = False) -> dict[str, Any]:
    """How many of the last answers of chats a model gives word for word.

    The model reads a chat up to its last answer and takes the likeliest token each time (temperature 0), until it ends
    its answer. Right is an answer that equals the known one, apart from case and from white space at both ends.

    Returns:
        `questions`, `right`, `share` (right of all), `cut` (chats whose beginning the model could not see), and
        `by_kind`: questions, right and share for each kind of question, where chats have one.

    Raises:
        ValueError: no chats, or messages that the chat template refuses.
    """
    asked: Counter[str | None] = Counter()
    right: Counter[str | None] = Counter()
    cut, context = 0, context_length(model)
    settings = SamplingSettings(max_new_tokens=LONGEST_ANSWER, temperature=0.0)
    for chat in tqdm(chats, desc="asking", unit="question", dynamic_ncols=True, disable=not progress):
        last = max(index for index, message in enumerate(chat.messages) if message.role == "assistant")
        ids = prompt_ids(tokenizer, [message._asdict() for message in chat.messages[:last]])
        cut += context is not None and len(ids) > context
        steps = stream(model, ids, settings, stop_token_ids=(tokenizer.eos_token_id,))
        answer = replace_surrogates(tokenizer.decode([step.token_id for step in steps]))
        asked[chat.kind] += 1
        right[chat.kind] += answer.strip().casefold() == chat.messages[last].content.strip().casefold()
    if not asked:
        raise ValueError("expected at least one question, got none")
    kinds = {
        kind: {"questions": asked[kind], "right": right[kind], "share": round(right[kind] / asked[kind], 4)}
        for kind in sorted(filter(None, asked))
    }
    total, all_right = asked.total(), right.total()
    return {
        "questions": total,
        "right": all_right,
        "share": round(all_right / total, 4),
        "cut": cut,
        **({"by_kind": kinds} if kinds else {}),
    }
