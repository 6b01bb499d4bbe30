"""Peers that take turns, so that whatever else the machine does falls on all of them alike."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from transformers import GPT2Config

VOCABULARY, CONTEXT = 8257, 256


def take_turns(
    peers: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] | None = time.perf_counter,
    *,
    end: float = math.inf,
) -> dict[str, list[Any]]:
    """Seconds of each peer in each round, by this clock, after one call of each that is not measured.

    For peers of one thread `time.process_time` counts what they compute and not what they wait for others. Without a
    clock, a peer returns what counts. No round begins after `end` on `time.monotonic`'s clock, but there is one.
    """
    seconds: dict[str, list[Any]] = {name: [] for name in peers}
    for turn in range(rounds + 1):
        if turn > 1 and time.monotonic() > end:
            break
        for name, peer in peers.items():
            start = clock() if clock else 0.0
            result = peer()
            if turn:
                seconds[name].append(clock() - start if clock else result)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, base: str) -> float:
    """How many times as fast as `base` a peer is: the median of the ratios within a round."""
    return round(statistics.median(b / a for a, b in zip(seconds[name], seconds[base], strict=True)), 2)


def gpt2_config(dropout: float = 0.0) -> GPT2Config:
    """GPT-2 of the science-fiction recipe's size; its width must divide by its heads, so it has 4 heads of 64."""
    return GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=256, n_layer=6, n_head=4, resid_pdrop=dropout,
        embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=VOCABULARY - 1, eos_token_id=VOCABULARY - 1,
    )  # fmt: skip
