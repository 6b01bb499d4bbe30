"""Take docs/write.png from a running page: `python docs/screenshot.py [URL]`, with chromium and Playwright.

It picks a beginning, lets the model write with a fixed seed, and photographs the page. `--dark` and `--phone` take the
other two looks, into write-dark.png and write-phone.png."""

import argparse
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

HERE = Path(__file__).parent


def main() -> None:
    """Parse, write a text, take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:7860")
    parser.add_argument("--seed", default="7", help="seed of the text (default: %(default)s)")
    parser.add_argument("--prompt", help="beginning of the text (default: the first of the page's beginnings)")
    parser.add_argument("--dark", action="store_true", help="the dark look")
    parser.add_argument("--phone", action="store_true", help="a screen 360 pixels wide")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser (default: %(default)s)")
    arguments = parser.parse_args()
    suffix = ("-dark" if arguments.dark else "") + ("-phone" if arguments.phone else "")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(
            viewport={"width": 360, "height": 780} if arguments.phone else {"width": 1280, "height": 900},
            device_scale_factor=2 if arguments.phone else 1,
            color_scheme="dark" if arguments.dark else "light",
        )
        page.goto(arguments.url)
        page.get_by_text("Ready.").wait_for(timeout=120_000)
        page.wait_for_timeout(1000)
        document = page.get_by_label("Your text")
        if arguments.prompt is not None:
            document.fill(arguments.prompt)
        elif page.locator("#beginnings button").count():
            page.locator("#beginnings button").first.click()
            expect(document).not_to_be_empty()
        page.get_by_label("Seed").fill(arguments.seed)
        page.locator("#generate").click()
        page.get_by_role("button", name="Continue").wait_for(timeout=180_000)
        page.wait_for_timeout(500)
        page.screenshot(path=HERE / f"write{suffix}.png")
        browser.close()


if __name__ == "__main__":
    main()
