"""The first minutes in a browser: a page at once, a model that trains beside it, and the click that writes with it."""

import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from panels.generate import generate
from panels.models import load_model
from panels.sampling import settings_from
from storage.records import read_json_object, read_jsonl
from tests.serving import SEED, Window, button, serving, set_length

LONG = 120_000  # milliseconds for a run to get there, on a busy machine
STEPS = 400


@pytest.fixture(scope="module")
def home(lab_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as it comes: a model in the box, and nothing else."""
    home = tmp_path_factory.mktemp("clone")
    shutil.copytree(lab_run / "checkpoints" / "step-000010", home / "pretrained" / "scifi")
    return home


@pytest.mark.slow
def test_the_page_is_there_at_once_and_writes_with_the_model_that_trains_beside_it(browser: Any, home: Path) -> None:
    said: list[str] = []
    words = ("--bundle", "bundle", "--train", "debug", "--steps", STEPS, "--run.evaluate-every", 50)
    with serving(None, *words, cwd=home, said=said) as (address, _):
        windows = [Window(browser, address) for _ in range(2)]
        with windows[0].lent() as page, windows[1].lent() as other:
            watch_and_take(page, other, home)
        for window in windows:
            window.page.close()
    lines = [line.partition(": ")[::2] for line in said if line.startswith(("runs/debug: ", "bundle: "))]
    assert [name for name, _ in lines] == ["runs/debug", "runs/debug", "bundle"]
    assert lines[0][1].startswith("training beside the page")
    assert lines[1][1].startswith(f"trained: {STEPS} steps")
    assert lines[2][1].startswith("exported and checked")


def watch_and_take(page: Any, other: Any, home: Path) -> None:
    """What the page shows while the model trains, and the click that takes it, to the bundle."""
    from playwright.sync_api import expect

    run = home / "runs" / "debug"
    strip, heading = page.locator("#strip-shown"), page.locator("#masthead h1")
    expect(heading).to_have_text("scifi")
    expect(strip).to_contain_text(re.compile(r"Training debug\s+(Preparing|Running)"), timeout=LONG)
    expect(strip).to_contain_text(re.compile(rf"step \d+ of {STEPS}[\s\S]* left[\s\S]*loss \d\.\d"), timeout=LONG)
    expect(strip).to_contain_text(re.compile(r"At step \d+ it writes:"))
    expect(strip).to_contain_text("bits per byte", timeout=LONG)
    expect(page.locator("#strip-spoken [aria-live=polite]")).to_have_text("debug: Running")
    for name in ("Tokens", "Learn"):  # it is on every tab
        page.get_by_role("tab", name=name, exact=True).click()
        expect(strip).to_be_visible()
    expect(page.locator("#learn-status")).to_contain_text(re.compile("Running|Finished"))  # and so are its curves
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 720})

    use = button(page, "Write with it").first
    expect(use).to_be_visible(timeout=LONG)
    expect(strip).to_contain_text(re.compile(r"Training debug\s+Finished"))
    page.get_by_role("tab", name="Write", exact=True).click()
    use.focus()
    page.keyboard.press("Enter")
    for each in (page, other):  # nobody loads the page again
        expect(each.locator("#masthead h1")).to_have_text("debug")
        expect(each.locator("#strip")).to_be_hidden()
        expect(each).to_have_title("debug · ScratchGPT")
        expect(each.locator("#model-notice")).to_contain_text("The page uses debug from now on.")
    page.locator("#document-text").fill("One day")
    page.locator(SEED).fill("7")
    set_length(page, 20)
    button(page, "Generate").click()
    button(page, "Continue").wait_for()
    best = run / read_json_object(run / "run.json")["best_checkpoint"]
    expected = list(generate(load_model(best), "One day", settings_from(seed=7, max_new_tokens=20)))[-1].text
    assert page.locator("#document-text").input_value() == expected
    assert [record["step"] for record in read_jsonl(run / "metrics.jsonl")][-1] == STEPS

    deadline = time.monotonic() + LONG / 1000
    while not (home / "bundle" / "config.json").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(1.0)  # until the terminal has it too
