"""Two texts from one prompt and one seed, generated side by side, and the place where they diverge.

The two models take turns, a token each, so that both texts grow together. Where both share a tokenizer the texts
diverge at the first token that differs, and each of the two tokens gets its probability under each model; otherwise
they diverge at the first character that differs."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from panels.generate import DRAFT_INTERVAL, TIME_LIMIT, Draft, Ending, Token, draw_seed, encode_prompt, generate
from storage.text import replace_surrogates

if TYPE_CHECKING:
    from torch import Tensor

    from modeling.generation import SamplingSettings
    from panels.models import LoadedModel

T = TypeVar("T")

END = -1
"""Stands for "the text ends here" among token ids."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the two that are compared."""

    loaded: LoadedModel
    settings: SamplingSettings  # its seed counts for side A alone: B takes the same


class Probability(NamedTuple):
    """The probability of one token."""

    model: float  # softmax of the model's logits
    sampler: float  # what the sampler drew it with; 0 where a filter dropped it


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """What one side wrote where the texts diverge."""

    label: str | None  # the display label of its token; None: it ended the text there
    index: int  # of that token among those of the side
    start: int  # where that token begins in the side's new text, in characters
    end: int  # and where it ends; of a token inside a character, where the character does
    probabilities: tuple[Probability | None, Probability | None]  # under A and under B; None: not comparable


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """The first place where the two new texts are not the same."""

    tokens: int | None  # tokens that are the same before it; None: the tokenizers differ, only characters compare
    characters: int  # characters that are the same before it
    branches: tuple[Branch, Branch]  # of A and of B


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """One side's text so far."""

    text: str = ""  # what was generated after the prompt
    tokens: int = 0  # of it
    byte_count: int = 0  # of it
    bits: float = 0.0  # the sum of its tokens' surprisal under the side's own model
    ending: Ending | None = None  # None while it is not over

    @property
    def bits_per_byte(self) -> float | None:
        """Bits per byte of the new text under the model that wrote it; None for no text."""
        return self.bits / self.byte_count if self.byte_count else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Both texts so far."""

    prompt: str
    seed: int
    texts: tuple[Text, Text] = (Text(), Text())
    shares_tokens: bool = True  # whether a token id means the same on both sides
    divergence: Divergence | None = None  # None while the texts are the same

    @property
    def is_over(self) -> bool:
        """Whether both sides have ended."""
        return all(text.ending is not None for text in self.texts)


def compare(
    a: Side,
    b: Side,
    prompt: str,
    *,
    time_limit: float | None = TIME_LIMIT,
    interval: float = DRAFT_INTERVAL,
    should_stop: Callable[[], bool] | None = None,
) -> Generator[Comparison, None, None]:
    """Continue `prompt` twice; yield both texts about every `interval` seconds, and once more at the end.

    Both sides take A's seed; with None one is drawn, and each comparison names it. `time_limit` in seconds is for both
    together. Closing the generator ends the computing.

    Raises ValueError for a masked model, and for what `modeling.generation.stream` refuses."""
    prompt = replace_surrogates(prompt)
    seed = draw_seed() if a.settings.seed is None else a.settings.seed
    shown = time.monotonic()
    with contextlib.ExitStack() as stack:
        sides = []
        for side in (a, b):
            settings = dataclasses.replace(side.settings, seed=seed)
            drafts = generate(side.loaded, prompt, settings, time_limit=time_limit, interval=0, should_stop=should_stop)
            sides.append(_Progress(side.loaded, prompt, settings, stack.enter_context(contextlib.closing(drafts))))
        shares_tokens = share_tokens(a.loaded.tokenizer, b.loaded.tokenizer)
        now = Comparison(prompt=prompt, seed=seed, shares_tokens=shares_tokens)
        find = _diverge_at_a_token if shares_tokens else _diverge_at_a_character
        while not now.is_over:
            for side in sides:
                side.advance()
            texts = (sides[0].state(), sides[1].state())
            divergence = _updated(now.divergence, *sides) if now.divergence else find(*sides)
            now = dataclasses.replace(now, texts=texts, divergence=divergence)
            if now.is_over or time.monotonic() - shown >= interval or texts[0].tokens == texts[1].tokens == 1:
                shown = time.monotonic()
                yield now


def compare_settings(
    loaded: LoadedModel, prompt: str, a: SamplingSettings, b: SamplingSettings
) -> Generator[Comparison, None, None]:
    """`compare` for two settings of one model: data alone, for `ModelLoader.stream`."""
    yield from compare(Side(loaded=loaded, settings=a), Side(loaded=loaded, settings=b), prompt)


def share_tokens(a: Any, b: Any) -> bool:
    """Whether two tokenizers have the same tokens under the same ids."""
    return a is b or (len(a) == len(b) and a.get_vocab() == b.get_vocab())


def first_difference(a: Sequence[object], b: Sequence[object]) -> int | None:
    """The first index at which both have something and it is not the same; None where there is none."""
    return next((index for index, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), None)


class _Progress:
    """What one side has generated."""

    def __init__(
        self, loaded: LoadedModel, prompt: str, settings: SamplingSettings, drafts: Generator[Draft, None, None]
    ) -> None:
        self.loaded, self.prompt, self.settings, self.drafts = loaded, prompt, settings, drafts
        self.prompt_ids = encode_prompt(loaded, prompt)
        self.text, self.bits = "", 0.0
        self.ending: Ending | None = None
        self.tokens: list[Token] = []
        self.ends: list[int] = []  # characters of `text` when each of them was generated
        self.used: list[int] = []  # tokens that the model saw when it generated each of them

    @property
    def ids(self) -> list[int]:
        """The tokens so far."""
        return [token.token_id for token in self.tokens]

    def advance(self) -> None:
        """Generate one token, if the text is not over."""
        if self.ending is not None:
            return
        draft = next(self.drafts)
        self.text, self.ending = draft.text[len(self.prompt) :], draft.ending
        for token in draft.tokens:
            self.tokens.append(token)
            self.bits += token.surprisal
            self.ends.append(len(self.text))
            self.used.append(draft.context_used)

    def state(self) -> Text:
        """What is generated so far."""
        count = self._byte_count() if self.ending is not None else len(self.text.encode())
        return Text(text=self.text, tokens=len(self.tokens), byte_count=count, bits=self.bits, ending=self.ending)

    def with_end(self, items: Sequence[T]) -> list[T | int]:
        """Tokens or characters, with END behind them when the model has ended the text."""
        return [*items, END] if self.ending == "stop_token" else [*items]

    def logits(self, index: int) -> Tensor:
        """The logits (V) from which its token at `index` was drawn."""
        from modeling.inspection import next_token_logits

        return next_token_logits(self.loaded.model, [*self.prompt_ids, *self.ids[:index]][-self._seen(index) :])

    def branch(self, index: int, probabilities: tuple[Probability | None, Probability | None]) -> Branch:
        """What it wrote at `index`, which may be one behind its last token."""
        from tokenization.spans import label

        start = self.ends[index - 1] if index else 0
        name = None if index == len(self.tokens) else label(self.loaded.tokenizer, self.tokens[index].token_id)
        return Branch(label=name, index=index, start=start, end=self.end_of(index), probabilities=probabilities)

    def end_of(self, index: int) -> int:
        """Where the text of its token at `index` ends."""
        start = self.ends[index - 1] if index else 0
        return next((end for end in self.ends[index:] if end > start), len(self.text))

    def probability(self, logits_V: Tensor, index: int, token_id: int) -> Probability:
        """The probability of a token, or of END, at `index` under this side's model and settings."""
        import torch

        from modeling.sampling import Sampler

        before = [*self.prompt_ids, *self.ids[:index]]
        sampler_V = Sampler(self.settings, before, len(logits_V)).distribution(logits_V)
        ids = self.loaded.stop_token_ids if token_id == END else (token_id,)
        known = [each for each in ids if each < len(logits_V)]
        return Probability(float(torch.softmax(logits_V, -1)[known].sum()), float(sampler_V[known].sum()))

    def _seen(self, index: int) -> int:
        """Tokens that the model saw when it generated its token at `index`, or ended the text there."""
        from modeling.generation import next_window

        if index < len(self.used):
            return self.used[index]
        context = self.loaded.context_length
        if self.used:
            return next_window(self.used[-1], context)
        return min(len(self.prompt_ids), context or len(self.prompt_ids))

    def _byte_count(self) -> int:
        """Bytes of the text: those of its tokens, where they are known, for half a character shows as U+FFFD."""
        from tokenization.spans import token_bytes

        contents = [token_bytes(self.loaded.tokenizer, token_id) for token_id in self.ids]
        joined = b"".join(content for content in contents if content is not None)
        return len(joined) if joined.decode("utf-8", "replace") == self.text else len(self.text.encode())


