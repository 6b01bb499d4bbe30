"""Two texts from one prompt and one seed, written side by side, and the place where they part.

The two models take turns, a token each, so that both texts grow before the reader's eyes. Where both share a tokenizer
the texts part at the first token that differs, and each of the two tokens gets its probability under each model;
otherwise they part at the first character that differs."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from panels.generate import PACE, TIME_LIMIT, Ending, encode_prompt, plain_text

if TYPE_CHECKING:
    from torch import Tensor

    from modeling.generation import SamplingSettings
    from panels.models import LoadedModel

END = -1
"""Stands for "the text ends here" where a token would stand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the two that write."""

    loaded: LoadedModel
    settings: SamplingSettings  # its seed counts for side A alone: B takes the same


class Chance(NamedTuple):
    """The probability of one token."""

    model: float  # softmax of the logits as they came
    drawn: float  # what the sampler drew it with; 0 where a filter dropped it


@dataclass(frozen=True, kw_only=True, slots=True)
class Fork:
    """What one side wrote where the texts part."""

    label: str | None  # its token for the eye; None: it ended the text there
    index: int  # of that token among those of the side
    start: int  # where that token begins in the side's new text, in characters
    end: int  # and where it ends; of a token inside a character, where the character does
    chances: tuple[Chance | None, Chance | None]  # of it under A and under B; None: not to be had


@dataclass(frozen=True, kw_only=True, slots=True)
class Parting:
    """The first place where the two new texts are not the same."""

    tokens: int | None  # tokens that are the same before it; None: the tokenizers differ, only characters compare
    characters: int  # characters that are the same before it
    forks: tuple[Fork, Fork]  # of A and of B


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One side's text so far."""

    text: str = ""  # what was written after the prompt
    tokens: int = 0  # of it
    byte_count: int = 0  # of it
    bits: float = 0.0  # the sum of -log2 of the side's own model's probability of each token
    ending: Ending | None = None  # None while it goes on

    @property
    def bits_per_byte(self) -> float | None:
        """Bits per byte of the new text under the model that wrote it; None for no text."""
        return self.bits / self.byte_count if self.byte_count else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Both texts so far."""

    prompt: str
    seed: int
    pages: tuple[Page, Page] = (Page(), Page())
    shares_tokens: bool = True  # whether a token id means the same on both sides
    parting: Parting | None = None  # None while the texts are the same

    @property
    def is_over(self) -> bool:
        """Whether neither side goes on."""
        return all(page.ending is not None for page in self.pages)


def compare(
    a: Side,
    b: Side,
    prompt: str,
    *,
    time_limit: float | None = TIME_LIMIT,
    pace: float = PACE,
    should_stop: Callable[[], bool] | None = None,
) -> Generator[Comparison, None, None]:
    """Continue `prompt` twice and yield both texts about every `pace` seconds, and once more at the end.

    Both sides take A's seed; with None one is drawn, and each comparison names it. `time_limit` in seconds is for both
    together. Closing the generator ends the computing.

    Raises ValueError for a masked model, and for what `modeling.generation.stream` refuses."""
    prompt = plain_text(prompt)
    seed = random.SystemRandom().randrange(10**6) if a.settings.seed is None else a.settings.seed
    began = shown = time.monotonic()
    deadline = None if time_limit is None else began + time_limit
    sides = [Side(loaded=side.loaded, settings=dataclasses.replace(side.settings, seed=seed)) for side in (a, b)]
    with contextlib.ExitStack() as stack:
        pens = [_Pen(side, prompt, should_stop, deadline) for side in sides]
        for pen in pens:
            stack.enter_context(contextlib.closing(pen.steps))
        shares_tokens = share_tokens(a.loaded.tokenizer, b.loaded.tokenizer)
        now = Comparison(prompt=prompt, seed=seed, shares_tokens=shares_tokens)
        find = _part_at_a_token if shares_tokens else _part_at_a_character
        while not now.is_over:
            for pen in pens:
                pen.advance()
            pages = (pens[0].page(), pens[1].page())
            now = dataclasses.replace(now, pages=pages, parting=_follow(now.parting, *pens) or find(*pens))
            if now.is_over or time.monotonic() - shown >= pace or pages[0].tokens == pages[1].tokens == 1:
                shown = time.monotonic()
                yield now


def compare_settings(loaded: LoadedModel, prompt: str, a: SamplingSettings, b: SamplingSettings) -> Comparison:
    """The end of a comparison of two settings of one model: data alone, for `ModelLoader.call`."""
    *_, last = compare(Side(loaded=loaded, settings=a), Side(loaded=loaded, settings=b), prompt, pace=TIME_LIMIT)
    return last


def share_tokens(a: Any, b: Any) -> bool:
    """Whether two tokenizers have the same tokens under the same ids."""
    return a is b or (len(a) == len(b) and a.get_vocab() == b.get_vocab())


def first_difference(a: Sequence[object], b: Sequence[object]) -> int | None:
    """The first index at which both have something and it is not the same; None where there is none."""
    return next((index for index, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), None)


class _Pen:
    """One side at work."""

    def __init__(self, side: Side, prompt: str, should_stop: Callable[[], bool] | None, deadline: float | None) -> None:
        from modeling.generation import stream
        from tokenization import StreamingDecoder, plain_ids

        self.loaded, self.settings = side.loaded, side.settings
        if self.loaded.source.masked:
            raise ValueError(f"{self.loaded.source.name} fills blanks and does not write: choose a model that writes.")
        self.prompt_ids = encode_prompt(self.loaded, prompt)
        self.decoder = StreamingDecoder(self.loaded.tokenizer)
        self.decoder.follow(plain_ids(self.loaded.tokenizer, prompt))
        self.steps = stream(
            self.loaded.model,
            self.prompt_ids,
            self.settings,
            stop_token_ids=self.loaded.stop_token_ids,
            should_stop=should_stop,
            deadline=deadline,
        )
        self.ids: list[int] = []  # written so far
        self.ends: list[int] = []  # characters of `text` when each of them was written
        self.chances: list[Chance] = []  # of each of them
        self.used: list[int] = []  # tokens that the model saw when it wrote each of them
        self.text, self.bits, self.ending = "", 0.0, None

    def advance(self) -> None:
        """Write one token, if the text goes on."""
        if self.ending is not None:
            return
        try:
            step = next(self.steps)
        except StopIteration as end:
            self.ending = end.value
            self.text += plain_text(self.decoder.finish())
            return
        self.text += plain_text(self.decoder.push(step.token_id))
        self.bits += step.surprisal
        self.ids.append(step.token_id)
        self.ends.append(len(self.text))
        self.chances.append(Chance(step.model_probability, step.probability))
        self.used.append(step.context_used)

    def page(self) -> Page:
        """What is written so far."""
        is_over = self.ending is not None
        count = self._byte_count() if is_over else len(self.text.encode("utf-8"))
        return Page(text=self.text, tokens=len(self.ids), byte_count=count, bits=self.bits, ending=self.ending)

    def items(self) -> list[int]:
        """The tokens so far, with END behind them when the model has ended the text."""
        return [*self.ids, END] if self.ending == "stop_token" else self.ids

    def characters(self) -> list[str | int]:
        """The characters so far, with END behind them when the model has ended the text."""
        return [*self.text, END] if self.ending == "stop_token" else [*self.text]

    def logits(self, index: int) -> Tensor:
        """The logits (V) from which its token at `index` was drawn."""
        from modeling.inspection import next_token_logits

        return next_token_logits(self.loaded.model, [*self.prompt_ids, *self.ids[:index]][-self._seen(index) :])

    def fork(self, index: int, chances: tuple[Chance | None, Chance | None]) -> Fork:
        """What it wrote at `index`, the place of which may be behind its last token."""
        from tokenization.spans import label

        start = self.ends[index - 1] if index else 0
        name = None if index == len(self.ids) else label(self.loaded.tokenizer, self.ids[index])
        return Fork(label=name, index=index, start=start, end=self.end_of(index), chances=chances)

    def end_of(self, index: int) -> int:
        """Where the text of its token at `index` ends."""
        start = self.ends[index - 1] if index else 0
        return next((end for end in self.ends[index:] if end > start), len(self.text))

    def _seen(self, index: int) -> int:
        """Tokens that the model saw when it wrote its token at `index`, or ended the text there."""
        if index < len(self.used):
            return self.used[index]
        context = self.loaded.context_length
        seen = self.used[-1] + 1 if self.used else len(self.prompt_ids)
        if context is None or seen <= context:
            return seen
        return max(1, context // 2) if self.used else context

    def _byte_count(self) -> int:
        """Bytes of the text: those of its tokens, where they are known, for half a character shows as U+FFFD."""
        from tokenization.spans import token_bytes

        contents = [token_bytes(self.loaded.tokenizer, token_id) for token_id in self.ids]
        joined = b"".join(content for content in contents if content is not None)
        shown = self.text.encode("utf-8")
        return len(joined) if joined.decode("utf-8", "replace") == self.text else len(shown)


def _part_at_a_token(a: _Pen, b: _Pen) -> Parting | None:
    index = first_difference(a.items(), b.items())
    if index is None:
        return None
    logits = [a.logits(index)]
    is_one = a.loaded is b.loaded  # which has seen the same, too
    logits.append(logits[0] if is_one else b.logits(index))
    forks = []
    for pen in (a, b):
        token_id = pen.items()[index]
        chances = (_chance(a, logits[0], index, token_id), _chance(b, logits[1], index, token_id))
        forks.append(pen.fork(index, chances))
    return Parting(tokens=index, characters=a.ends[index - 1] if index else 0, forks=(forks[0], forks[1]))


def _part_at_a_character(a: _Pen, b: _Pen) -> Parting | None:
    place = first_difference(a.characters(), b.characters())
    if place is None:
        return None
    forks = []
    for number, pen in enumerate((a, b)):
        index = next((index for index, end in enumerate(pen.ends) if end > place), len(pen.ids))
        own = pen.chances[index] if index < len(pen.ids) else _chance(pen, pen.logits(index), index, END)
        forks.append(pen.fork(index, (None, own) if number else (own, None)))
    return Parting(tokens=None, characters=place, forks=(forks[0], forks[1]))


def _follow(parting: Parting | None, a: _Pen, b: _Pen) -> Parting | None:
    """A parting that was found before, with what has been written of its tokens' characters since."""
    if parting is None:
        return None
    one, other = parting.forks
    forks = (dataclasses.replace(one, end=a.end_of(one.index)), dataclasses.replace(other, end=b.end_of(other.index)))
    return dataclasses.replace(parting, forks=forks)


def _chance(pen: _Pen, logits_V: Tensor, index: int, token_id: int) -> Chance:
    """The probability of a token, or of END, at `index` for the model and the settings of one side."""
    import torch

    from modeling.sampling import Sampler

    before = [*pen.prompt_ids, *pen.ids[:index]]
    drawn_V = Sampler(pen.settings, before, len(logits_V)).distribution(logits_V)
    ids = list(pen.loaded.stop_token_ids) if token_id == END else [token_id]
    ids = [each for each in ids if each < len(logits_V)]
    return Chance(float(torch.softmax(logits_V, -1)[ids].sum()), float(drawn_V[ids].sum()))
