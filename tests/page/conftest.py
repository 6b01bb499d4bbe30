"""A really trained, tiny run, its page in a process of its own, and a browser that looks at it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.serving import Window, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def lab_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder `runs/lab` with two checkpoints, trained once for all test processes."""
    home = tmp_path_factory.getbasetemp().parent / "lab-home"
    run = home / "runs" / "lab"
    with FileLock(str(home) + ".lock"):
        if not run.is_dir():
            command = [sys.executable, "-m", "train", "debug", "--run-dir", str(run)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope="session")
def lab_address(lab_run: Path) -> Iterator[str]:
    """Address of the page of that run."""
    with serving(lab_run, cwd=lab_run.parents[1]) as (address, _):
        yield address


@pytest.fixture(scope="module")
def window(browser: Any, lab_address: str) -> Iterator[Window]:
    """The page in the browser, one for all tests of a file."""
    window = Window(browser, lab_address)
    yield window
    window.page.close()


@pytest.fixture
def lab_page(window: Window) -> Iterator[Any]:
    """The page, as the test before left it."""
    with window.lent() as page:
        yield page
