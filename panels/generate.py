"""The generation loop: a prompt goes in, the text so far comes out. Write, Compare, the API and the terminal use it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from panels import zerogpu
from panels.sampling import settings_from
from storage.text import replace_surrogates

if TYPE_CHECKING:
    from modeling.batching import BatchGenerator
    from modeling.generation import Alternative, SamplingSettings
    from panels.context import AppContext
    from panels.models import LoadedModel, ModelLoader

DRAFT_INTERVAL = 0.06
"""Minimum seconds between two drafts: text appears steadily, and the page is not flooded."""
TIME_LIMIT = zerogpu.TIME_LIMIT if zerogpu.is_here() else 120.0
"""Seconds that one request may compute."""

Ending = Literal["length", "stop_token", "stop_text", "deadline", "stopped"]
"""Why a generation is over: enough tokens, the model's end-of-text token, the stop text, the time limit, Stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """One generated token, and what could have come in its place."""

    token_id: int
    text: str  # the characters that it completed; "" where its bytes end inside a character
    model_probability: float  # before the sampler
    probability: float  # what the sampler drew it with
    kept: int  # tokens that the sampler's filters left to draw from
    alternatives: tuple[Alternative, ...] = ()  # the model's likeliest tokens here, the likeliest first
    is_inside: bool = False  # it began inside a character
    is_chosen: bool = False  # the user took it from the alternatives

    @property
    def surprisal(self) -> float:
        """Bits: -log2 of the model's probability."""
        return -math.log2(self.model_probability) if self.model_probability > 0 else math.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """The text so far, and the state of its generation."""

    text: str  # prompt and continuation
    ahead: int = 0  # requests in the queue that must end before this one computes
    seed: int | None = None  # the same seed, prompt and settings give the same text; None: it still waits
    context_length: int | None = None  # tokens that the model can see at once; None: no limit
    prompt_tokens: int = 0  # tokens of the prompt, with what precedes every prompt
    new_tokens: int = 0  # tokens generated
    seconds: float = 0.0  # of computing
    context_used: int = 0  # tokens that the model saw when it generated the last one
    ending: Ending | None = None  # None while it is not over
    tokens: tuple[Token, ...] = ()  # generated since the draft before this one
    rest: str = ""  # what the last token adds at the end: U+FFFD for a character that never became complete

    @property
    def tokens_out_of_window(self) -> int:
        """Tokens at the beginning of the text that the context window no longer holds."""
        return max(0, self.prompt_tokens + self.new_tokens - 1 - self.context_used) if self.new_tokens else 0

    @property
    def tokens_per_second(self) -> float:
        """0.0 before the first token."""
        return self.new_tokens / self.seconds if self.seconds > 0 else 0.0


def check_text(text: object, name: str = "text", *, limit: int | None = None, may_be_empty: bool = True) -> str:
    """The text itself, from a form or a request; ValueError where it is none, or longer than `limit` characters."""
    if not isinstance(text, str):
        raise ValueError(f"{name}: expected text, got {type(text).__name__}.")
    if not text and not may_be_empty:
        raise ValueError(f"{name}: expected at least one character, got none. Paste or write a text.")
    if limit is not None and len(text) > limit:
        raise ValueError(f"{name}: expected at most {limit:,} characters, got {len(text):,}. Take a part of it.")
    return text


def check_writes(loaded: LoadedModel, therefore: str) -> None:
    """Raise ValueError for a masked model, of which something is not known `therefore`."""
    if loaded.source.masked:
        raise ValueError(
            f"{loaded.source.name} fills blanks, reading on both sides of them: {therefore}. "
            "The tab Fill in and the API's /fill show what it expects in a blank."
        )


def encode_prompt(loaded: LoadedModel, text: str) -> list[int]:
    """Token ids of `text` after what precedes a prompt of this model; of no text, those that start one."""
    from tokenization import plain_ids

    ids = plain_ids(loaded.tokenizer, text)
    return [*(loaded.prefix_ids if ids else loaded.start_ids), *ids]


def draw_seed() -> int:
    """A random seed."""
    return random.SystemRandom().randrange(10**6)


