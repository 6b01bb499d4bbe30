"""The request queue: order, workers, limit, positions; and that only a visitor's latest request counts."""

import os
import threading
import time
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panels.request_queue import LatestRequest, RequestQueue, waiting_message


@given(st.integers(1, 4), st.lists(st.integers(0, 9), max_size=12))
def test_requests_compute_in_the_order_in_which_they_came(workers: int, leaving: list[int]) -> None:
    queue = RequestQueue(workers=workers, limit=10)
    stacks = [ExitStack() for _ in range(10)]
    tickets = [stack.enter_context(queue.join()) for stack in stacks]
    for index in leaving:
        ahead = [max(0, rank - workers + 1) for rank in range(len(tickets))]
        assert [queue.ahead_of(ticket) for ticket in tickets] == ahead
        if index < len(tickets):
            stacks.pop(index).close()
            tickets.pop(index)


def test_each_core_has_a_request_to_compute() -> None:
    assert RequestQueue().workers == (os.cpu_count() or 1)


def test_a_full_queue_refuses_and_lets_in_again() -> None:
    queue = RequestQueue(workers=1, limit=2)
    with queue.join():
        with queue.join(), pytest.raises(ValueError, match=r"full: 1 requests compute and 1 wait\. Nothing"):
            queue.join().__enter__()
        with queue.join() as again:
            assert queue.ahead_of(again) == 1
    assert len(queue) == 0


def test_a_waiting_request_reports_its_position_and_may_leave() -> None:
    queue = RequestQueue(workers=1, limit=4)
    first = ExitStack()
    assert list(first.enter_context(queue.join()).wait_for_turn()) == []
    with queue.join() as second, queue.join() as third:
        stop: list[bool] = []
        positions = third.wait_for_turn(lambda: bool(stop))
        assert [next(positions), next(positions)] == [2, 2]
        stop.append(True)
        assert list(positions) == []
        positions = second.wait_for_turn()
        assert next(positions) == 1
        first.close()
        assert set(positions) <= {1}
    assert waiting_message(1) == "Waiting: 1 request is ahead of yours."
    assert waiting_message(2) == "Waiting: 2 requests are ahead of yours."


def test_the_position_is_reported_once_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes as written here: each look at it, and the one at which a report is noted."""
    monkeypatch.setattr("panels.request_queue.REPORT_INTERVAL", 0.25)
    looks = iter([100.0, 100.1, 100.25, 100.25, 100.4, 100.5, 100.5, 100.6])
    monkeypatch.setattr("panels.request_queue.time", SimpleNamespace(monotonic=lambda: next(looks)))
    queue = RequestQueue(workers=1, limit=2)
    asked = iter([False] * 5 + [True])
    with queue.join(), queue.join() as second:
        assert list(second.wait_for_turn(lambda: next(asked))) == [1, 1]
    assert list(looks) == []


def test_who_leaves_wakes_those_who_wait() -> None:
    queue = RequestQueue(workers=1, limit=2)
    first = ExitStack()
    first.enter_context(queue.join())
    with queue.join() as second:
        assert queue.ahead_of(second) == 1  # at once, without waiting
        waiting = threading.Thread(target=queue.ahead_of, args=(second, 600.0), daemon=True)
        waiting.start()
        while not queue._changed._waiters:  # pyright: ignore[reportAttributeAccessIssue]
            time.sleep(0.01)
        first.close()
        waiting.join(60)
        assert not waiting.is_alive()


def test_a_visitors_latest_request_counts() -> None:
    requests = LatestRequest()
    assert requests.stopped is False
    first = requests.begin()
    assert not first()
    second = requests.begin()
    assert (first(), second(), requests.stopped) == (True, False, False)
    requests.stop()
    assert (first(), second(), requests.stopped) == (True, True, True)
    requests.begin()
    assert not requests.stopped
