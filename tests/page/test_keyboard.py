"""Where the focus goes when a button can no longer be pressed, the order of headings, and text that is cut off."""

from typing import Any

import pytest
from playwright.sync_api import expect

from docs.screenshot import open_tab
from tests.page.test_look import LOOK
from tests.serving import button, set_length

LEVELS = """
() => [...document.querySelectorAll(".gradio-container :is(h1, h2, h3, h4, h5, h6)")]
  .filter((each) => each.checkVisibility()).map((each) => +each.tagName[1])
"""
CUT = """
() => [...document.querySelectorAll(".gradio-container main *")].filter((element) => {
  const text = [...element.childNodes].find((node) => node.nodeType === 3 && node.data.trim());
  if (!text || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) return false;
  if (element.closest("[aria-hidden=true]")) return false; // Gradio's copies of the tabs, which it measures
  for (let box = element; box; box = box.parentElement) { // what scrolls, or is not for the eye, may be wider
    const style = getComputedStyle(box);
    if (["auto", "scroll"].includes(style.overflowX) || style.textOverflow === "ellipsis") return false;
    if (style.clipPath !== "none") return false;
  }
  const range = document.createRange();
  range.selectNodeContents(text);
  const width = document.documentElement.clientWidth;
  return [...range.getClientRects()].some(({ left, right }) => right > width + 1 || left < -1);
}).map((element) => `${element.tagName}.${element.className} ${element.textContent.trim().slice(0, 60)}`)
"""


def is_focused(page: Any, selector: str) -> None:
    expect(page.locator(f"{selector}:focus")).to_have_count(1)


def test_a_button_that_can_no_longer_be_pressed_hands_the_focus_on(page: Any) -> None:
    open_tab(page, "Write")
    page.get_by_label("Your text").fill("The lamp")
    set_length(page, 1000)
    page.locator("#generate").focus()
    page.keyboard.press("Enter")
    is_focused(page, "#stop")
    expect(page.locator("#status")).to_contain_text("tokens/s")  # the server knows of it, and so of Stop
    page.keyboard.press("Enter")
    expect(page.locator("#stop")).to_be_disabled()
    is_focused(page, "#generate")
    page.locator("#retry").focus()
    page.keyboard.press("Enter")
    is_focused(page, "#stop")
    expect(page.locator("#status")).to_contain_text("tokens/s")  # the server knows of it, and so of Stop
    page.keyboard.press("Enter")
    expect(page.locator("#stop")).to_be_disabled()
    page.locator("#undo:not([disabled])").focus()
    while page.locator("#undo:not([disabled])").count():
        page.keyboard.press("Enter")
        page.wait_for_timeout(300)  # the buttons are looked at four times a second
    is_focused(page, "#redo")
    page.get_by_label("Your text").focus()
    page.keyboard.type("x")  # what was undone goes, and with it Redo, which has no focus to hand on
    expect(page.locator("#redo")).to_be_disabled()
    expect(page.get_by_label("Your text")).to_be_focused()


def test_escape_that_closes_a_list_stops_no_writing(page: Any) -> None:
    open_tab(page, "Write")
    page.get_by_label("Your text").fill("The lamp")
    set_length(page, 1000)
    button(page, "Generate").click()
    expect(page.locator("#status")).to_contain_text("tokens/s")
    page.evaluate("""() => {
      window.stops = 0;
      document.getElementById("stop").addEventListener("click", () => { window.stops += 1; });
    }""")
    model = page.locator("#model-choice input")
    model.click()
    expect(model).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Escape")
    expect(model).to_have_attribute("aria-expanded", "false")
    assert page.evaluate("window.stops") == 0
    page.keyboard.press("Escape")
    assert page.evaluate("window.stops") == 1
    expect(page.locator("#status")).to_contain_text("Stopped.")


def test_compare_hands_the_focus_to_stop_and_takes_it_back(page: Any) -> None:
    open_tab(page, "Compare")
    button(page, "The same model twice").click()
    page.locator("#compare-go:not([disabled])").focus()
    page.keyboard.press("Enter")
    is_focused(page, "#compare-stop")
    expect(page.locator("#compare-status")).to_contain_text("Both write")
    page.keyboard.press("Enter")
    expect(page.locator("#compare-stop")).to_be_disabled()
    is_focused(page, "#compare-go")


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_headings_come_in_order_and_no_text_is_cut_off(width: int, page: Any) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.wait_for_timeout(300)  # a narrow screen puts some of the tabs into a menu
    open_tab(page, "Tour")
    page.locator("#tour-start:not([disabled])").click()
    page.locator(".tour").wait_for()
    problems = []
    for name in page.locator(".tab-container[aria-hidden] button").all_text_contents():
        open_tab(page, name)
        page.wait_for_timeout(300)
        levels = page.evaluate(LEVELS)
        assert levels[0] == 1, (name, levels)
        jumps = [pair for pair in zip(levels, levels[1:], strict=False) if pair[1] > pair[0] + 1]
        problems += [f"{name}: a heading of level {after} after {before}" for before, after in jumps]
        problems += [f"{name}: cut off: {text}" for text in page.evaluate(CUT)]
    assert not problems, "\n".join(problems)


def test_buttons_can_be_read_while_the_mouse_is_over_them(browser: Any, slow_address: str) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(slow_address)
    page.get_by_text("Ready.", exact=True).first.wait_for()
    page.locator("#generate:not([disabled])").hover()
    page.wait_for_timeout(500)  # the colour changes slowly
    assert page.evaluate(LOOK) == []
    page.close()


def test_on_a_phone_the_folded_controls_are_one_line_each(browser: Any, slow_address: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(slow_address)
    page.get_by_text("Ready.", exact=True).first.wait_for()
    expect(page.locator("#controls .label-wrap.open")).to_have_count(0)
    for header in page.locator("#controls .label-wrap").all():
        box, icon = header.bounding_box(), header.locator(".icon").bounding_box()
        block = header.locator("..").bounding_box()
        assert icon["x"] + icon["width"] < block["x"] + block["width"]
        assert abs(icon["y"] + icon["height"] / 2 - box["y"] - box["height"] / 2) < 4
    assert page.locator("#document").bounding_box()["x"] < 20
    page.close()
