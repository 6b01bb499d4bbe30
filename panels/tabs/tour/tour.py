"""One text on its way through a model, from tokens to the next token: the numbers of the guided tour.

All of them are the model's own for that very text: tokens and embeddings, what the logit lens reads at its last token,
where that token attends to, the probabilities of the next token, and the draw. Plain data, without Gradio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from panels.generate import check_text, check_writes, encode_prompt
from storage.text import replace_surrogates

if TYPE_CHECKING:
    from modeling.sampling import SamplingSettings
    from panels.models import LoadedModel

TEXT_LIMIT = 300
"""Characters of a text."""
TOKEN_LIMIT = 48
"""Tokens of a text, which are shown one by one; a model with a shorter context takes fewer."""
DIMENSIONS = 64
"""Numbers of each embedding that are shown, its first ones."""
NEAREST, LENS_TOP, LIKELIEST, SEGMENTS = 3, 3, 10, 8
"""Tokens like each token, guesses after each layer, next tokens, and next tokens on the line of the draw."""


class Token(NamedTuple):
    """A token of the text."""

    token_id: int
    label: str
    is_added: bool  # the model puts it in front of every text


class Embedding(NamedTuple):
    """The embedding of a token."""

    numbers: list[float]  # its first DIMENSIONS
    nearest: list[tuple[str, float]]  # labels of the tokens most like it, and their cosine similarity


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """Where the last token attends to."""

    mean: list[list[float]]  # [layer][token]: the mean over the heads; a layer adds up to 1
    strongest: list[tuple[int, int, float]]  # of each layer: head, token, weight; neither the first nor the last token
    heads: int


class NextToken(NamedTuple):
    """A token that may come next."""

    label: str
    probability: float  # under the model
    sampled: float  # with which the sampler would draw it; 0 where it is cut


class Segment(NamedTuple):
    """A part of the line from 0 to 1 on which the tokens lie side by side, each as long as its probability."""

    label: str  # of the token; of several tokens, how many
    start: float
    end: float
    is_drawn: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """The drawn token."""

    label: str
    token_id: int
    probability: float  # with which it was drawn
    seed: int
    uniform: float | None  # the random number that chose it; None when greedy
    segments: list[Segment]
    ends_text: bool  # it is a token that ends a text
    text: str | None  # the text with it; None where it adds no complete character


@dataclass(frozen=True, kw_only=True, slots=True)
class Tour:
    """The numbers of a tour. Where a model cannot be looked into, the reason stands in place of the numbers."""

    text: str
    tokens: list[Token]
    vocabulary: int  # tokens that the model knows
    width: int  # numbers of an embedding
    embeddings: list[Embedding]  # of each token
    layers: list[list[tuple[str, float]]] | str  # what each layer would predict: labels and probabilities; 0: the input
    attention: Attention | str
    following: list[NextToken]  # the likeliest, in that order
    kept: int  # tokens that the sampler can draw
    settings: SamplingSettings
    draw: Draw


def take_tour(
    loaded: LoadedModel, text: str, settings: SamplingSettings, *, should_stop: Callable[[], bool] | None = None
) -> Tour:
    """The numbers of a text on its way through the model, and a next token drawn with `settings` and their seed.

    Raises:
        ValueError: for a masked model, a text that is empty or too long, or a model whose logits are NaN.
        StoppedError: when `should_stop()`.
    """
    from modeling import inspection
    from modeling.generation import StoppedError
    from modeling.sampling import Sampler
    from tokenization.spans import label

    def go_on() -> None:
        if should_stop is not None and should_stop():
            raise StoppedError

    check_writes(loaded, "it draws no next token, which the tour is about")
    text = replace_surrogates(check_text(text, limit=TEXT_LIMIT, may_be_empty=False))
    ids = _ids_of(loaded, text)
    model, tokenizer = loaded.model, loaded.tokenizer
    added = len(loaded.prefix_ids)
    logits_V = inspection.next_token_logits(model, ids)
    sampler = Sampler(settings, ids, len(logits_V))
    drawn = sampler.draw(logits_V, alternatives=LIKELIEST)
    go_on()
    similar = inspection.nearest_embeddings(model, ids, NEAREST, size=len(tokenizer))
    vectors_NE = inspection.embeddings(model, ids)
    go_on()
    layers = _or_why_not(lambda: inspection.logit_lens(model, ids, LENS_TOP, last=1))
    go_on()
    weights = _or_why_not(lambda: inspection.attention(model, ids))
    return Tour(
        text=text,
        tokens=[Token(each, label(tokenizer, each), place < added) for place, each in enumerate(ids)],
        vocabulary=len(logits_V),
        width=vectors_NE.shape[1],
        embeddings=[
            Embedding(numbers, [(label(tokenizer, each), cosine) for each, cosine in found])
            for numbers, found in zip(vectors_NE[:, :DIMENSIONS].tolist(), similar, strict=True)
        ],
        layers=layers
        if isinstance(layers, str)
        else [[(label(tokenizer, each), share) for each, share in row[-1]] for row in layers],
        attention=weights if isinstance(weights, str) else _attention_of_the_last(weights),
        following=[NextToken(label(tokenizer, each), *shares) for each, *shares in drawn.alternatives],
        kept=drawn.kept,
        settings=settings,
        draw=_describe(loaded, text, settings, drawn, *Sampler(settings, ids, len(logits_V)).candidates(logits_V)),
    )


def _ids_of(loaded: LoadedModel, text: str) -> list[int]:
    """The ids that the model reads, with what it puts in front; ValueError where there are none or too many."""
    from tokenization import plain_ids

    if not plain_ids(loaded.tokenizer, text):
        raise ValueError("The tokenizer of this model makes no token of this text: add a word.")
    ids = encode_prompt(loaded, text)
    limit = min(TOKEN_LIMIT, loaded.context_length or TOKEN_LIMIT)
    if len(ids) > limit:
        raise ValueError(
            f"text: expected at most {limit} tokens, each of which the tour shows, got {len(ids)}. Take a shorter one."
        )
    return ids


def _or_why_not(look: Callable[[], Any]) -> Any:
    """What `look()` finds, or why this model shows nothing."""
    try:
        return look()
    except ValueError as error:
        return str(error)


def _attention_of_the_last(weights_LHQK: Any) -> Attention:
    last_LHK = weights_LHQK[:, :, -1]
    count = last_LHK.shape[-1]
    # Heads that look for nothing rest on the first token, and many look at the token itself: that says little.
    telling_LHK = last_LHK[:, :, 1:-1]
    strongest = []
    for layer, telling_HK in enumerate(telling_LHK if count > 2 else ()):
        head, key = divmod(int(telling_HK.argmax()), count - 2)
        strongest.append((head, key + 1, last_LHK[layer, head, key + 1].item()))
    return Attention(mean=last_LHK.mean(1).tolist(), strongest=strongest, heads=last_LHK.shape[1])


def _describe(
    loaded: LoadedModel, text: str, settings: SamplingSettings, drawn: Any, ids_C: Any, probability_C: Any
) -> Draw:
    """The draw: its line of candidates, and what it makes of the text."""
    from tokenization.spans import label

    ids, ends = ids_C.tolist(), probability_C.double().cumsum(0).tolist()
    place = ids.index(drawn.token_id)
    segments: list[Segment] = []

    def add(first: int, last: int) -> None:
        """Candidates `first` to `last` as one segment."""
        if first <= last:
            alone = label(loaded.tokenizer, ids[first]) if first == last else f"{last - first + 1:,} others"
            segments.append(Segment(alone, ends[first - 1] if first else 0.0, ends[last], first == last == place))

    for index in range(min(SEGMENTS, len(ids))):
        add(index, index)
    if place < SEGMENTS:
        add(SEGMENTS, len(ids) - 1)
    else:
        for first, last in ((SEGMENTS, place - 1), (place, place), (place + 1, len(ids) - 1)):
            add(first, last)
    assert settings.seed is not None
    return Draw(
        label=label(loaded.tokenizer, drawn.token_id),
        token_id=drawn.token_id,
        probability=drawn.probability,
        seed=settings.seed,
        uniform=drawn.uniform,
        segments=segments,
        ends_text=drawn.token_id in loaded.stop_token_ids,
        text=_with_token(loaded, text, drawn.token_id),
    )


def _with_token(loaded: LoadedModel, text: str, token_id: int) -> str | None:
    """The text with a token behind it; None for one that adds no complete character, or ends the text."""
    from tokenization import StreamingDecoder, plain_ids

    if token_id in loaded.stop_token_ids:
        return None
    decoder = StreamingDecoder(loaded.tokenizer)
    decoder.follow(plain_ids(loaded.tokenizer, text))
    piece = decoder.push(token_id) + decoder.finish()
    return None if not piece or "\ufffd" in piece else text + replace_surrogates(piece)