def _diverge_at_a_token(a: _Progress, b: _Progress) -> Divergence | None:
    ids = [side.with_end(side.ids) for side in (a, b)]
    index = first_difference(*ids)
    if index is None:
        return None
    logits = [a.logits(index)]
    logits.append(logits[0] if a.loaded is b.loaded else b.logits(index))  # one model has seen the same
    branches = []
    for side, own in zip((a, b), ids, strict=True):
        probabilities = (a.probability(logits[0], index, own[index]), b.probability(logits[1], index, own[index]))
        branches.append(side.branch(index, probabilities))
    return Divergence(tokens=index, characters=a.ends[index - 1] if index else 0, branches=(branches[0], branches[1]))


def _diverge_at_a_character(a: _Progress, b: _Progress) -> Divergence | None:
    place = first_difference(a.with_end(a.text), b.with_end(b.text))
    if place is None:
        return None
    branches = []
    for number, side in enumerate((a, b)):
        index = next((index for index, end in enumerate(side.ends) if end > place), len(side.tokens))
        if index < len(side.tokens):
            own = Probability(side.tokens[index].model_probability, side.tokens[index].probability)
        else:
            own = side.probability(side.logits(index), index, END)
        branches.append(side.branch(index, (None, own) if number else (own, None)))
    return Divergence(tokens=None, characters=place, branches=(branches[0], branches[1]))


def _updated(divergence: Divergence, *sides: _Progress) -> Divergence:
    """A divergence that was found before, with the characters of its tokens that are complete by now."""
    one, other = (
        dataclasses.replace(branch, end=side.end_of(branch.index))
        for side, branch in zip(sides, divergence.branches, strict=True)
    )
    return dataclasses.replace(divergence, branches=(one, other))
