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

from panels import zero

if TYPE_CHECKING:
    from modeling.decoding import SamplingSettings
    from panels.models import LoadedModel

PACE = 0.06
"""Seconds between two drafts: steady for the eye, and cheap for the page."""
TIME_LIMIT = zero.TIME_LIMIT if zero.is_here() else 120.0
"""Seconds one request may compute before it ends by itself."""

Ending = Literal["length", "stop_token", "deadline", "stopped"]
"""Why a writing is over: enough tokens, the model's end-of-text token, the time limit, `should_stop`."""


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

    @property
    def tokens_out_of_sight(self) -> int:
        """Tokens at the beginning of the text that the window has left behind."""
        return max(0, self.prompt_tokens + self.new_tokens - 1 - self.context_used) if self.new_tokens else 0

    @property
    def tokens_per_second(self) -> float:
        """Speed of the writing; 0.0 before the first token."""
        return self.new_tokens / self.seconds if self.seconds > 0 else 0.0


def plain_text(text: str) -> str:
    """`text` with U+FFFD for each surrogate: prompts and models may hold them, but nothing can transport them."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def encode_prompt(loaded: LoadedModel, text: str) -> list[int]:
    """Token ids of `text`, in which what looks like a special token is text, behind what stands in front of every text
    of this model (`LoadedModel.prefix_ids`)."""
    tokenizer = loaded.tokenizer
    if not text:
        ids = []
    elif hasattr(tokenizer, "encode_ordinary"):
        ids = tokenizer.encode_ordinary(text)
    else:
        ids = tokenizer(text, split_special_tokens=True, add_special_tokens=False, verbose=False)["input_ids"]
    return [*loaded.prefix_ids, *ids]


def write(
    loaded: LoadedModel,
    prompt: str,
    settings: SamplingSettings,
    *,
    time_limit: float | None = TIME_LIMIT,
    pace: float = PACE,
    should_stop: Callable[[], bool] | None = None,
) -> Generator[Draft, None, None]:
    """Continue `prompt` and yield the text so far about every `pace` seconds, and once more at the end.

    An empty prompt lets the model begin by itself. Past the context length the window slides. Closing the generator
    ends the computing. With `settings.seed` None a seed is drawn; each draft names it."""
    from modeling.decoding import stream
    from tokenization import StreamingDecoder

    if loaded.source.masked:
        raise ValueError(f"{loaded.source.name} fills blanks and does not write: give it a text with ____.")
    prompt = plain_text(prompt)
    prompt_ids = encode_prompt(loaded, prompt)
    seed = random.SystemRandom().randrange(10**6) if settings.seed is None else settings.seed
    decoder = StreamingDecoder(loaded.tokenizer)
    decoder.follow(prompt_ids[len(loaded.prefix_ids) :])
    began = shown = time.monotonic()
    draft = Draft(text=prompt, seed=seed, context_length=loaded.context_length, prompt_tokens=len(prompt_ids))
    steps = stream(
        loaded.model,
        prompt_ids,
        dataclasses.replace(settings, seed=seed),
        stop_token_ids=loaded.stop_token_ids,
        should_stop=should_stop,
        deadline=None if time_limit is None else began + time_limit,
    )
    text, new_tokens, context_used = prompt, 0, 0
    with contextlib.closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                ending = end.value
                break
            text += plain_text(decoder.push(step.token_id))
            new_tokens, context_used = new_tokens + 1, step.context_used
            now = time.monotonic()
            draft = dataclasses.replace(
                draft, text=text, new_tokens=new_tokens, context_used=context_used, seconds=now - began
            )
            if new_tokens == 1 or now - shown >= pace:
                shown = now
                yield draft
    yield dataclasses.replace(
        draft, text=text + plain_text(decoder.finish()), seconds=time.monotonic() - began, ending=ending
    )
