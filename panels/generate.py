"""The loop that writes: a prompt goes in, the text so far comes out. The page, the API and the terminal all use it."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from panels import zerogpu

if TYPE_CHECKING:
    from modeling.generation import Alternative, SamplingSettings
    from panels.models import LoadedModel

PACE = 0.06
"""Seconds between two drafts: steady for the eye, and cheap for the page."""
TIME_LIMIT = zerogpu.TIME_LIMIT if zerogpu.is_here() else 120.0
"""Seconds one request may compute before it ends by itself."""

Ending = Literal["length", "stop_token", "stop_text", "deadline", "stopped"]
"""Why a writing is over: enough tokens, the model's end-of-text token, the stop text, the time limit, `should_stop`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """One written token, and what could have come in its place."""

    token_id: int
    text: str  # the characters that it completed; "" where its bytes end inside a character
    model_probability: float  # before the sampler
    probability: float  # what the sampler drew it with
    kept: int  # tokens that the sampler left to draw from
    alternatives: tuple[Alternative, ...]  # the model's likeliest tokens here, the likeliest first
    is_inside: bool = False  # it began inside a character
    is_chosen: bool = False  # the reader took it from the alternatives


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """The text so far, and how the writing of it goes."""

    text: str  # prompt and continuation
    ahead: int = 0  # how many others must finish before the writing begins
    seed: int | None = None  # of this text: with it, the prompt and the settings it comes out again; known at its turn
    context_length: int | None = None  # tokens that the model can see at once; None: no limit
    prompt_tokens: int = 0  # tokens of the prompt, what stands in front of every text included
    new_tokens: int = 0  # tokens written
    seconds: float = 0.0  # since the writing began
    context_used: int = 0  # tokens that the model saw when it wrote the last one
    ending: Ending | None = None  # None while it goes on
    tokens: tuple[Token, ...] = ()  # written since the draft before this one, where alternatives were asked for
    rest: str = ""  # what the last token adds when all is over: U+FFFD for a character that never became complete

    @property
    def tokens_out_of_window(self) -> int:
        """Tokens at the beginning of the text that the window has left behind."""
        return max(0, self.prompt_tokens + self.new_tokens - 1 - self.context_used) if self.new_tokens else 0

    @property
    def tokens_per_second(self) -> float:
        """Speed of the writing; 0.0 before the first token."""
        return self.new_tokens / self.seconds if self.seconds > 0 else 0.0


