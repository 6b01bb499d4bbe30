"""How long a command has run: `--minutes` counts from its entry. The process may be hours older, as a notebook's kernel
is, or a shell that slept before it became this command."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_begun: ContextVar[float | None] = ContextVar("begun", default=None)


@contextmanager
def counted() -> Generator[None]:
    """A block, or a function that it decorates, from whose entry `command_seconds` counts; inside of another one, from
    the entry of that."""
    if _begun.get() is not None:
        yield
        return
    token = _begun.set(time.monotonic())
    try:
        yield
    finally:
        _begun.reset(token)


def command_seconds() -> float:
    """Seconds since the entry of the outermost `counted` block.

    Raises:
        LookupError: outside of any.
    """
    begun = _begun.get()
    if begun is None:
        raise LookupError("command_seconds: expected a call inside of counted(), got one outside of it")
    return time.monotonic() - begun
