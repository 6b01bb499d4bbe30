"""ZeroGPU, the free hardware of a Hugging Face Space: a GPU that is lent for one call at a time.

There the model stays on the CPU in the page's own process. What `on_gpu` wraps runs in a process forked from it, which
has the GPU; arguments and what comes back travel between the two, so they must be data. Elsewhere nothing changes, and
the package `spaces` need not be installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")

SECONDS = 60
"""How long a GPU is asked for; more is not lent to visitors without an account."""
TIME_LIMIT = 50.0
"""Seconds that one request may compute there, so that it ends by itself before it is ended."""


def is_here() -> bool:
    """Whether this process runs on ZeroGPU."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def on_gpu(generate: Callable[..., Generator[T, None, None]]) -> Callable[..., Generator[T, None, None]]:
    """A generator function that runs with a GPU, where one is lent; itself elsewhere.

    It must be wrapped before the page is launched."""
    if not is_here():
        return generate
    import spaces  # type: ignore[import-not-found]

    return spaces.GPU(duration=SECONDS)(generate)
