"""Every tab, light and dark, narrow and wide: readable, named, no wider than its screen, and reached by keyboard."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from docs.screenshot import open_tab

LOOK = Path(__file__).with_name("look.js").read_text(encoding="utf-8")
FOCUS = """
() => {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const style = getComputedStyle(element), around = element.closest(".writing, .block") ?? element;
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
    problems, heads = [], set()
    names = looking.locator(".tab-container[aria-hidden] button").all_text_contents()
    assert names == ["Write", "Tour", "Tokens", "Inside", "Learn", "Compare", "About"]
    for name in names:
        open_tab(looking, name)
        looking.wait_for_timeout(300)
        problems += [f"{name}: {problem}" for problem in looking.evaluate(LOOK)]
        heads.add(looking.evaluate("JSON.stringify(document.querySelector('#masthead h1').getBoundingClientRect())"))
    assert len(heads) == 1, heads  # the head stays where it is
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


@pytest.mark.parametrize("width", [1280, 390])
def test_the_tab_bar_is_one_stop_whose_arrow_keys_open_every_tab(width: int, lab_page: Any) -> None:
    lab_page.set_viewport_size({"width": width, "height": 800})
    lab_page.wait_for_timeout(300)  # a narrow screen puts some of the tabs into a menu
    open_tab(lab_page, "Write")
    lab_page.get_by_role("tab", name="Write").focus()
    names = lab_page.locator(".tab-container[aria-hidden] button").all_text_contents()
    keys = [("ArrowRight", name) for name in names[1:]] + [("ArrowRight", "Write"), ("ArrowLeft", "About")]
    for key, name in (*keys, ("Home", "Write"), ("End", "About")):
        lab_page.keyboard.press(key)
        lab_page.get_by_role("tab", name=name, selected=True).and_(lab_page.locator(":focus")).wait_for()
        expect(lab_page.locator('[role="tab"][tabindex="0"]')).to_have_text([name])
    lab_page.keyboard.press("Tab")
    assert lab_page.locator('[role="tab"]:focus').count() == 0
    if width == 390:
        menu = lab_page.get_by_role("button", name="More tabs")
        menu.focus()
        for key in ("Escape", "Enter"):
            lab_page.keyboard.press("ArrowDown")
            lab_page.locator(".overflow-dropdown button:focus").wait_for()
            lab_page.keyboard.press(key)
            expect(menu).to_have_attribute("aria-expanded", "false")
        lab_page.get_by_role("tab", name=names[2], selected=True).and_(lab_page.locator(":focus")).wait_for()


def test_a_button_that_cannot_be_pressed_looks_so(lab_page: Any) -> None:
    for name, button in (("Write", "#stop"), ("Inside", "#inside-stop"), ("Compare", "#compare-stop")):
        open_tab(lab_page, name)
        assert lab_page.locator(button).is_disabled()
        style = lab_page.locator(button).evaluate(
            "(button) => [getComputedStyle(button).backgroundColor, getComputedStyle(button).borderStyle]"
        )
        assert style == ["rgba(0, 0, 0, 0)", "dashed"], name
    assert lab_page.locator("footer").inner_text().strip() == "Use via API"  # and no settings of Gradio's own
