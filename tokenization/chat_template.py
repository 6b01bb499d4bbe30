"""Chats as token ids: the chat template of models that are tuned here, and which of the ids are answers.

The template writes roles as plain text, which needs no new entry in a vocabulary: `--from` keeps the model's
vocabulary, and with it every size and id. Each answer ends with the end-of-text token, at which generation stops
already, and a chat begins with it as every text of the training did:

    <|endoftext|>User: Who is Rosa?
    Assistant: A miller.<|endoftext|>User: And Hugo?
    Assistant: A cook.<|endoftext|>

The price of plain text is that a user may write "Assistant:" too; the model then sees an answer that it did not give.
"""

import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psutil

from tokenization.saving import build_fast
from tokenization.spans import is_from_scratch

CHAT_TEMPLATE = """\
{{- eos_token }}
{%- for message in messages %}
    {%- set content = message['content'] | trim %}
    {%- if message['role'] == 'assistant' %}
        {{- 'Assistant: ' + content + eos_token }}
    {%- elif message['role'] == 'user' %}
        {{- 'User: ' + content + '\\n' }}
    {%- elif message['role'] == 'system' %}
        {{- 'System: ' + content + '\\n' }}
    {%- else %}
        {{- raise_exception('expected a role of system, user or assistant, got ' + message['role']) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- 'Assistant:' }}
{%- endif %}"""

TEMPLATE_SECONDS, TEMPLATE_BYTES = 5.0, 500_000_000
"""What a chat template of others may take for one chat: seconds of the processor, bytes of memory. Ours takes less than
a millisecond."""

Messages = Sequence[Mapping[str, str]]


def prompt_ids(tokenizer: Any, messages: Messages) -> list[int]:
    """The ids of a chat up to where the next answer begins, by the tokenizer's chat template.

    Raises:
        ValueError: a message holds the text of a special token; the template refuses the messages, or fails. The
            message does not say where the tokenizer is, since visitors of a page read it.
    """
    refuse_special_tokens(messages, special_texts(tokenizer))
    return list(_apply(tokenizer, messages, add_generation_prompt=True, tokenize=True, return_dict=False))


def special_texts(tokenizer: Any) -> list[str]:
    """The texts of a tokenizer's special tokens, sorted."""
    added = tokenizer.added_tokens_decoder.values()
    return sorted({*tokenizer.all_special_tokens, *(token.content for token in added if token.special)})


def refuse_special_tokens(messages: Messages, special: Sequence[str]) -> None:
    """Raise ValueError where a message holds one of the texts `special`: in the text that a template makes of the
    messages it could not be told from the template's own tokens."""
    for message in messages:
        if found := next((token for token in special if token in message["content"]), None):
            raise ValueError(
                f"expected messages without special tokens, got {found!r} in one of the {message['role']}; take it "
                "out, or write it otherwise"
            )


def _apply(tokenizer: Any, messages: Messages, *, place: str = "", **options: Any) -> Any:
    """`apply_chat_template` with limits; `place` is where the tokenizer is, for the message of an error."""
    try:
        with _limited_template(tokenizer.chat_template):
            return tokenizer.apply_chat_template(list(map(dict, messages)), **options)
    except Exception as error:
        # A template is a small program of whoever wrote it, and may fail as any program does.
        got = "one that asks for more memory than there is" if isinstance(error, MemoryError) else f"an error: {error}"
        advice = "write the messages as it asks"
        if tokenizer.chat_template != CHAT_TEMPLATE:
            advice += (
                ", or correct `chat_template` in its tokenizer_config.json (or chat_template.jinja), or remove it "
                "there: `python -m train chat` with a new --run-dir takes ours then"
            )
        named = f" in {place}" if place else ""
        raise ValueError(
            f"the chat template of the tokenizer{named}: expected a text of the messages, got {got}; {advice}"
        ) from error


@contextmanager
def _limited_template(template: Any) -> Generator[None]:
    """Limits of time and memory for a template that is not ours, in this thread: Jinja's sandbox has none.

    The lines of a template are lines of Python, between which a trace function looks at the clock of this thread and,
    of what takes a while, at the memory of the process. One single operation is not interrupted.
    """
    if template == CHAT_TEMPLATE:
        yield
        return
    process = psutil.Process()
    begun, memory, before = time.thread_time(), process.memory_info().rss, sys.gettrace()

    def look(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != "<template>":
            return None  # its lines are not traced
        spent = time.thread_time() - begun
        if spent > TEMPLATE_SECONDS:
            raise TimeoutError(f"expected a text within {TEMPLATE_SECONDS:.0f} seconds, got none (an endless loop?)")
        if spent > 0.05 and process.memory_info().rss - memory > TEMPLATE_BYTES:
            raise TimeoutError(f"expected a text, got one that takes more than {TEMPLATE_BYTES:,} bytes of memory")
        return look

    sys.settrace(look)
    try:
        yield
    finally:
        sys.settrace(before)


class ChatEncoder:
    """Encodes chats with the template of a tokenizer.

    What is read before an answer and the answer itself are encoded apart, as they are when the model answers: it reads
    the ids of the one and writes those of the other. For a byte-level tokenizer and our template these are the ids of
    transformers' `apply_chat_template` on the complete chat.

    Args:
        tokenizer: any tokenizer of transformers with a chat template; the from-scratch one runs in Rust.
    """

    def __init__(self, tokenizer: Any) -> None:
        assert tokenizer.chat_template
        self.tokenizer = build_fast(tokenizer) if is_from_scratch(tokenizer) else tokenizer
        self.place = str(tokenizer.name_or_path)
        self.special = special_texts(tokenizer)

    def encode(self, messages: Messages) -> tuple[list[int], list[bool]]:
        """The ids of a chat up to the end of its last answer, and whether each belongs to an answer, its end included.

        Messages after the last answer are left out.

        Raises:
            ValueError: a message holds the text of a special token; the template refuses the messages, or writes
                an answer such that what came before it changes.
        """
        refuse_special_tokens(messages, self.special)
        ids: list[int] = []
        is_answer: list[bool] = []
        written = ""
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._render(messages[:index], add_generation_prompt=True)
            after = self._render(messages[: index + 1])
            if not (before.startswith(written) and after.startswith(before)):
                raise ValueError(
                    "expected a chat template that writes an answer behind what came before it, got one that changes "
                    "the text before an answer; take a tokenizer without a chat template: it gets ours"
                )
            for text, belongs in ((before[len(written) :], False), (after[len(before) :], True)):
                new = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
                ids += new
                is_answer += [belongs] * len(new)
            written = after
        return ids, is_answer

    def _render(self, messages: Messages, **options: Any) -> str:
        return _apply(self.tokenizer, messages, place=self.place, tokenize=False, **options)
