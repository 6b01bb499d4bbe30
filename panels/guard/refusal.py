"""The answer to a request that is refused."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

user_errors: ContextVar[list[str] | None] = ContextVar("user_errors", default=None)
"""The errors of the request that is being answered which its client is to blame for: the page adds them, the middleware
reads them. None: nobody reads them."""


class RefusedError(ValueError):
    """A request that is refused before the page sees it.

    Args:
        status: of HTTP, from 400 to 499.
        message: what was expected, what was got, what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def shown(value: Any) -> str:
    """A wrong value for a message, in ASCII and cut short."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer with too many digits, or something too deep
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."
