"""Take docs/pictures/ from a running page: `python docs/screenshot.py [URL]`, with chromium and Playwright.

Every tab in three looks: light, dark (`-dark`), and on a phone 360 pixels wide (`-phone`). The model picks a beginning,
writes with a fixed seed, and each tab is shown at work on that text."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PICTURES = Path(__file__).parent / "pictures"
LOOKS: dict[str, dict[str, Any]] = {
    "": {"viewport": {"width": 1280, "height": 1100}},
    "-dark": {"viewport": {"width": 1280, "height": 1100}, "color_scheme": "dark"},
    "-phone": {"viewport": {"width": 360, "height": 1400}, "device_scale_factor": 1.5},
}


def main() -> None:
    """Parse, and take the pictures of every look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:7860")
    parser.add_argument("--seed", default="7", help="seed of the text (default: %(default)s)")
    parser.add_argument("--only", nargs="*", default=[], help="tabs to take (default: all)")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser (default: %(default)s)")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox", "--disable-gpu"])
        for suffix in LOOKS:
            take(browser, arguments, suffix)
        browser.close()


def take(browser: "Browser", arguments: argparse.Namespace, suffix: str) -> None:
    """All tabs in one look."""
    page = browser.new_page(**LOOKS[suffix])
    page.goto(arguments.url)
    page.get_by_text("Ready.", exact=True).wait_for(timeout=120_000)
    page.wait_for_timeout(1000)
    for name in page.locator(".tab-container[aria-hidden] button").all_text_contents():
        stem = name.lower().replace(" ", "-")
        open_tab(page, name)
        page.wait_for_timeout(500)
        if name in SCENES:
            SCENES[name](page, arguments)
        page.wait_for_timeout(1500)
        if not arguments.only or stem in arguments.only:
            page.screenshot(path=PICTURES / f"{stem}{suffix}.jpg", type="jpeg", quality=80)
            print(PICTURES / f"{stem}{suffix}.jpg", flush=True)
    page.close()


def open_tab(page: Any, name: str) -> None:
    """Open a tab, also where the narrow screen hides it behind a menu."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if tab.count() == 0:
        page.get_by_role("button", name="More tabs").click()
        tab = page.locator(".overflow-dropdown").get_by_text(name, exact=True)
    tab.click()


def write(page: Any, arguments: argparse.Namespace) -> None:
    """A beginning, and the model's text; a surprising token shows what else could have come."""
    from playwright.sync_api import expect

    page.locator("#beginnings button").first.click()
    expect(page.get_by_label("Your text")).not_to_be_empty()
    page.get_by_label("Seed").fill(arguments.seed)
    page.locator("#generate").click()
    page.get_by_role("button", name="Continue").wait_for(timeout=180_000)
    page.wait_for_timeout(1500)
    page.evaluate("window.scrollTo(0, 0)")
    if page.viewport_size["width"] > 1000:
        page.locator("#token-view .token.s3, #token-view .token.s4").first.hover()


def inside(page: Any, arguments: argparse.Namespace) -> None:
    """The surprise of the text that was written."""
    page.locator("#take-written").click()
    page.locator("#inside-result .token").first.wait_for(timeout=60_000)
    page.evaluate("window.scrollTo(0, 0)")


def compare(page: Any, arguments: argparse.Namespace) -> None:
    """Two checkpoints, to the end."""
    page.get_by_label("Seed of both").fill(arguments.seed)
    page.locator("#compare-go").click()
    page.locator("#comparison").get_by_text("part", exact=False).first.wait_for(timeout=120_000)
    page.locator("#compare-stop:disabled").wait_for(timeout=120_000)


SCENES = {"Write": write, "Inside": inside, "Compare": compare}


if __name__ == "__main__":
    main()
