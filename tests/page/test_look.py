"""Every tab, light and dark, narrow and wide: readable, named, no wider than its screen, and reached by keyboard."""

from pathlib import Path
from typing import Any

import pytest

from docs.screenshot import open_tab

LOOK = Path(__file__).with_name("look.js").read_text(encoding="utf-8")
FOCUS = """
() => {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const style = getComputedStyle(element), around = element.closest("#document, .block") ?? element;
  const shown = ({ outlineStyle, outlineWidth, boxShadow }) =>
    (outlineStyle !== "none" && parseFloat(outlineWidth) > 0) || boxShadow !== "none";
  return {
    what: `${element.tagName}#${element.id || element.closest("[id]")?.id} ${(element.innerText ?? "").slice(0, 30)}`,
    shown: shown(style) || shown(getComputedStyle(around)) || element.type === "range",
  };
}
"""


@pytest.fixture
def dark_phone(browser: Any, lab_address: str) -> Any:
    page = browser.new_page(viewport={"width": 360, "height": 800}, color_scheme="dark")
    page.goto(lab_address)
    page.get_by_text("Ready.", exact=True).wait_for()
    yield page
    page.close()


@pytest.mark.parametrize("look", ["lab_page", "dark_phone"])
def test_every_tab_can_be_read(look: str, request: pytest.FixtureRequest) -> None:
    looking = request.getfixturevalue(look)
    problems = []
    names = looking.locator(".tab-container[aria-hidden] button").all_text_contents()
    assert names == ["Write", "Tokens", "Inside", "Learn", "Compare", "About"]
    for name in names:
        open_tab(looking, name)
        looking.wait_for_timeout(300)
        problems += [f"{name}: {problem}" for problem in looking.evaluate(LOOK)]
    assert not problems, "\n".join(problems)


def test_the_keyboard_reaches_everything_and_shows_where_it_is(lab_page: Any) -> None:
    reached, hidden = set(), []
    open_tab(lab_page, "Write")
    lab_page.locator("#document textarea").focus()
    for _ in range(80):
        lab_page.keyboard.press("Tab")
        focus = lab_page.evaluate(FOCUS)
        if focus is not None:
            reached.add(focus["what"].split(" ")[0])
            hidden += [] if focus["shown"] else [focus["what"]]
    assert not hidden, hidden
    assert {"BUTTON#generate", "BUTTON#dice", "BUTTON#clear"} <= reached, reached
    lab_page.get_by_role("tab", name="Write").focus()
    lab_page.keyboard.press("Tab")
    lab_page.keyboard.press("Enter")
    lab_page.get_by_role("tab", name="Tokens", selected=True).wait_for()
    for key, name in (("ArrowRight", "Inside"), ("ArrowLeft", "Tokens"), ("End", "About"), ("Home", "Write")):
        lab_page.keyboard.press(key)
        lab_page.get_by_role("tab", name=name, selected=True).wait_for()
        assert lab_page.evaluate("document.activeElement.textContent") == name
