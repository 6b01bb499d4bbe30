"""The Write tab in the browser: the canvas with mouse, keyboard and finger, branches, Retry, odd texts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panels import generate as writing
from panels.models import load_model
from panels.sampling import settings_from
from panels.tabs.write.view import ALTERNATIVES
from tests.serving import SEED, button, set_length, wait_until

MARKUP = "<img src=x onerror=alert(1)></script> The"


@pytest.fixture
def page(lab_page: Any) -> Any:
    """The page with an empty document."""
    lab_page.keyboard.press("Escape")
    button(lab_page, "Clear").click()
    lab_page.get_by_text("A new page.").wait_for()
    return lab_page


def write(page: Any, prompt: str | None, *, tokens: int = 40, seed: str = "5") -> str:
    """Let the model go on from `prompt`; the text when it is over."""
    document = page.get_by_label("Your text")
    if prompt is not None:
        document.fill(prompt)
    page.locator(SEED).fill(seed)
    set_length(page, tokens)
    before = document.input_value()
    page.locator("#generate").click()
    wait_until(lambda: document.input_value() != before)
    over(page)
    return document.input_value()


def over(page: Any) -> None:
    """Wait until what was begun is over, and its tokens are there to be chosen from."""
    button(page, "Continue").wait_for()
    page.locator("#token-view .token[tabindex='0']").wait_for()


def shown_tokens(page: Any) -> str:
    """The text of the tokens that are shown."""
    return as_written(page.locator("#token-view .token:not(.gone)").all_text_contents())


def as_written(shown: list[str]) -> str:
    """The text behind the signs of the token view."""
    text = "".join(shown).replace("↵\n", "\n").replace("⟨⟩", "")
    return text.replace("␣", " ").replace("⇥", "\t")


def options(page: Any) -> Any:
    """The alternatives in the popover."""
    return page.get_by_role("dialog").get_by_role("option")


def test_the_token_view_shows_what_was_written_and_what_could_have_been(page):
    from playwright.sync_api import expect

    document = page.get_by_label("Your text")
    first = write(page, MARKUP)
    assert shown_tokens(page) == first[len(MARKUP) :]
    assert page.locator("#token-view .head").text_content() == MARKUP
    assert page.locator("img[src='x']").count() == 0
    count = page.locator("#token-view .token").count()
    expect(page.locator("#status")).to_contain_text(f"{count} tokens")

    page.locator("#token-view .token").nth(4).hover()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert options(page).count() in (10, 11)
    shares = [float(text.strip("<>\u00a0% ")) for text in page.locator("#token-popover .p").all_text_contents()[:10]]
    assert shares == sorted(shares, reverse=True)
    page.mouse.move(0, 0)
    expect(page.get_by_role("dialog")).to_be_hidden()

    page.locator("#token-view .token").nth(6).focus()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#token-view .token").nth(7)).to_be_focused()
    page.keyboard.press("Enter")
    expect(options(page).nth(0)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#token-view .token").nth(7)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()

    page.keyboard.press("Enter")
    free = options(page).evaluate_all(
        "items => items.findIndex((item, at) => at && !item.ariaDisabled && item.ariaSelected === 'false')"
    )
    for _ in range(free):
        page.keyboard.press("ArrowDown")
    expect(options(page).nth(free)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#token-view .chosen")).to_have_count(1)
    over(page)
    second = document.input_value()
    before = as_written(page.locator("#token-view .token").all_text_contents()[:7])
    assert second.startswith(MARKUP + before)
    assert first.startswith(MARKUP + before)
    assert second != first
    assert shown_tokens(page) == second[len(MARKUP) :]
    expect(page.locator("#token-view .token").nth(7)).to_be_focused()

    button(page, "Undo").click()
    expect(document).to_have_value(first)
    wait_until(lambda: shown_tokens(page) == first[len(MARKUP) :])
    expect(page.locator("#token-view .chosen")).to_have_count(0)

    document.press("End")
    document.press("Control+End")
    for _ in range(6):
        document.press("Backspace")
    assert first[:-6].startswith(MARKUP + shown_tokens(page))
    assert page.locator("#token-view .token:not(.gone)").count() < count
    document.fill("Other")
    expect(page.locator("#token-view .token").first).to_be_hidden()


def test_retry_writes_the_last_go_anew(page):
    from playwright.sync_api import expect

    document = page.get_by_label("Your text")
    expect(button(page, "Retry")).to_be_disabled()
    first = write(page, "About", tokens=20)
    longer = write(page, None, tokens=20)
    assert longer.startswith(first)
    page.locator(SEED).fill("")
    button(page, "Retry").click()
    wait_until(lambda: document.input_value() != longer)
    over(page)
    other = document.input_value()
    assert other.startswith(first)
    assert other != longer
    button(page, "Undo").click()
    expect(document).to_have_value(longer)
    page.locator(SEED).fill("8")
    button(page, "Retry").click()
    expect(page.locator("#status")).to_contain_text("seed 8")
    over(page)
    with_seed = document.input_value()
    button(page, "Retry").click()
    expect(page.locator("#status")).to_contain_text("The same text again. Another seed")
    assert document.input_value() == with_seed


def test_the_token_view_on_a_phone(browser, lab_address):
    from playwright.sync_api import expect

    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(lab_address)
    page.get_by_text("Ready.", exact=True).first.wait_for()
    write(page, "About", tokens=60)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#token-view .token").nth(8).tap()
    sheet = page.get_by_role("dialog")
    expect(sheet).to_be_visible()
    box = sheet.bounding_box()
    assert (box["x"], box["width"], round(box["y"] + box["height"])) == (0, 360, 740)
    assert page.locator("#token-view .token").nth(8).bounding_box()["y"] < box["y"]
    assert min(options(page).nth(index).bounding_box()["height"] for index in range(10)) >= 40
    sheet.get_by_role("button", name="Close").tap()
    expect(sheet).to_be_hidden()
    context.close()


@pytest.fixture
def repeated(lab_run: Path) -> Iterator[list[writing.Token]]:
    """What the model writes behind "About" with seed 5. As long as the test goes, its tokens but for the first two and
    the last two are the first document of the training text."""
    settings = settings_from(seed=5, max_new_tokens=40)
    drafts = writing.generate(load_model(lab_run), "About", settings, alternatives=ALTERNATIVES)
    tokens = [token for draft in drafts for token in draft.tokens]
    manifest, shard = lab_run / "tokens" / "manifest.json", lab_run / "tokens" / "train-repeated.npy"
    content = manifest.read_text()
    told = json.loads(content)
    train, separator = told["train"], told["end_of_text"]
    kind = np.load(manifest.with_name(train["files"][0])).dtype
    ids = [separator, *(token.token_id for token in tokens[2:-2])]
    np.save(shard, np.array(ids, dtype=kind))
    more = {
        "files": [shard.name, *train["files"]],
        "tokens": train["tokens"] + len(ids),
        "documents": train["documents"] + 1,
    }
    manifest.write_text(json.dumps(told | {"train": train | more}))
    yield tokens
    manifest.write_text(content)
    shard.unlink()


def test_a_passage_of_the_training_text_is_named_and_shown(page, lab_run, repeated):
    from playwright.sync_api import expect

    count = len(repeated) - 4
    passage = "".join(token.text for token in repeated[2:-2]).strip()
    documents = json.loads((lab_run / "tokens" / "manifest.json").read_text())["train"]["documents"]
    text = write(page, "About")
    assert text == "About" + "".join(token.text for token in repeated)
    note = page.get_by_role("complementary", name="Memorised?")
    words = f"{count} tokens in a row ({len(passage.split())} words) occur word for word in the training text"
    expect(note).to_contain_text(f"{words}: document 1 of {documents:,}, 0% of the way through it.")
    assert note.locator("blockquote").text_content() == passage
    mark = button(page, "Show it on the canvas")
    mark.click()
    expect(mark).to_have_attribute("aria-pressed", "true")
    marked = page.locator("#token-view .token").evaluate_all(
        "all => all.map(each => each.classList.contains('passage'))"
    )
    assert marked == [False, False, *[True] * count, False, False]
    mark.click()
    expect(page.locator("#token-view .passage")).to_have_count(0)
    button(page, "Undo").click()
    expect(note).to_have_count(0)


ODD = (
    "''",
    "'a'",
    "'word '.repeat(20000)",
    "String.fromCharCode(...Array(256).keys())",
    "'\\x00\\x1b[2J\\x07'",
    "'\\ud800 alone'",
    "'שלום عليكم'",
    "'👩\\u200d🚀🏳️\\u200d🌈'",
)
"""Texts, as the browser writes them."""


def test_no_text_is_too_odd(page):
    for prompt in ODD:
        page.evaluate(
            f"""() => {{
                const area = document.querySelector('#document textarea');
                area.value = {prompt};
                area.dispatchEvent(new Event('input', {{bubbles: true}}));
            }}"""
        )
        text = write(page, None, tokens=5)
        assert text.endswith(shown_tokens(page)), prompt
        assert page.locator("#token-view .token").count() == 5
        page.locator("#token-view .token").nth(2).click()
        assert options(page).count() >= 10
        page.keyboard.press("Escape")  # or the popover may lie over what is clicked next
        button(page, "Clear").click()
        page.get_by_text("A new page.").wait_for()
