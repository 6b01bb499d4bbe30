"""What every test process needs: Ctrl-C that interrupts, one browser, and one Python that knows nothing of us."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.warm import WarmPython

CHROMIUM = Path("/usr/bin/chromium")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A runner in the background ignores Ctrl-C, and so would every command that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("busy", deadline=None)  # the machine may do other things
settings.load_profile("busy")

gc.disable()  # until the tests are collected: they import torch, transformers and gradio, which leave no garbage

# Folders whose tests share what takes long to make (a page and its browser; a proved bundle): each in one process.
TOGETHER = ("tests/page/", "tests/hub_export/")
# What takes longest begins, so that no process is left alone with it at the end. A process takes two at the start: the
# first and the third, the second and the fourth.
FIRST = (
    "tests/page/",
    "tests/test_readme.py",
    "tests/train/test_sweep.py",
    "tests/hub_export/",
    "tests/test_app.py",
    "tests/docs/test_notebooks.py",
    "tests/train/",
    "tests/test_app_fill.py",
    "tests/corpus/test_steps.py",
    "tests/panels/test_terminal.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of `FIRST` in front; the order within a file stays."""

    def rank(item: pytest.Item) -> int:
        return next((number for number, name in enumerate(FIRST) if item.nodeid.startswith(name)), len(FIRST))

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile`, with the folders of `TOGETHER` like one file each; None leaves it to pytest-xdist."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((name for name in TOGETHER if nodeid.startswith(name)), super()._split_scope(nodeid))

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


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


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmPython]:
    """Python without this project, without the Hub, and with an HF_HOME that was empty."""
    folder = tmp_path_factory.mktemp("stranger")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    environment |= {"HF_HOME": str(folder / "hf_home"), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with WarmPython.start(folder, environment, folder) as python:
        yield python
