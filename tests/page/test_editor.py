"""The field of the Write tab: Undo and Redo on keyboards of any script."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.page.writing import field
from tests.serving import Window

PRESS = """
(area, [key, code, shiftKey]) => area.dispatchEvent(
  new KeyboardEvent("keydown", { key, code, shiftKey, ctrlKey: true, bubbles: true, cancelable: true }))
"""


@pytest.fixture(scope="module")
def slow_window(browser: Any, slow_address: str) -> Iterator[Window]:
    """The page of a model that takes its time."""
    window = Window(browser, slow_address)
    yield window
    window.page.close()


@pytest.fixture
def page(slow_window: Window) -> Iterator[Any]:
    """The page, as the test before left it."""
    with slow_window.lent() as page:
        yield page


@pytest.mark.parametrize(
    ("undo", "redo"),
    [
        (("z", "KeyZ", False), ("Z", "KeyZ", True)),
        (("я", "KeyZ", False), ("н", "KeyY", False)),  # Russian
        (("ζ", "KeyZ", False), ("Ζ", "KeyZ", True)),  # Greek
        (("ז", "KeyZ", False), ("ט", "KeyY", False)),  # Hebrew
        (("z", "KeyY", False), ("y", "KeyZ", False)),  # German: Z and Y have changed places
        (("z", "KeyW", False), ("Z", "KeyW", True)),  # French
    ],
    ids=["English", "Russian", "Greek", "Hebrew", "German", "French"],
)
def test_undo_and_redo_are_where_a_keyboard_has_them(
    page: Any, undo: tuple[str, str, bool], redo: tuple[str, str, bool]
) -> None:
    field(page).fill("The lamp")
    field(page).fill("")
    for keys, expected in ((undo, "The lamp"), (redo, ""), (undo, "The lamp")):
        assert field(page).evaluate(PRESS, [*keys]) is False  # the browser does nothing of its own
        expect(field(page)).to_have_value(expected)


@pytest.mark.parametrize("keys", [("w", "KeyZ", False), (";", "KeyZ", False)], ids=["French", "Dvorak"])
def test_another_key_in_the_place_of_z_undoes_nothing(page: Any, keys: tuple[str, str, bool]) -> None:
    field(page).fill("The sea")
    assert field(page).evaluate(PRESS, [*keys]) is True
    expect(field(page)).to_have_value("The sea")
