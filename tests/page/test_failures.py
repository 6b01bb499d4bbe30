"""Requests that the server refuses or that fail: the page says so, and everything can be pressed again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from docs.screenshot import open_tab
from tests.page import test_chat as chat
from tests.page.writing import field, opened
from tests.panels.test_chat import save_chat_checkpoint
from tests.serving import button, serving

BROKEN = "That went wrong; the page's log says why."


@pytest.fixture(scope="module")
def chat_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the page of a model that chats."""
    model: Path = save_chat_checkpoint(tmp_path_factory.mktemp("chat") / "chat")
    with serving(model, cwd=model.parent) as (address, _):
        yield address


def put_number(page: Any, place: str, value: str) -> Any:
    """Type a number into the field of a slider, and stay there: Gradio brings it into its range when it is left."""
    number = page.locator(f"{place} input[type=number]")
    number.fill(value)
    return number


def let_pass(page: Any, place: str) -> None:
    """Let the page's own check of that field pass any number, so that the server's refuses it."""
    page.locator(f"{place} input[type=number]").evaluate("(number) => { number.max = 1e9; }")


def test_write_refuses_a_number_out_of_range_and_outlives_a_refused_request(browsing: Any, lab_address: str) -> None:
    page, status = opened(browsing, lab_address), "#status"
    field(page).fill("The lamp")
    for typed, got in (("5", "5"), ("", "none")):
        put_number(page, "#temperature", typed).press("Control+Enter")
        expect(page.locator(status)).to_contain_text(f"Temperature: expected a number from 0 to 2, got {got}.")
        expect(button(page, "Generate")).to_be_enabled()
    let_pass(page, "#temperature")
    put_number(page, "#temperature", "5").press("Control+Enter")
    expect(page.locator(status)).to_contain_text(BROKEN)
    expect(button(page, "Generate")).to_be_enabled()
    expect(button(page, "Stop")).to_be_disabled()
    expect(field(page)).to_be_editable()
    put_number(page, "#temperature", "1").press("Control+Enter")
    button(page, "Continue").wait_for()


def test_chat_refuses_a_number_out_of_range_and_outlives_a_refused_request(browsing: Any, chat_address: str) -> None:
    page = chat.opened(browsing, chat_address)
    chat.set_up(page)
    chat.field(page).fill("The lamp?")
    chat.fold(page, is_open=True)
    put_number(page, "#chat-temperature", "5").press("Control+Enter")
    expect(chat.status(page)).to_contain_text("Temperature: expected a number from 0 to 2, got 5.")
    expect(chat.field(page)).to_have_value("The lamp?")
    let_pass(page, "#chat-temperature")
    put_number(page, "#chat-temperature", "5").press("Control+Enter")
    expect(chat.status(page)).to_contain_text(BROKEN)
    chat.ready(page)
    expect(chat.field(page)).to_have_value("The lamp?")
    put_number(page, "#chat-temperature", "1").press("Control+Enter")
    chat.over(page)


def test_compare_says_that_a_request_was_refused(browsing: Any, lab_address: str) -> None:
    page = opened(browsing, lab_address)
    open_tab(page, "Compare")
    expect(page.locator("#compare-note-b")).to_contain_text("parameters")
    put_number(page, "#compare-length", "5000")
    page.locator("#compare-go").dispatch_event("click")  # a click would leave the field
    expect(page.locator("#compare-status")).to_contain_text(BROKEN)
    expect(button(page, "Compare")).to_be_enabled()


def test_learn_writes_again_after_a_refused_request(browsing: Any, lab_address: str) -> None:
    page = opened(browsing, lab_address)
    open_tab(page, "Learn")
    page.get_by_role("button", name="Continue a prompt of your own with every checkpoint").click()
    put_number(page, "#timelapse-length", "5000")
    page.locator("#timelapse-make").dispatch_event("click")
    expect(page.locator("#timelapse-status")).to_contain_text("That went wrong")
    expect(page.locator("#timelapse-make")).to_be_enabled()
    expect(page.locator("#timelapse-stop")).to_be_disabled()
