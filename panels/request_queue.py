"""The waiting line in front of the model: who writes now, and how many are before whom."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

WIDTH = max(1, os.cpu_count() or 1)
"""Writers at a time: each keeps about one core busy."""
LIMIT = 32
"""Places, those of the present writers included."""
PACE = 0.25
"""Seconds between two words on how long the line still is."""
STEP = 0.05
"""Seconds after which one who waits notices that there is no need to any more."""


class Line:
    """People are served in the order in which they came, `width` at a time; at most `limit` are let in."""

    def __init__(self, *, width: int = WIDTH, limit: int = LIMIT) -> None:
        assert 0 < width <= limit
        self.width, self.limit = width, limit
        self._numbers = itertools.count()
        self._places: list[int] = []
        self._changed = threading.Condition()

    def enter(self) -> Place:
        """Take the last place of the line; leave it by leaving its `with`.

        Raises ValueError when the line is full."""
        with self._changed:
            if len(self._places) >= self.limit:
                raise ValueError(
                    f"Too many people at once: {self.width} have their turn and {self.limit - self.width} wait. "
                    "Nothing was done; try again in a minute."
                )
            number = next(self._numbers)
            self._places.append(number)
            return Place(self, number)

    def before(self, number: int) -> int:
        """How many must leave before the place with this number is served; 0: it is its turn."""
        return max(0, self._places.index(number) - self.width + 1)

    def wait(self, number: int, seconds: float) -> int:
        """`before`, after at most `seconds` or as soon as it has become 0."""
        with self._changed:
            self._changed.wait_for(lambda: self.before(number) == 0, timeout=seconds)
            return self.before(number)

    def leave(self, number: int) -> None:
        """Give the place up."""
        with self._changed:
            self._places.remove(number)
            self._changed.notify_all()


class Place:
    """One place in a line."""

    def __init__(self, line: Line, number: int) -> None:
        self._line, self._number = line, number

    def wait(self, seconds: float) -> int:
        """How many are before this one, after at most `seconds`; 0: it is its turn."""
        return self._line.wait(self._number, seconds)

    def until_turn(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[int]:
        """How many are before this one, every `PACE` seconds, until it is its turn or `should_stop()`."""
        said = time.monotonic()
        while not should_stop() and (ahead := self.wait(STEP)):
            if time.monotonic() - said >= PACE:
                said = time.monotonic()
                yield ahead

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.leave(self._number)


@dataclass(slots=True)
class Visitor:
    """One visitor of a tab whose newest request alone counts."""

    newest: int = 0
    stopped: bool = False  # by hand

    def ask(self) -> Callable[[], bool]:
        """Begin a request. Returns what tells it whether to stop: a newer one came, or Stop was pressed."""
        self.newest, self.stopped = self.newest + 1, False
        number = self.newest
        return lambda: number != self.newest

    def stop(self) -> None:
        """End the present request."""
        self.newest, self.stopped = self.newest + 1, True


def waiting(ahead: int) -> str:
    """What one reads who has so many in front."""
    return f"Waiting: {'1 person is' if ahead == 1 else f'{ahead} people are'} before you."
