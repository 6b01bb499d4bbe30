"""Take docs/pictures/ from a running page: `python docs/screenshot.py [URL] [--chat-url URL]`, with chromium and
Playwright.

Every tab in three looks: light, dark (`-dark`), and on a phone 390 pixels wide (`-phone`). The model picks a beginning,
writes with a fixed seed, and each tab is shown at work on that text. The pictures of the repository are those of
`python app.py --model pretrained/scifi` beside a run of `stories`; Chat, for which that model was not tuned, is taken
from a second page, as `python app.py --model runs/chat` shows it."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PATIENCE = 180_000
"""Milliseconds that a page is waited for."""
PICTURES = Path(__file__).parent / "pictures"
LOOKS: dict[str, dict[str, Any]] = {
    "": {"viewport": {"width": 1280, "height": 1100}},
    "-dark": {"viewport": {"width": 1280, "height": 1100}, "color_scheme": "dark"},
    "-phone": {"viewport": {"width": 390, "height": 1300}, "device_scale_factor": 1.25},
}
QUALITIES = (80, 70, 60, 50, 40)
LARGEST = 140_000
"""Bytes of a picture: it is taken with the first quality that makes it no larger."""


def main() -> None:
    """Parse, and take the pictures of every look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:7860")
    parser.add_argument("--chat-url", help="the page of a model that chats (default: no pictures of Chat)")
    parser.add_argument("--seed", default="7", help="seed of the text (default: %(default)s)")
    parser.add_argument("--only", nargs="*", default=[], help="tabs to take (default: all)")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser (default: %(default)s)")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox", "--disable-gpu"])
        for suffix in LOOKS:
            take(browser, arguments, suffix, arguments.url, leave_out="Chat")
            if arguments.chat_url:
                take(browser, arguments, suffix, arguments.chat_url, names=["Chat"])
        browser.close()


def take(
    browser: "Browser",
    arguments: argparse.Namespace,
    suffix: str,
    url: str,
    *,
    names: list[str] | None = None,
    leave_out: str = "",
) -> None:
    """The tabs with these names (None: all) of a page in one look."""
    page = browser.new_page(**LOOKS[suffix])
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.get_by_text("Ready.", exact=True).first.wait_for()
    page.wait_for_timeout(1000)
    for name in names or page.locator(".tab-container[aria-hidden] button").all_text_contents():
        stem = name.lower().replace(" ", "-")
        if name == leave_out:
            continue
        open_tab(page, name)
        page.wait_for_timeout(500)
        if name in SCENES:
            SCENES[name](page, arguments)
        page.wait_for_timeout(1500)
        if not arguments.only or stem in arguments.only:
            pictures = (page.screenshot(type="jpeg", quality=quality) for quality in QUALITIES)
            picture = next(picture for picture in pictures if len(picture) <= LARGEST)
            (PICTURES / f"{stem}{suffix}.jpg").write_bytes(picture)
            print(f"{PICTURES / f'{stem}{suffix}.jpg'}: {len(picture):,} bytes", flush=True)
    page.close()


def open_tab(page: Any, name: str) -> None:
    """Open a tab, also where the narrow screen hides it behind a menu, and while a browser that is busy still lays out
    which of them it hides."""
    from playwright.sync_api import TimeoutError

    tab = page.get_by_role("tab", name=name, exact=True)
    hidden = page.locator(".overflow-dropdown").get_by_text(name, exact=True)
    deadline = time.monotonic() + PATIENCE / 1000
    while True:
        try:
            if tab.count():
                return tab.click(timeout=4000)
            if not hidden.is_visible():
                page.get_by_role("button", name="More tabs").click(timeout=4000)
            return hidden.click(timeout=4000)
        except TimeoutError:
            if time.monotonic() > deadline:
                raise


def write(page: Any, arguments: argparse.Namespace) -> None:
    """A beginning, and the model's text; a surprising token shows what else could have come."""
    from playwright.sync_api import expect

    page.locator("#beginnings button").first.click()
    expect(page.get_by_label("Your text")).not_to_be_empty()
    seed = page.locator("#seed :is(input, textarea)")
    if not seed.is_visible():  # a narrow screen folds the controls
        page.get_by_role("button", name="Length, seed").click()
    seed.fill(arguments.seed)
    page.locator("#generate").click()
    page.get_by_role("button", name="Continue", exact=True).wait_for()
    page.wait_for_timeout(1500)
    page.evaluate("window.scrollTo(0, 0)")
    if page.viewport_size["width"] > 1000:
        box = page.locator("#document .token.s3, #document .token.s4").first.bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def inside(page: Any, arguments: argparse.Namespace) -> None:
    """The surprise of the text that was written."""
    page.locator("#take-written").click()
    page.locator("#inside-result .token").first.wait_for()
    page.evaluate("window.scrollTo(0, 0)")


def compare(page: Any, arguments: argparse.Namespace) -> None:
    """Careful and wild settings, to the end."""
    page.locator("#compare-settings").click()
    page.get_by_label("Seed of both").fill(arguments.seed)
    page.locator("#compare-go").click()
    page.locator("#compare-status").get_by_text(f"Both with seed {arguments.seed}.").wait_for()
    page.locator("#comparison .divergence").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#compare-actions').scrollIntoView()")


def tour(page: Any, arguments: argparse.Namespace) -> None:
    """The odds, the fifth step."""
    page.locator("#tour-start").click()
    page.locator(".tour").wait_for()
    page.locator('.tour nav [data-step="4"]').click()
    page.evaluate("window.scrollTo(0, 0)")


def chat(page: Any, arguments: argparse.Namespace) -> None:
    """A held-out question, at temperature 0."""
    page.locator("#chat-send:not([disabled])").wait_for()
    page.locator("#chat-settings > button").click()
    temperature = page.locator("#chat-temperature input[type=number]")
    temperature.fill("0")
    temperature.blur()
    page.locator("#chat-settings > button").click()
    page.locator("#chat-samples button").first.click()
    page.locator("#chat-send").click()
    page.locator("#chat-log .turn.assistant").wait_for()
    page.locator("#chat-send:not([disabled])").wait_for()
    page.evaluate("window.scrollTo(0, 0)")


SCENES = {"Write": write, "Chat": chat, "Tour": tour, "Inside": inside, "Compare": compare}


if __name__ == "__main__":
    main()
