"""What every test process needs: Ctrl-C that interrupts, and one browser."""

import gc
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

CHROMIUM = Path("/usr/bin/chromium")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A runner in the background ignores Ctrl-C, and so would every command that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("busy", deadline=None)  # the machine may do other things
settings.load_profile("busy")

gc.disable()  # until the tests are collected: they import torch, transformers and gradio, which leave no garbage

# The files that take longest, the longest first: they begin, so that no process is left alone with one at the end.
LONGEST = (
    "tests/test_readme.py",
    "tests/hub_export/test_push.py",
    "tests/test_app.py",
    "tests/page",
    "tests/hub_export/test_space.py",
    "tests/docs/test_notebooks.py",
    "tests/train",
    "tests/hub_export",
    "tests/corpus/test_steps.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the files that take longest first; the order within a file stays."""

    def rank(item: pytest.Item) -> int:
        return next((number for number, name in enumerate(LONGEST) if item.nodeid.startswith(name)), len(LONGEST))

    items.sort(key=rank)


def pytest_collection_finish(session: pytest.Session) -> None:
    """From here on there is garbage again, but not among what was imported."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium."""
    if not CHROMIUM.exists():
        pytest.skip(f"no chromium at {CHROMIUM} (apt-get install chromium)")
    playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield browser
        browser.close()
