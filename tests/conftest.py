"""What every test process needs: Ctrl-C that interrupts, one browser, and a Python without this project."""

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.processes import CLEAN, Python
from tests.serving import WAIT

CHROMIUM = Path("/usr/bin/chromium")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A runner in the background ignores Ctrl-C, and so would every command that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("busy", deadline=None)  # the machine may do other things
settings.load_profile("busy")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are named by their length: archives have the time in them, and two processes that collect in different
    seconds would not agree on the names of the tests, which ends pytest-xdist."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium."""
    if not CHROMIUM.exists():
        pytest.skip(f"no chromium at {CHROMIUM} (apt-get install chromium)")
    playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    playwright_api.expect.set_options(timeout=WAIT)
    with playwright_api.sync_playwright() as playwright:
        browser = PatientBrowser(partial(playwright.chromium.launch, executable_path=str(CHROMIUM), args=flags))
        yield browser
        browser.close()


class PatientBrowser:
    """A browser whose pages wait as long as a busy machine needs; one that has crashed, which Chromium does at times,
    is launched again and fails no test but the one that it crashed in."""

    def __init__(self, launch: Callable[[], Any]) -> None:
        self._launch, self._browser = launch, launch()

    @property
    def running(self) -> Any:
        """The browser."""
        if not self._browser.is_connected():
            self._browser = self._launch()
        return self._browser

    def __getattr__(self, name: str) -> Any:
        return getattr(self.running, name)

    def new_page(self, **settings: Any) -> Any:
        """A page in a profile of its own."""
        page = self.running.new_page(**settings)
        page.set_default_timeout(WAIT)
        return page

    def new_context(self, **settings: Any) -> Any:
        """A profile."""
        context = self.running.new_context(**settings)
        context.set_default_timeout(WAIT)
        return context


@pytest.fixture(scope="session")
def clean_python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Python without this project, without the Hub, and with an HF_HOME that was empty."""
    folder = tmp_path_factory.mktemp("clean")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    environment |= {"HF_HOME": str(folder / "hf_home"), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = CLEAN
    return Python(folder, environment)
