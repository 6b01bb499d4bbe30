"""The second copy of stored texts: what localStorage had not written to the disk when the browser was killed."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import expect

from tests.conftest import CHROMIUM
from tests.page.writing import field, keeps, open_list, opened, ready, shown_text
from tests.serving import WAIT, wait_until

MIRRORED = """
() => new Promise((resolve) => {
  indexedDB.open("scratchgpt", 1).onsuccess = ({ target: { result: base } }) => {
    const request = base.transaction("documents").objectStore("documents").getAll();
    request.onsuccess = () => { base.close(); resolve(request.result); };
  };
})
"""


def mirrored(page: Any) -> list[Any]:
    """The texts of the second copy."""
    found = [json.loads(value) for value in page.evaluate(MIRRORED) if isinstance(value, str)]
    return [record["text"] for record in found if "text" in record]


def away(page: Any, address: str) -> None:
    """Go where the storage is the same and no script of ours writes to it."""
    page.goto(f"{address}/gradio_api/app_id")


def test_what_localstorage_lost_comes_back_and_what_was_deleted_does_not(browsing: Any, lab_address: str) -> None:
    page = opened(browsing, lab_address)
    field(page).fill("One")
    wait_until(lambda: mirrored(page) == ["One"])
    away(page, lab_address)
    before = page.evaluate("JSON.stringify(localStorage)")
    page.goto(lab_address)
    ready(page)
    field(page).fill("One more")
    wait_until(lambda: mirrored(page) == ["One more"])
    away(page, lab_address)
    # As the disk had it when the browser was killed: an older text, then none at all.
    for lost in (before, "{}"):
        page.evaluate("(all) => { localStorage.clear(); Object.assign(localStorage, JSON.parse(all)); }", lost)
        page.goto(lab_address)
        ready(page)
        expect(field(page)).to_have_value("One more")
        keeps(page, ["Untitled 1", "One more"])
        away(page, lab_address)
    full = page.evaluate("JSON.stringify(localStorage)")
    page.goto(lab_address)
    ready(page)
    open_list(page)
    page.get_by_role("button", name="Delete Untitled 1").click()
    page.locator("[data-act=delete-now]").click()
    wait_until(lambda: mirrored(page) == [])
    away(page, lab_address)
    page.evaluate("(all) => Object.assign(localStorage, JSON.parse(all))", full)
    page.goto(lab_address)
    ready(page)
    expect(field(page)).to_have_value("")
    keeps(page)


def test_a_browser_without_indexeddb_keeps_texts_as_ever(browser: Any, lab_address: str) -> None:
    without = browser.new_context()
    without.add_init_script("Object.defineProperty(window, 'indexedDB', { value: undefined })")
    page = opened(without, lab_address)
    field(page).fill("kept")
    page.reload()
    ready(page)
    expect(field(page)).to_have_value("kept")
    without.close()


@pytest.mark.slow
def test_a_browser_that_is_killed_has_the_text_that_the_second_copy_had(
    browser: Any, lab_address: str, tmp_path: Path
) -> None:
    start = browser.browser_type.launch_persistent_context
    options: Any = {"executable_path": str(CHROMIUM), "args": ["--no-sandbox", "--disable-gpu"]}
    profile, typed = tmp_path / "profile", ""
    for number in range(4):
        context = start(profile, **options)
        context.set_default_timeout(WAIT)
        page = context.new_page()
        page.goto(lab_address)
        ready(page)
        expect(field(page)).to_have_value(typed)
        field(page).press("Control+End")
        page.keyboard.type(f" {number}: typed by hand")
        typed = shown_text(page)
        wait_until(lambda page=page, typed=typed: typed in mirrored(page))
        os.kill(browser_process(profile), signal.SIGKILL)
        context.close()


def browser_process(profile: Path) -> int:
    """The browser's own process of a profile."""
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if f"--user-data-dir={profile}" in words and not any(word.startswith("--type=") for word in words):
            return process.info["pid"]
    raise AssertionError(profile)
