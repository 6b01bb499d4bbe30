"""A chat with a model: what may be said, and the next answer, by the page's generation loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from panels.context import AppContext
from panels.generate import TIME_LIMIT, Draft, check_text, generate_queued
from panels.models import LoadedModel

ROLES = ("system", "user", "assistant")
LONGEST = 200
"""Messages of a chat at most."""
ENDINGS = {
    None: "Answering …",
    "length": "The answer has the length that was set, and is not at its end.",
    "stop_token": "Done.",
    "stop_text": "Done.",
    "stopped": "Stopped.",
    "deadline": f"Time is up: one answer may take {TIME_LIMIT:.0f} seconds.",
}


def check_messages(messages: Any) -> list[dict[str, str]]:
    """The messages of a chat that wants an answer.

    Raises ValueError for what is none, for a message without text, and where the last one is an answer already."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError(
            'messages: expected a list such as [{"role": "user", "content": "Who is Rosa?"}], got '
            f"{'an empty one' if messages in ([], ()) else type(messages).__name__}."
        )
    if len(messages) > LONGEST:
        raise ValueError(f"messages: expected at most {LONGEST}, got {len(messages):,}. Begin a new chat.")
    checked = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            got = repr(message.get("role")) if isinstance(message, dict) else type(message).__name__
            raise ValueError(f"message {number}: expected a role of {', '.join(ROLES)}, got {got}.")
        content = check_text(message.get("content"), f"message {number}")
        if not content.strip():
            raise ValueError(f"message {number}: expected a text, got an empty one. Write something.")
        checked.append({"role": message["role"], "content": content})
    if checked[-1]["role"] == "assistant":
        raise ValueError("messages: expected a question at the end, got an answer. Ask something.")
    return checked


def check_answers(loaded: LoadedModel) -> None:
    """Raise ValueError for a model that does not chat."""
    if loaded.source.masked or not loaded.tokenizer.chat_template:
        raise ValueError(
            f"{loaded.source.name} was not trained to chat: its tokenizer has no chat template. Write to it in the tab "
            "Write, or train one that chats: `python -m train chat --from MODEL`."
        )


def answer(
    context: AppContext,
    messages: Any,
    *,
    seed: Any,
    should_stop: Callable[[], bool] = lambda: False,
    **values: Any,
) -> Iterator[Draft]:
    """Drafts of the next answer, whose text is the answer alone, as `panels.generate.generate_queued` yields them.

    Raises ValueError for messages that are wrong, a model without a chat template, a template that refuses the messages
    or fails, and for what `generate_queued` refuses."""
    checked = check_messages(messages)
    loader = context.loader  # the page's model may be another one before the answer ends
    loader.expect(should_stop)
    if should_stop():
        return
    loaded = loader.wait()
    check_answers(loaded)
    from tokenization.chat_template import prompt_ids  # not before: see `modeling.quick_imports`

    ids = prompt_ids(loaded.tokenizer, checked)
    yield from generate_queued(context, "", prompt_ids=ids, seed=seed, should_stop=should_stop, loader=loader, **values)


def said_of(draft: Draft) -> str:
    """A word about an answer that is being written or done, and about what of the chat the model could not see."""
    message = ENDINGS[draft.ending]
    unread = draft.prompt_tokens - (draft.context_length or draft.prompt_tokens)
    if unread > 0:
        message += (
            f" The chat is longer than the model's context of {draft.context_length} tokens: its first {unread} were "
            "not read. Begin a new chat."
        )
    return message
