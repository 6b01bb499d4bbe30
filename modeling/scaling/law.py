"""The law of a training: which bits per byte a model of the recipe `modern` reaches, by its size and what it reads.

Hoffmann et al. (arXiv:2203.15556): loss = floor + A / N^a + B / D^b. Repeated text counts for less, as in Muennighoff
et al. (arXiv:2305.16264). N are the weights of the blocks' matrices, D bytes of text, so that vocabularies compare;
each doubling of the vocabulary brings a little. LAW was fitted by `python -m benchmarks laws` to its runs on books.

Another text is easier or harder by about as much as bzip2 makes it smaller or larger than the books.
"""

import bz2
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

SAMPLE_BYTES = 300_000
"""Bytes of a text, at most, from which its difficulty is taken: …"""
PIECE, SPACING = 4_000, 32_000
"""… so many of every so many, so that one chapter does not stand for all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Law:
    """The numbers of the law, for the books of the study."""

    floor: float
    """Bits per byte that no size and no amount of text would go below."""
    size_factor: float
    size_exponent: float
    data_factor: float
    data_exponent: float
    vocabulary_gain: float
    """Bits per byte for each doubling of the vocabulary, from 2,048 tokens on (below: lost)."""
    repeats: float
    """How many readings of a text, after the first one, are worth as much new text at most."""
    compression: tuple[tuple[int, float], ...]
    """What bzip2 needs for the beginning of the books' sample: (bytes, bits per byte), by rising bytes."""

    def bits_per_byte(self, weights: float, vocabulary: int, seen_bytes: float, text_bytes: float) -> float:
        """Of held-out text of the books, after a training.

        Args:
            weights: of the blocks' matrices.
            vocabulary: its tokens.
            seen_bytes: of all steps.
            text_bytes: of the training text; what is read beyond it is repeated.
        """
        worth = worth_of(seen_bytes, text_bytes, self.repeats)
        by_size = self.size_factor * weights**-self.size_exponent
        by_data = self.data_factor * worth**-self.data_exponent
        return self.floor + by_size + by_data - self.vocabulary_gain * doublings(vocabulary)

    def difficulty(self, sample: bytes) -> float:
        """How many times as many bits a text needs as the books, by a sample of at least one byte (`sample_of`)."""
        return compressed_bits(sample) / self._books_bits(len(sample))

    def _books_bits(self, size: int) -> float:
        """What bzip2 needs for so many bytes of the books, in bits per byte."""
        return between(self.compression, size)


def between(points: Sequence[tuple[int, float]], x: float) -> float:
    """The value at `x` on lines over the logarithm between (x, value), by rising x; beyond them that of the nearest."""
    x = min(max(x, points[0][0]), points[-1][0])
    (low, below), (high, above) = next(pair for pair in pairwise(points) if x <= pair[1][0])
    return below + math.log(x / low) / math.log(high / low) * (above - below)


def doublings(vocabulary: int) -> float:
    """Of 2,048 tokens."""
    return math.log2(vocabulary / 2048)


def worth_of(seen_bytes: float, text_bytes: float, repeats: float) -> float:
    """Bytes of new text that reading so many bytes of a text is worth."""
    unique = min(seen_bytes, text_bytes)
    repeated = seen_bytes / unique - 1
    return unique * (1 + repeats * (1 - math.exp(-repeated / repeats)))


def compressed_bits(sample: bytes) -> float:
    """Bits per byte that bzip2 needs."""
    return 8 * len(bz2.compress(sample)) / len(sample)


def sample_of(texts: Iterable[str]) -> bytes:
    """Pieces of some texts, for `Law.difficulty`; of no more texts than it takes."""
    sample, buffer = bytearray(), bytearray()
    for text in texts:
        buffer += text.encode("utf-8", "replace")
        while len(buffer) >= SPACING:
            sample += buffer[:PIECE]
            del buffer[:SPACING]
        if len(sample) >= SAMPLE_BYTES:
            break
    return bytes((sample + buffer[:PIECE])[:SAMPLE_BYTES])


LAW = Law(
    floor=0.829312,
    size_factor=70.917,
    size_exponent=0.5,
    data_factor=15.3181,
    data_exponent=0.18,
    vocabulary_gain=0.028391,
    repeats=3.0,
    compression=(
        (1_000, 4.864),
        (3_000, 3.9733),
        (10_000, 3.4184),
        (30_000, 2.9053),
        (100_000, 2.6911),
        (300_000, 2.5181),
    ),
)
