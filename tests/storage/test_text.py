"""Texts as UTF-8 can hold them, and numbers as people read them."""

import pytest

from storage.records import flatten
from storage.text import count_bytes, duration, first_line, replace_surrogates, unix_newlines


@pytest.mark.parametrize(
    ("text", "written"),
    [("abc", "abc"), ("é\ud83d\ude00", "é😀"), ("\ud83d", "\ufffd"), ("a\ude00\ud83dé", "a\ufffd\ufffdé")],
)
def test_surrogates_become_what_utf8_can_hold(text: str, written: str) -> None:
    assert replace_surrogates(text) == written
    assert count_bytes(text) == len(written.encode())


def test_line_ends() -> None:
    assert unix_newlines("a\r\nb\rc\n\r\n") == "a\nb\nc\n\n"
    assert unix_newlines("a\n") == "a\n"


def test_an_error_in_one_line() -> None:
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(ValueError("x" * 400)) == "x" * 300
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "less than a second"),
        (0.4, "less than a second"),
        (0.6, "1 s"),
        (60, "1 min"),
        (143.4, "2 min 23 s"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (7201, "2 h 1 s"),
    ],
)
def test_seconds_in_their_largest_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_nested_objects_by_dotted_names() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [2]}
    assert flatten(3, "x") == {"x": 3}