def generate(
    loaded: LoadedModel,
    prompt: str,
    settings: SamplingSettings,
    *,
    stop: str | Sequence[str] = "",
    prompt_ids: Sequence[int] | None = None,
    alternatives: int = 0,
    batch: BatchGenerator | None = None,
    time_limit: float | None = TIME_LIMIT,
    interval: float = DRAFT_INTERVAL,
    should_stop: Callable[[], bool] | None = None,
) -> Generator[Draft, None, None]:
    """Continue `prompt`; yield the text so far about every `interval` seconds, and once more at the end.

    An empty prompt lets the model begin by itself. Past the context length the window slides. Closing the generator
    ends the computing.

    Args:
        settings: with seed None a seed is drawn; each draft names it.
        stop: a text, or several, that ends the generation and is left out; "" (default): none.
        prompt_ids: what the model reads for the prompt, as it is; None (default): `encode_prompt(loaded, prompt)`.
        alternatives: how many of the model's likeliest tokens come with each token.
        batch: the text shares the passes of this one's others; None (default): it is written by itself.
        time_limit: seconds; None: no limit.
        interval: 0 gives a draft for every token.
        should_stop: asked before every pass of the model.

    Raises ValueError for a masked model, and for what `modeling.generation.stream` refuses."""
    from modeling.generation import stream
    from tokenization import StreamingDecoder, plain_ids

    if loaded.source.masked:
        raise ValueError(f"{loaded.source.name} fills blanks and does not write: give it a text with ____.")
    prompt = replace_surrogates(prompt)
    preceding = plain_ids(loaded.tokenizer, prompt) if prompt_ids is None else list(prompt_ids)
    prompt_ids = encode_prompt(loaded, prompt) if prompt_ids is None else preceding or list(loaded.start_ids)
    seed = draw_seed() if settings.seed is None else settings.seed
    decoder = StreamingDecoder(loaded.tokenizer)
    decoder.follow(preceding)
    began = shown = time.monotonic()
    draft = Draft(text=prompt, seed=seed, context_length=loaded.context_length, prompt_tokens=len(prompt_ids))
    steps = (partial(stream, loaded.model) if batch is None else batch.stream)(
        prompt_ids,
        dataclasses.replace(settings, seed=seed),
        stop_token_ids=loaded.stop_token_ids,
        alternatives=alternatives,
        should_stop=should_stop,
        deadline=None if time_limit is None else began + time_limit,
    )
    text, is_begun = prompt, False  # whether more than the prompt was shown
    unsent = UnsentTokens(len(prompt))
    with contextlib.closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                ending = end.value
                break
            is_inside = decoder.is_open
            piece = replace_surrogates(decoder.push(step.token_id))
            text += piece
            unsent.tokens.append(
                Token(
                    token_id=step.token_id,
                    text=piece,
                    model_probability=step.model_probability,
                    probability=step.probability,
                    kept=step.kept,
                    alternatives=step.alternatives,
                    is_inside=is_inside,
                )
            )
            now = time.monotonic()
            text, is_over, held = cut_at_stop_text(text, stop, len(prompt))
            draft = dataclasses.replace(
                draft,
                text=text[: len(text) - held],
                new_tokens=draft.new_tokens + 1,
                context_used=step.context_used,
                seconds=now - began,
            )
            if is_over:
                ending = "stop_text"
                break
            pause = interval if batch is None else max(interval, batch.pace)
            is_beginning = not is_begun and len(draft.text) > len(prompt)
            if draft.new_tokens == 1 or is_beginning or now - shown >= pause:
                shown, is_begun = now, is_begun or is_beginning
                yield dataclasses.replace(draft, tokens=unsent.take(len(draft.text)))
    rest = "" if ending == "stop_text" else replace_surrogates(decoder.finish())
    tokens = unsent.take(len(text), is_last=True)
    yield dataclasses.replace(
        draft, text=text + rest, seconds=time.monotonic() - began, ending=ending, tokens=tokens, rest=rest
    )


def generate_queued(
    context: AppContext,
    prompt: str,
    *,
    seed: Any,
    stop: str | Sequence[str] = "",
    prompt_ids: Sequence[int] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    alternatives: int = 0,
    loader: ModelLoader | None = None,
    **values: Any,
) -> Iterator[Draft]:
    """`generate` for the page and the API: reads the settings, waits for the model and for its turn in the queue; where
    the model can, the texts share its passes.

    Until then it yields drafts of the prompt alone, with how many requests are `ahead`. `loader`: whose model writes;
    None (default): the page's when its turn comes. Raises ValueError for a wrong setting, a full queue, and a model
    that cannot be loaded."""
    settings = settings_from(seed=seed, **values)
    (loader or context.loader).expect(should_stop)
    if should_stop():
        return
    with (context.queue if (loader or context.loader).batch is None else context.writing).join() as ticket:
        for ahead in ticket.wait_for_turn(should_stop):
            yield Draft(text=prompt, ahead=ahead)
        if should_stop():
            return
        writer = loader or context.loader
        task = partial(generate, stop=stop, prompt_ids=prompt_ids, alternatives=alternatives, batch=writer.batch)
        with contextlib.closing(writer.stream(task, prompt, settings, should_stop=should_stop)) as drafts:
            for draft in drafts:
                if zerogpu.is_here() and should_stop() and draft.ending is None:  # its process cannot ask should_stop
                    yield dataclasses.replace(draft, ending="stopped")
                    return
                yield draft


class UnsentTokens:
    """Tokens that no draft has brought yet: one is taken when the text shown holds all of its characters.

    Args:
        start: the length of the text before the first of them.
    """

    def __init__(self, start: int) -> None:
        self.tokens: list[Token] = []
        self._end = start

    def take(self, shown: int, *, is_last: bool = False) -> tuple[Token, ...]:
        """The tokens that the first `shown` characters of the text hold. The last time one that they hold in part comes
        too, with that part for its text, and what follows is dropped."""
        taken = []
        for token in self.tokens:
            room = shown - self._end
            if len(token.text) > room and not (is_last and room > 0):
                break
            taken.append(token if len(token.text) <= room else dataclasses.replace(token, text=token.text[:room]))
            self._end += len(taken[-1].text)
        self.tokens = self.tokens[len(taken) :]
        return tuple(taken)


def cut_at_stop_text(text: str, stop: str | Sequence[str], start: int) -> tuple[str, bool, int]:
    """`text` up to the first `stop` (any of several) after `start`, whether there is one, and how many characters at
    the end may turn out to be the beginning of one."""
    stops = [each for each in ([stop] if isinstance(stop, str) else stop) if each]
    if found := [place for each in stops if (place := text.find(each, start)) >= 0]:
        return text[: min(found)], True, 0
    most = min(max(map(len, stops), default=1) - 1, len(text) - start)
    begins = (held for held in range(most, 0, -1) if any(each.startswith(text[-held:]) for each in stops))
    return text, False, next(begins, 0)
