"""`python app.py …` in a process of its own, for the tests of the page."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]


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
def serving(model: Path | str, *, cwd: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Address and process of the page of a model; it must say where it is, and nothing of an error to the end."""
    port = free_port()
    process = start("--model", model, "--port", port, cwd=cwd)
    assert process.stdout is not None
    try:
        said = [process.stdout.readline() for _ in range(2)]
        assert said[0].startswith("Model: "), said
        assert said[1] == f"The page is on http://127.0.0.1:{port} (Ctrl-C ends it)\n", said
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        rest, _ = process.communicate(timeout=30)
    assert "Traceback" not in rest, rest
