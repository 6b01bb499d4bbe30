"""A really trained, tiny run, its page in a process of its own, and one window of a browser that looks at it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.run_folder import RunFolder
from tests.panels.tiny_model import save_checkpoint
from tests.serving import Window, serving
from train.config import replace_fields
from train.loop import train
from train.recipes import get_recipe

EVIL = """---
license: mit
title: [broken

# A card <b>of</b> a stranger

<script>window.broken = 1</script> <img src=x onerror="window.broken = 2">
![far](https://example.org/a.png) [link](javascript:window.broken=3) <svg onload="window.broken = 4">
<iframe src="https://example.org/"></iframe> <div style="background: url(https://example.org/b.png)">block</div>

```mermaid
graph TD; A@{ img: "https://example.org/c.png" } --> B;
```

> ```
<img src="https://example.org/d.png" onerror="window.broken = 5">
"""


@pytest.fixture(scope="session")
def lab_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder `runs/lab` with two checkpoints, and beside `runs` the folder `bundle` of the best one, with a card
    that tries everything."""
    home = tmp_path_factory.mktemp("lab")
    run = home / "runs" / "lab"
    train(replace_fields(get_recipe("debug"), {"run.dir": run}), recipe="debug")
    bundle = shutil.copytree(RunFolder(run).checkpoint(), home / "bundle")
    (bundle / "README.md").write_text(EVIL)
    return run


@pytest.fixture(scope="session")
def lab_address(lab_run: Path) -> Iterator[str]:
    """Address of the page of that bundle."""
    with serving("bundle", cwd=lab_run.parents[1]) as (address, _):
        yield address


@pytest.fixture(scope="module")
def slow_window(browser: Any, slow_address: str) -> Iterator[Window]:
    """The page of a model that takes its time."""
    window = Window(browser, slow_address)
    yield window
    window.page.close()


@pytest.fixture
def page(slow_window: Window) -> Iterator[Any]:
    """The page of the slow model, as the test before left it; some files have another one by this name."""
    with slow_window.lent() as page:
        yield page


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


@pytest.fixture
def browsing(browser: Any) -> Iterator[Any]:
    """A browser profile of its own."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    yield context
    context.close()


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes its time and never ends a text."""
    return save_checkpoint(tmp_path_factory.mktemp("slow") / "slow", layers=256)


@pytest.fixture(scope="module")
def slow_address(slow_model: Path) -> Iterator[str]:
    """Address of its page."""
    with serving(slow_model, cwd=slow_model.parent) as (address, _):
        yield address
