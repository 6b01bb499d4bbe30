"""What the tests of stored texts do with the page: open it, read it, write with it."""

from typing import Any

from tests.page.test_write import TOKEN, over
from tests.serving import SEED, equals, set_length, wait_until

STORED = """
() => Object.keys(localStorage).filter((key) => key.startsWith("scratchgpt.write.text."))
  .map((key) => JSON.parse(localStorage.getItem(key))).map(({ name, text }) => [name, text])
"""


def opened(browsing: Any, address: str) -> Any:
    """The page in a new tab, with its text."""
    page = browsing.new_page()
    page.goto(address, timeout=120_000)
    ready(page)
    return page


def keeps(page: Any, *texts: list[str]) -> None:
    """Wait until the browser keeps these texts, each [name, text], sorted; what another tab stored arrives later."""

    def stored() -> list[list[str]]:
        return sorted(page.evaluate(STORED))

    equals(stored, [*texts])


def ready(page: Any) -> None:
    """Wait until the page has the text of its tab, and the model."""
    page.get_by_text("Ready.", exact=True).first.wait_for(timeout=120_000)
    page.locator("#generate:not([disabled])").wait_for()


def field(page: Any) -> Any:
    return page.get_by_label("Your text")


def shown_text(page: Any) -> str:
    """The text as it is at this moment."""
    return page.evaluate("document.querySelector('#document textarea').value")


def name(page: Any) -> Any:
    """The name of the text that is open."""
    return page.locator("#texts summary .name")


def trouble(page: Any) -> Any:
    return page.locator("#texts .trouble")


def stay(page: Any) -> None:
    """Try to close the page; it must ask, and stays."""
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()


def open_list(page: Any) -> Any:
    """The list of texts."""
    if page.locator("#texts details").get_attribute("open") is None:
        page.locator("#texts summary").click()
    return page.locator("#texts li")


def write(page: Any, text: str, *, tokens: int = 20, seed: str = "5") -> str:
    """Let the model go on from `text`."""
    field(page).fill(text)
    page.locator(SEED).fill(seed)
    set_length(page, tokens)
    page.locator("#generate").click()
    wait_until(lambda: field(page).input_value() != text)
    over(page)
    return field(page).input_value()


def begin(page: Any) -> None:
    """Let the model write a long text, and wait until it does."""
    set_length(page, 1000)
    count = page.locator(TOKEN).count()
    page.locator("#generate").click()
    wait_until(lambda: page.locator(TOKEN).count() != count, seconds=60)
