"""A text of any size that meets new words for ever, as text does: what a vocabulary counts grows with it."""

import random
from pathlib import Path

import numpy as np

FLATNESS, EXPONENT = 50, 0.6
"""The word of rank r comes up with the probability of Zipf-Mandelbrot's law, about (r + FLATNESS) ^ -(1 + EXPONENT)."""
BLOCK = 200_000
"""Words that are drawn at a time."""
SPELT_BEFOREHAND = 200_000
SYLLABLES = [first + second for first in "bcdfghklmnprstvwz" for second in ("a", "e", "i", "o", "u", "ar", "en", "is")]


def spell(rank: int) -> str:
    """The word of a rank from 0 on; no two are the same, and rare ones are longer."""
    word = ""
    while True:
        rank, syllable = divmod(rank, len(SYLLABLES))
        word = SYLLABLES[syllable] + word
        if not rank:
            return word
        rank -= 1


def write_words(path: Path, size: int, seed: int = 0) -> None:
    """A file of `size` bytes: lines of sentences, an empty line after every few, a number now and then."""
    draw, ends = np.random.default_rng(seed), random.Random(seed)
    common = [spell(rank) for rank in range(SPELT_BEFOREHAND)]
    with path.open("wb") as stream:
        while (left := size - stream.tell()) > 0:
            shares = (1 - draw.random(BLOCK)) ** (-1 / EXPONENT)
            ranks = np.minimum(FLATNESS * (shares - 1), 2**62).astype(np.int64).tolist()
            words = [common[rank] if rank < SPELT_BEFOREHAND else spell(rank) for rank in ranks]
            parts = []
            start = 0
            while start < BLOCK:
                length = ends.randint(4, 24)
                sentence = " ".join(words[start : start + length]).capitalize()
                number = f" {ends.randint(1, 9999)}" if not ends.randrange(8) else ""
                parts.append(sentence + number + ends.choice((". ", ". ", ".\n", "?\n", ".\n\n")))
                start += length
            stream.write("".join(parts).encode()[:left])
