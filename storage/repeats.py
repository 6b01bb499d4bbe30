"""Where tokens stand word for word in a split: windows of tokens by their hash."""

from collections.abc import Sequence

import numpy as np

from storage.shards import TokenSplit

CHUNK = 2**18
"""Tokens of a split that are looked at together."""
FACTOR = np.uint64(0x9E3779B97F4A7C15)


def hashes(ids: np.ndarray, window: int) -> np.ndarray:
    """A number for each `window` tokens that follow each other: a polynomial modulo 2^64; uint64 in and out."""
    count = max(0, len(ids) - window + 1)
    total = ids[:count].copy()
    for offset in range(1, window):
        total *= FACTOR
        total += ids[offset : offset + count]
    return total * FACTOR


def repeated_windows(
    split: TokenSplit, texts: Sequence[Sequence[int]], window: int, *, chunk: int = CHUNK
) -> list[np.ndarray]:
    """Which windows of some texts stand word for word in a split, which is read once for all of them.

    Equal hashes count as equal windows: with 64 bits, one of 10^9 comparisons of a window with 10^9 others errs.

    Args:
        split: what is searched, chunk by chunk.
        texts: token ids of each text.
        window: tokens of a window.

    Returns:
        For each text of L ids a truth value for each of its L - window + 1 windows; none where there are fewer ids.
    """
    each = [hashes(np.asarray(ids, dtype=np.uint64), window) for ids in texts]
    own = np.concatenate([np.empty(0, dtype=np.uint64), *each])
    is_there = np.zeros(len(own), dtype=bool)
    places = len(split) - window + 1
    for start in range(0, max(0, places) if len(own) else 0, chunk):
        end = min(start + chunk, places)
        there = hashes(split.read(start, end - start + window - 1).astype(np.uint64), window)
        is_there |= np.isin(own, there)
    return np.split(is_there, np.cumsum([len(windows) for windows in each])[:-1]) if each else []
