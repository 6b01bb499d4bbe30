"""The page of a masked model: its own tab, its own endpoint, in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modeling.infilling import fill_in
from panels.models import load_model
from tests.panels.tiny_model import save_masked_checkpoint
from tests.serving import Window, button, serving
from tokenization import plain_ids


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_masked_checkpoint(tmp_path_factory.mktemp("models") / "masked")


@pytest.fixture(scope="module")
def address(model, tmp_path_factory) -> Iterator[str]:
    """Address of a running page."""
    with serving(model, cwd=tmp_path_factory.mktemp("elsewhere")) as (address, _):
        yield address


@pytest.fixture(scope="module")
def window(browser, address) -> Iterator[Window]:
    window = Window(browser, address)
    yield window
    window.page.close()


@pytest.fixture
def page(window) -> Iterator[Any]:
    """The page, as the test before left it."""
    with window.lent() as page:
        yield page


def test_the_api_offers_fill_and_gives_what_the_model_thinks(address, model):
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(address, verbose=False)
    endpoints: Any = client.view_api(return_format="dict")
    assert "/fill" in endpoints["named_endpoints"]
    (blank,) = client.predict("The ____ burned", 3, api_name="/fill")
    loaded = load_model(model)
    (expected,) = fill_in(loaded.model, loaded.tokenizer, "The ____ burned", 3, encode=plain_ids)
    assert [each["token_id"] for each in blank["candidates"]] == [each.token_id for each in expected.candidates]
    assert blank["start"] == expected.start
    with pytest.raises(AppError, match="got one without"):
        client.predict("no blank", 3, api_name="/fill")
    client.close()


def test_words_go_into_the_blanks_by_mouse_and_by_keyboard(page):
    from playwright.sync_api import expect

    assert page.get_by_role("tab").all_inner_texts() == ["Fill in", "Tokens", "Inside", "Learn", "About"]
    document = page.get_by_label("Your text")
    document.fill("The <img src=x onerror=alert(1)> ____ burned ____.")
    expect(page.get_by_text("Put underscores where a word is missing")).to_be_visible()
    document.press("Control+Enter")
    page.get_by_text("2 blanks.").wait_for()
    button(page, "Fill in").click()
    page.get_by_text("2 blanks.").wait_for()
    assert page.locator("#candidates img").count() == 0
    page.locator("button[data-blank='0']").first.click()
    page.get_by_text("1 blank.").wait_for()
    page.locator("button[data-blank='0']").nth(1).press("Enter")
    page.get_by_text("No blank is left.").wait_for()
    assert "____" not in document.input_value()
    button(page, "Undo").click()
    page.get_by_text("Back to the text before").wait_for()
    assert document.input_value().count("____") == 1
    document.fill("Something else")
    document.evaluate("area => area.setSelectionRange(0, 10)")
    button(page, "Blank").click()
    expect(document).to_have_value("____ else")


def test_an_example_is_guessed_at_once(page):
    page.locator("#blanked button").first.click()
    page.get_by_text("1 blank.").wait_for()
    assert page.get_by_label("Your text").input_value() == "The lamp ____ low on <b>deck</b>"
