"""The waiting line: order, width, limit, and that nobody is lost in it."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panels.request_queue import PACE, Line, Visitor, waiting


@given(st.integers(1, 4), st.lists(st.integers(0, 9), max_size=12))
def test_who_came_first_is_served_first(width: int, leaving: list[int]) -> None:
    line = Line(width=width, limit=10)
    places = [line.enter() for _ in range(10)]
    for index in leaving:
        assert [place.wait(0) for place in places] == [max(0, rank - width + 1) for rank in range(len(places))]
        if index < len(places):
            with places.pop(index):
                pass


def test_a_full_line_says_so_and_lets_in_again() -> None:
    line = Line(width=1, limit=2)
    first, second = line.enter(), line.enter()
    with pytest.raises(ValueError, match=r"^Too many people at once: 1 have their turn and 1 wait\. Nothing was done"):
        line.enter()
    with second:
        pass
    with line.enter() as third, first:
        assert third.wait(0) == 1
    assert third._line is line


def test_a_waiting_place_wakes_when_its_turn_comes() -> None:
    line = Line(width=1, limit=2)
    first, second = line.enter(), line.enter()
    turns: list[int] = []
    waiting = threading.Thread(target=lambda: turns.append(second.wait(30)))
    waiting.start()
    with first:
        assert turns == []
    waiting.join(10)
    assert turns == [0]


def test_who_waits_is_told_again_and_again_and_may_leave() -> None:
    line = Line(width=1, limit=4)
    places = [line.enter() for _ in range(3)]
    assert list(places[0].until_turn()) == []
    stop: list[bool] = []
    said = places[2].until_turn(lambda: bool(stop))
    assert [next(said), next(said)] == [2, 2]
    stop.append(True)
    began = time.monotonic()
    assert list(said) == []
    assert time.monotonic() - began < 0.2
    leaving = threading.Timer(2 * PACE, lambda: places[0].__exit__(None, None, None))
    leaving.start()
    assert set(places[1].until_turn()) == {1}
    leaving.join()
    assert [waiting(1), waiting(2)] == ["Waiting: 1 person is before you.", "Waiting: 2 people are before you."]


def test_a_visitors_newest_request_counts() -> None:
    visitor = Visitor()
    first = visitor.ask()
    assert not first()
    second = visitor.ask()
    assert (first(), second()) == (True, False)
    assert not visitor.stopped
    visitor.stop()
    assert (first(), second(), visitor.stopped) == (True, True, True)
    visitor.ask()
    assert not visitor.stopped
