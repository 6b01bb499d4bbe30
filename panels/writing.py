"""The loop that writes: a prompt goes in, the text so far comes out. The page, the API and the terminal all use it."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from modeling.decoding import SamplingSettings
    from panels.models import LoadedModel

PACE = 0.06
"""Seconds between two drafts: steady for the eye, and cheap for the page."""
TIME_LIMIT = 120.0
"""Seconds one request may compute before it ends by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """The text so far, and how the writing of it goes."""

    text: str  # prompt and continuation
    prompt_tokens: int
    new_tokens: int
    seconds: float  # since the writing began
    context_length: int  # tokens that the model sees at once
    seed: int  # of this text: with it, the prompt and the settings it comes out again
    ending: Literal["length", "end", "time"] | None = None  # why the writing is over: enough tokens, the model's
    # end-of-text token, the time limit; None while it goes on

    @property
    def tokens(self) -> int:
        """Tokens of the whole text."""
        return self.prompt_tokens + self.new_tokens

    @property
    def context_used(self) -> int:
        """Tokens of the text that the model sees, at most `context_length`."""
        return min(self.tokens, self.context_length)

    @property
    def tokens_out_of_sight(self) -> int:
        """Tokens at the beginning of the text that the sliding window has left behind."""
        return self.tokens - self.context_used

    @property
    def tokens_per_second(self) -> float:
        """Speed of the writing; 0.0 before the first token."""
        return self.new_tokens / self.seconds if self.seconds > 0 else 0.0


def plain_text(text: str) -> str:
    """`text` without lone surrogates (U+FFFD stands for each), which no encoding could carry; pairs are joined."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def encode_prompt(loaded: LoadedModel, text: str) -> list[int]:
    """Token ids of `text`, where what looks like a special token is text, behind what the tokenizer puts in front of
    every text by itself (nothing, or a beginning-of-text token)."""
    if not text:
        return []
    tokenizer = loaded.tokenizer
    if hasattr(tokenizer, "encode_ordinary"):
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
) -> Iterator[Draft]:
    """Continue `prompt` and yield the text so far about every `pace` seconds, and once more at the end.

    An empty prompt lets the model begin by itself. Past the context length the window slides. Closing the generator
    ends the computing. With `settings.seed` None a seed is drawn; each draft names it."""
    from modeling.decoding import stream
    from tokenization import StreamingDecoder

    prompt = plain_text(prompt)
    prompt_ids = encode_prompt(loaded, prompt)
    if settings.seed is None:
        settings = dataclasses.replace(settings, seed=random.SystemRandom().randrange(2**31))
    decoder = StreamingDecoder(loaded.tokenizer)
    began = shown = time.monotonic()
    deadline = None if time_limit is None else began + time_limit
    draft = Draft(
        text=prompt,
        prompt_tokens=len(prompt_ids),
        new_tokens=0,
        seconds=0.0,
        context_length=loaded.context_length,
        seed=settings.seed,
    )
    text, new_tokens, ended = prompt, 0, False
    steps = stream(
        loaded.model,
        prompt_ids,
        settings,
        stop_token_ids=loaded.stop_token_ids,
        should_stop=should_stop,
        deadline=deadline,
    )
    with contextlib.closing(steps):
        for step in steps:
            if step.token_id in loaded.stop_token_ids:
                ended = True
                break
            text += decoder.push(step.token_id)
            new_tokens += 1
            now = time.monotonic()
            if new_tokens == 1 or now - shown >= pace:
                shown = now
                yield dataclasses.replace(draft, text=text, new_tokens=new_tokens, seconds=now - began)
    seconds = time.monotonic() - began
    ending = "length" if new_tokens >= settings.max_new_tokens else "end" if ended else "time"
    yield dataclasses.replace(
        draft, text=text + decoder.finish(), new_tokens=new_tokens, seconds=seconds, ending=ending
    )
