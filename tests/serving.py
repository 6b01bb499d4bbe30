"""`python app.py …` in a process of its own, and its page in a browser, for the tests of the page."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
WAIT = 90_000
"""Milliseconds that a page is waited for: what takes one second on a quiet machine took thirty beside other tests."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(*arguments: object, cwd: Path) -> subprocess.Popen:
    """The process; what it says comes through its standard output."""
    command = [sys.executable, str(ROOT / "app.py"), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "MODEL"}
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@contextmanager
def serving(
    model: Path | str | None, *arguments: object, cwd: Path, port: int | None = None, said: list[str] | None = None
) -> Iterator[tuple[str, psutil.Process]]:
    """Address and process of the page of a model (None: the one that it finds); it must say where it is, and nothing of
    an error to the end. What it says after that is added to the list `said`."""
    port = port or free_port()
    process = start(*([] if model is None else ["--model", model]), "--port", port, *arguments, cwd=cwd)
    assert process.stdout is not None
    try:
        first = [process.stdout.readline() for _ in range(2)]
        assert first[0].startswith("Model: "), first
        assert first[1] == f"The page is on http://127.0.0.1:{port} (Ctrl-C ends it)\n", first
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        rest, _ = process.communicate(timeout=60)
        if said is not None:
            said += rest.splitlines()
    assert "Traceback" not in rest, rest


def wait_until(condition: Callable[[], bool], seconds: float = WAIT / 1000) -> None:
    """Wait for `condition()`, as long as the browser waits for what it looks for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def equals(read: Callable[[], Any], expected: Any) -> None:
    """Wait until `read()` gives what is expected; what it gave last is compared in the failure."""
    deadline = time.monotonic() + WAIT / 1000
    while (got := read()) != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    assert got == expected


SEED = "#seed :is(input, textarea)"
"""The Write tab's field; those of other tabs have a similar label."""


def button(page: Any, name: str) -> Any:
    """The button with this name."""
    return page.get_by_role("button", name=name, exact=True)


def set_length(page: Any, tokens: int) -> None:
    """Move the slider for the length."""
    field = page.get_by_label("number input for Length", exact=True)
    field.fill(str(tokens))
    field.blur()


def choose_option(page: Any, field: Any, name: Any) -> None:
    """Choose in a dropdown: its list opens when the field gets the focus, and closes when the server renews what it
    offers, as it does after a change of the model. Then a second click does what a user's does."""
    from playwright.sync_api import TimeoutError

    option = page.get_by_role("option", name=name, exact=isinstance(name, str))
    deadline = time.monotonic() + WAIT / 1000
    while True:
        field.blur()
        field.click()
        try:
            return option.click(timeout=20_000)
        except TimeoutError:
            if time.monotonic() > deadline:
                raise


SIZE = {"width": 1280, "height": 720}


class Window:
    """A page in the browser, ready, which one test uses after the other: opening one takes seconds of CPU time."""

    def __init__(self, browser: Any, address: str) -> None:
        self.page, self._address = browser.new_page(viewport=SIZE), address
        self._asked: list[str] = []
        self._errors: list[str] = []
        self.page.on("request", lambda request: self._asked.append(request.url))
        self.page.on("console", lambda said: self._errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self._errors.append(str(error)))
        self.page.goto(address, timeout=120_000)
        self.page.get_by_text("Ready.", exact=True).wait_for(timeout=120_000)

    @contextmanager
    def lent(self) -> Iterator[Any]:
        """The page for one test, as large as at the beginning; it must ask no other host and report no error."""
        if self.page.viewport_size != SIZE:
            self.page.set_viewport_size(SIZE)
            self.page.wait_for_timeout(300)  # the tabs come out of their menu
        yield self.page
        elsewhere = [url for url in self._asked if not url.startswith((self._address, "data:", "blob:"))]
        errors = [*self._errors]
        self._asked.clear()
        self._errors.clear()  # they are this test's, not the next one's
        assert elsewhere == [], elsewhere
        assert errors == [], errors
