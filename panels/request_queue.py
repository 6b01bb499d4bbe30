"""The request queue in front of the model: first come, first served, a few requests at a time."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

WORKERS = max(1, os.cpu_count() or 1)
"""Requests that compute at a time: each keeps about one core busy."""
LIMIT = 32
"""Requests in the queue at most, those that compute included."""
REPORT_INTERVAL = 0.25
"""Seconds between two reports of a waiting request's position."""
POLL_INTERVAL = 0.05
"""Seconds after which a waiting request notices that it was stopped."""


class QueueFullError(ValueError):
    """The request queue takes no more requests now."""


class RequestQueue:
    """Requests compute in the order in which they came, `workers` at a time; at most `limit` are let in.

    Gradio's own queue cannot replace it: docs/decisions says why."""

    def __init__(self, *, workers: int = WORKERS, limit: int = LIMIT) -> None:
        assert 0 < workers <= limit
        self.workers, self.limit = workers, limit
        self._tickets: list[Ticket] = []
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._tickets)

    @contextlib.contextmanager
    def join(self) -> Iterator[Ticket]:
        """Stand in the queue for the block.

        Raises QueueFullError, a ValueError, when the queue is full."""
        ticket = Ticket(self)
        with self._changed:
            if len(self) >= self.limit:
                raise QueueFullError(
                    f"The request queue is full: {self.workers} requests compute and {self.limit - self.workers} wait. "
                    "Nothing was done; try again in a minute."
                )
            self._tickets.append(ticket)
        try:
            yield ticket
        finally:
            with self._changed:
                self._tickets.remove(ticket)
                self._changed.notify_all()

    def ahead_of(self, ticket: Ticket, seconds: float = 0.0) -> int:
        """How many requests must end before this one computes, as soon as that is 0 or after at most `seconds`."""

        def ahead() -> int:
            return max(0, self._tickets.index(ticket) - self.workers + 1)

        with self._changed:
            self._changed.wait_for(lambda: ahead() == 0, timeout=seconds)
            return ahead()


class Ticket:
    """One request's place in the queue."""

    def __init__(self, queue: RequestQueue) -> None:
        self._queue = queue

    def wait_for_turn(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[int]:
        """Yield how many requests are ahead, every REPORT_INTERVAL, until there is none or `should_stop()`."""
        reported = time.monotonic()
        while not should_stop() and (ahead := self._queue.ahead_of(self, POLL_INTERVAL)):
            if time.monotonic() - reported >= REPORT_INTERVAL:
                reported = time.monotonic()
                yield ahead


@dataclass(slots=True)
class LatestRequest:
    """The requests of one visitor to one tab, of which only the latest counts."""

    number: int = 0
    stopped: bool = False  # by the Stop button, not by a newer request

    def begin(self) -> Callable[[], bool]:
        """Start a request. Returns what tells it whether to stop: a newer one started, or Stop was pressed."""
        self.number, self.stopped = self.number + 1, False
        number = self.number
        return lambda: number != self.number

    def stop(self) -> None:
        """Stop the present request."""
        self.number, self.stopped = self.number + 1, True


def waiting_message(ahead: int) -> str:
    """The position in the queue, for the status line."""
    return f"Waiting: {'1 request is' if ahead == 1 else f'{ahead} requests are'} ahead of yours."
