"""What to expect of a model that trains for a time: its steps, by measured ones, and its loss, by the law."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from modeling.scaling.law import LAW, between
from modeling.scaling.shapes import CONTEXT, SHAPES, Shape

BATCH = 8
"""Windows of a step: small batches learn more from the same tokens (docs/log.md)."""
VOCABULARIES = (1024, 2048, 4096, 8192)
BYTES_PER_MERGE = 32
"""Bytes of text for each merge of the vocabulary, at least."""
WEIGHTS_PER_BYTE = 5
"""Weights of the blocks for each byte of text, at most: a larger model learns a short text by heart."""
LEAST_BYTES = 2000
"""Bytes of the shortest text that a training is chosen for."""
LEAST_STEPS = 30
"""Fewer steps teach nothing, whatever the model."""
MOST_PASSES = 20
"""Readings of a text after which another one teaches nothing new."""
BYTES_PER_TOKEN = ((257, 1.0), (1024, 2.57), (2048, 3.05), (4096, 3.53), (8192, 3.95), (16384, 4.3))
"""Of English books, by the size of a vocabulary that was trained on them; in between on a line over the logarithm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """What the law needs of a text."""

    bytes: int
    """Of its training part."""
    difficulty: float
    """Beside the books of the law (`Law.difficulty`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A training that fits a time, and what is expected of it."""

    shape: Shape
    vocabulary: int
    steps: int
    passes: float
    """How often the text is read."""
    bits_per_byte: float
    """Expected, of held-out text."""


def choose(
    seconds: float,
    step_seconds: Callable[[Shape, int], float],
    text: Text,
    *,
    step_tokens: int = BATCH * CONTEXT,
    shapes: Iterable[Shape] = tuple(SHAPES.values()),
    vocabularies: Iterable[int] | None = None,
) -> Choice | None:
    """The training with the lowest expected loss; None where not even the quickest has LEAST_STEPS.

    Args:
        seconds: for all steps.
        step_seconds: of a shape and a size of the vocabulary.
        text: what is trained on.
        step_tokens: of a step.
        shapes, vocabularies: to choose from; None: the vocabularies that the text is long enough for.
    """
    options = [
        choice
        for vocabulary in vocabularies or vocabularies_for(text.bytes)
        for shape in shapes_for(text.bytes, shapes)
        if (choice := expect(shape, vocabulary, seconds, step_seconds(shape, vocabulary), text, step_tokens))
    ]
    return min(options, key=lambda choice: choice.bits_per_byte, default=None)


def expect(
    shape: Shape,
    vocabulary: int,
    seconds: float,
    step_seconds: float,
    text: Text,
    step_tokens: int = BATCH * CONTEXT,
) -> Choice | None:
    """What to expect of one training; None where it has fewer than LEAST_STEPS. The arguments are those of `choose`."""
    step_bytes = step_tokens * bytes_per_token(vocabulary)
    useful = max(LEAST_STEPS, int(MOST_PASSES * text.bytes / step_bytes))
    steps = min(int(seconds / step_seconds), useful)
    if steps < LEAST_STEPS:
        return None
    seen = steps * step_bytes
    return Choice(
        shape=shape,
        vocabulary=vocabulary,
        steps=steps,
        passes=seen / text.bytes,
        bits_per_byte=text.difficulty * LAW.bits_per_byte(shape.weights, vocabulary, seen, text.bytes),
    )


def shapes_for(text_bytes: float, shapes: Iterable[Shape]) -> list[Shape]:
    """The shapes that a text is long enough for; at least the narrowest."""
    narrow_first = sorted(shapes, key=lambda shape: shape.weights)
    return [shape for shape in narrow_first if shape.weights <= WEIGHTS_PER_BYTE * text_bytes] or narrow_first[:1]


def vocabularies_for(text_bytes: float) -> list[int]:
    """The sizes of a vocabulary to choose from: the two largest that a text is long enough for.

    Smaller ones lost wherever they were tried beside them, by more than the law makes of it (docs/log.md).
    """
    most = 257 + int(text_bytes / BYTES_PER_MERGE)
    return [size for size in VOCABULARIES if size <= most][-2:] or [most]


def bytes_per_token(vocabulary: int) -> float:
    """Of English prose, at a guess."""
    return between(BYTES_PER_TOKEN, vocabulary)
