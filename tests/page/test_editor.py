"""The field of the Write tab: Undo and Redo on keyboards of any script, and a box that follows the writing."""

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.page.writing import begin, field
from tests.serving import equals, wait_until

PRESS = """
(area, [key, code, shiftKey]) => area.dispatchEvent(
  new KeyboardEvent("keydown", { key, code, shiftKey, ctrlKey: true, bubbles: true, cancelable: true }))
"""
DIRECTIONS = """
() => {
  const [area, layer] = ["textarea", ".layer"].map((name) => document.querySelector(`#document ${name}`));
  const said = (element) => ["direction", "unicodeBidi", "textAlign"].map((name) => getComputedStyle(element)[name]);
  const box = layer.getBoundingClientRect();
  const text = layer.firstChild;
  const share = (place) => {
    const range = document.createRange();
    range.setStart(text, place);
    range.setEnd(text, place + 1);
    const { left, right } = range.getBoundingClientRect();
    return ((left + right) / 2 - box.left) / box.width;
  };
  return { area: said(area), layer: said(layer), shares: [0, text.data.indexOf("T")].map(share) };
}
"""
"""How field and layer lay out a text, and how far from the left its first letter and its first Latin one are."""
AT_END = "paper => paper.scrollTop >= paper.scrollHeight - paper.clientHeight - 2"


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


def test_a_text_from_right_to_left_is_laid_out_so_in_the_field_and_its_layer(page: Any) -> None:
    field(page).fill("שלום עולם\nThe lamp")
    found = page.evaluate(DIRECTIONS)
    assert found["area"] == found["layer"] == ["rtl", "plaintext", "start"]
    hebrew, latin = found["shares"]
    assert hebrew > 0.9
    assert latin < 0.1
    field(page).fill("The lamp, שלום")
    found = page.evaluate(DIRECTIONS)
    assert found["area"] == found["layer"] == ["ltr", "plaintext", "start"]


@pytest.mark.parametrize("keys", [("w", "KeyZ", False), (";", "KeyZ", False)], ids=["French", "Dvorak"])
def test_another_key_in_the_place_of_z_undoes_nothing(page: Any, keys: tuple[str, str, bool]) -> None:
    field(page).fill("The sea")
    assert field(page).evaluate(PRESS, [*keys]) is True
    expect(field(page)).to_have_value("The sea")


def test_the_box_follows_the_writing_until_its_reader_scrolls_up(page: Any) -> None:
    paper = page.locator("#document .paper")

    def grows() -> None:
        before = len(field(page).input_value())
        wait_until(lambda: len(field(page).input_value()) > before + 20)

    field(page).fill("The lamp burned low.\n" * 60)
    paper.evaluate("paper => paper.scrollTo(0, 0)")
    begin(page)
    equals(lambda: paper.evaluate(AT_END), True)  # wherever the reader was before
    grows()
    assert paper.evaluate(AT_END)
    paper.evaluate("paper => paper.scrollTo(0, 100)")  # as who drags the scrollbar; no wheel, no finger
    grows()
    assert paper.evaluate("paper => paper.scrollTop") == 100
    paper.evaluate("paper => paper.scrollTo(0, paper.scrollHeight)")
    grows()
    assert paper.evaluate(AT_END)
    paper.evaluate("paper => paper.scrollBy(0, -20)")  # a little is enough
    top = paper.evaluate("paper => paper.scrollTop")
    grows()
    assert paper.evaluate("paper => paper.scrollTop") == top
    page.locator("#stop").click()
    page.get_by_role("button", name="Continue", exact=True).wait_for()
