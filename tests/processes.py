"""Python in a process of its own, for what a test must see from outside."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CLEAN = str(Path(__file__).parent / "clean")
"""A PYTHONPATH with which Python does not find this project, whether it is installed or not."""


@dataclass(frozen=True)
class Python:
    """`python WORDS` with the environment of somebody else, in `folder`."""

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str, typed: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Like `subprocess.run`; `typed` is its standard input."""
        return subprocess.run(
            [sys.executable, *words],
            cwd=folder or self.folder,
            env=self.environment,
            input=typed,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


@contextlib.contextmanager
def running_page(
    *command: str | Path, folder: Path, environment: dict[str, str], log: Path, seconds: float = 180.0
) -> Iterator[str]:
    """The address of the page that `command` serves, with `--port` added, until the block ends; `log` is what it wrote.

    Raises:
        AssertionError: it ended, or there is no page after so many seconds; the message has the end of the log.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [*map(str, command), "--port", port]
    with log.open("w") as output:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + seconds
        while f"http://127.0.0.1:{port}" not in log.read_text("utf-8"):
            assert process.poll() is None, f"the page ended: {log.read_text('utf-8')[-500:]}"
            assert time.monotonic() < end, f"no page after {seconds:.0f} s: {log.read_text('utf-8')[-500:]}"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)
