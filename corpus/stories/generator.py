"""The embedded default corpus: short stories of a small world, with their exact probabilities.

Story i of a seed is a function of (seed, i) alone. Its log-probability is that of its text under the grammar, end
included, so the mean over held-out stories is the floor: no model can expect to predict them in fewer bits.
"""

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from corpus.documents import Document
from corpus.stories.grammar import NotAStoryError, ReadingTeller, WritingTeller
from corpus.stories.plots import GRAMMAR


def generate_stories(*, seed: int, count: int, start: int = 0) -> Iterator[Document]:
    """Stories number `start` to `start + count - 1` of a seed, named "story 17", each with its log-probability.

    Args:
        seed: any integer; another seed gives other stories.
        count: how many stories.
        start: number of the first one.
    """
    for index in range(start, start + count):
        teller = WritingTeller(GRAMMAR, random.Random(f"{seed}:{index}"))
        teller.walk()
        yield Document(text=teller.text, name=f"story {index}", log_probability=teller.log_probability)


def log_probability(text: str) -> float:
    """Exact log-probability of a text under the grammar, in nats; -inf when it is not a story of the grammar."""
    teller = ReadingTeller(GRAMMAR, text)
    try:
        teller.walk()
    except NotAStoryError:
        return -math.inf
    return teller.log_probability


def bits_per_byte(stories: Iterable[Document]) -> float:
    """The floor on these very stories: their exact information in bits over their bytes in UTF-8.

    The end of a story costs no bits and counts no bytes: a grammar's story ends where it must. Held-out stories scored
    by a model are compared with this number, which has no sampling error of its own.

    Raises:
        ValueError: there are no stories, or one has no log-probability.
    """
    bits, size = 0.0, 0
    for story in stories:
        if story.log_probability is None:
            raise ValueError(
                f"expected documents with a log-probability, got {story.name!r} without one: "
                "only generated stories have a known floor"
            )
        bits -= story.log_probability / math.log(2)
        size += len(story.text.encode())
    if not size:
        raise ValueError("expected at least one story, got none")
    return bits / size


@dataclass(kw_only=True, frozen=True, slots=True)
class StoryEntropy:
    """An estimate of the corpus' entropy from a sample of its stories."""

    bits_per_story: float
    bits_per_story_error: float  # standard error
    bits_per_byte: float
    bits_per_byte_error: float  # standard error of the ratio, to first order
    bytes_per_story: float


def estimate_entropy(*, seed: int = 0, count: int = 2000) -> StoryEntropy:
    """Mean information of a story, and of a byte of a story, over `count` stories (at least 2) of a seed."""
    if count < 2:
        raise ValueError(f"expected at least 2 stories to estimate an error from, got count={count}")
    stories = list(generate_stories(seed=seed, count=count))
    bits = [-(story.log_probability or 0.0) / math.log(2) for story in stories]
    sizes = [len(story.text.encode()) for story in stories]
    mean_bits, mean_size = sum(bits) / count, sum(sizes) / count
    ratio = mean_bits / mean_size
    return StoryEntropy(
        bits_per_story=mean_bits,
        bits_per_story_error=_standard_error([b - mean_bits for b in bits]),
        bits_per_byte=ratio,
        bits_per_byte_error=_standard_error([b - ratio * s for b, s in zip(bits, sizes, strict=True)]) / mean_size,
        bytes_per_story=mean_size,
    )


def _standard_error(deviations: list[float]) -> float:
    count = len(deviations)
    return math.sqrt(sum(d * d for d in deviations) / (count - 1) / count)