def plain_text(text: str) -> str:
    """`text` with U+FFFD for each surrogate: prompts and models may hold them, but nothing can transport them."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def check_text(text: object, name: str = "text", *, limit: int | None = None, may_be_empty: bool = True) -> str:
    """The text itself, from a form or a request; ValueError where it is none, or longer than `limit` characters."""
    if not isinstance(text, str):
        raise ValueError(f"{name}: expected text, got {type(text).__name__}.")
    if not text and not may_be_empty:
        raise ValueError(f"{name}: expected at least one character, got none. Paste or write a text.")
    if limit is not None and len(text) > limit:
        raise ValueError(f"{name}: expected at most {limit:,} characters, got {len(text):,}. Take a part of it.")
    return text


def encode_prompt(loaded: LoadedModel, text: str) -> list[int]:
    """Token ids of `text`, in which what looks like a special token is text, after what precedes a prompt of this
    model; of no text, those that start one."""
    from tokenization import plain_ids

    ids = plain_ids(loaded.tokenizer, text)
    return [*(loaded.prefix_ids if ids else loaded.start_ids), *ids]


def write(
    loaded: LoadedModel,
    prompt: str,
    settings: SamplingSettings,
    *,
    stop: str = "",
    alternatives: int = 0,
    time_limit: float | None = TIME_LIMIT,
    pace: float = PACE,
    should_stop: Callable[[], bool] | None = None,
) -> Generator[Draft, None, None]:
    """Continue `prompt` and yield the text so far about every `pace` seconds, and once more at the end.

    An empty prompt lets the model begin by itself. Past the context length the window slides. `stop`, where it is not
    empty, is a text that ends the writing as soon as it is written, and does not appear itself. Closing the generator
    ends the computing. With `settings.seed` None a seed is drawn; each draft names it. With `alternatives` the drafts
    bring their tokens, each with so many of the model's likeliest."""
    from modeling.generation import stream
    from tokenization import StreamingDecoder, plain_ids

    if loaded.source.masked:
        raise ValueError(f"{loaded.source.name} fills blanks and does not write: give it a text with ____.")
    prompt = plain_text(prompt)
    prompt_ids = encode_prompt(loaded, prompt)
    seed = random.SystemRandom().randrange(10**6) if settings.seed is None else settings.seed
    decoder = StreamingDecoder(loaded.tokenizer)
    decoder.follow(plain_ids(loaded.tokenizer, prompt))
    began = shown = time.monotonic()
    draft = Draft(text=prompt, seed=seed, context_length=loaded.context_length, prompt_tokens=len(prompt_ids))
    steps = stream(
        loaded.model,
        prompt_ids,
        dataclasses.replace(settings, seed=seed),
        stop_token_ids=loaded.stop_token_ids,
        alternatives=alternatives,
        should_stop=should_stop,
        deadline=None if time_limit is None else began + time_limit,
    )
    text, new_tokens, context_used = prompt, 0, 0
    outbox = Outbox(len(prompt))
    with contextlib.closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                ending = end.value
                break
            was_open = decoder.is_open
            piece = plain_text(decoder.push(step.token_id))
            text += piece
            if alternatives:
                outbox.waiting.append(
                    Token(
                        token_id=step.token_id,
                        text=piece,
                        model_probability=step.model_probability,
                        probability=step.probability,
                        kept=step.kept,
                        alternatives=step.alternatives,
                        is_inside=was_open,
                    )
                )
            new_tokens, context_used = new_tokens + 1, step.context_used
            now = time.monotonic()
            text, is_over, held = cut(text, stop, len(prompt))
            draft = dataclasses.replace(
                draft,
                text=text[: len(text) - held],
                new_tokens=new_tokens,
                context_used=context_used,
                seconds=now - began,
            )
            if is_over:
                ending = "stop_text"
                break
            if new_tokens == 1 or now - shown >= pace:
                shown = now
                yield dataclasses.replace(draft, tokens=outbox.take(len(draft.text)))
    rest = "" if ending == "stop_text" else plain_text(decoder.finish())
    tokens = outbox.take(len(text), is_last=True)
    yield dataclasses.replace(
        draft, text=text + rest, seconds=time.monotonic() - began, ending=ending, tokens=tokens, rest=rest
    )


class Outbox:
    """Tokens that were written and not yet shown: a token comes out when all of its characters stand in the text.

    `start` is the length of the text before the first of them."""

    def __init__(self, start: int) -> None:
        self.waiting: list[Token] = []
        self._end = start

    def take(self, shown: int, *, is_last: bool = False) -> tuple[Token, ...]:
        """The tokens that the first `shown` characters of the text hold. The last time one that they hold in part comes
        too, with that part for its text, and what is behind it is dropped."""
        taken = []
        for token in self.waiting:
            room = shown - self._end
            if len(token.text) > room and not (is_last and room > 0):
                break
            taken.append(token if len(token.text) <= room else dataclasses.replace(token, text=token.text[:room]))
            self._end += len(taken[-1].text)
        self.waiting = self.waiting[len(taken) :]
        return tuple(taken)


def cut(text: str, stop: str, start: int) -> tuple[str, bool, int]:
    """`text` up to `stop` where that stands behind `start`, whether it does, and how many characters at the end may
    turn out to be its beginning."""
    if not stop:
        return text, False, 0
    found = text.find(stop, start)
    if found >= 0:
        return text[:found], True, 0
    most = min(len(stop) - 1, len(text) - start)
    return text, False, next((held for held in range(most, 0, -1) if stop.startswith(text[-held:])), 0)
