"""The embedded default corpus: short stories of a small world, with their exact probabilities.

Story i of a seed is a function of (seed, i) alone. Its log-probability is that of its text under the grammar, end
included, so the mean over held-out stories is the floor: no model can expect to predict them in fewer bits.
"""

import math
import random
from collections.abc import Iterable, Iterator

from corpus.documents import Document
from corpus.stories.grammar import NotAStoryError, Parser, Sampler
from corpus.stories.plots import GRAMMAR


def generate_stories(*, seed: int, count: int, start: int = 0) -> Iterator[Document]:
    """Stories number `start` to `start + count - 1` of a seed, named "story 17", each with its log-probability.

    Args:
        seed: any integer; another seed gives other stories.
        count: how many stories.
        start: number of the first one.
    """
    for index in range(start, start + count):
        walker = Sampler(GRAMMAR, random.Random(f"{seed}:{index}"))
        walker.walk()
        yield Document(text=walker.text, name=f"story {index}", log_probability=walker.log_probability)


def log_probability(text: str) -> float:
    """Exact log-probability of a text under the grammar, in nats; -inf when it is not a story of the grammar."""
    walker = Parser(GRAMMAR, text)
    try:
        walker.walk()
    except NotAStoryError:
        return -math.inf
    return walker.log_probability


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
