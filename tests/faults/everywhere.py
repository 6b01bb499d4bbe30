"""SIGKILL at every call in turn that opens a file of a folder for writing, renames or removes one: an audit hook of
Python, which needs no compiler, sees these (`shim.c` sees writes and syncs too)."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.mkdir"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def kills(command: Callable[[], object], folder: Path) -> Iterator[int]:
    """Run a command in a fork of this process, which should have one thread, and kill it before the first call, the
    second, and so on; yields the number of the call after each kill, and ends after a command that came to its end.

    Raises:
        RuntimeError: the command failed by itself.
    """
    status, number = -signal.SIGKILL, 0
    while status == -signal.SIGKILL:
        number += 1
        if not (child := os.fork()):
            status = 1
            try:
                sys.addaudithook(_killer(folder, number))
                command()
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == -signal.SIGKILL:
            yield number
    if status:
        raise RuntimeError(f"the command fails by itself at call {number}: status {status}")


def _killer(folder: Path, number: int) -> Callable[[str, tuple], None]:
    calls = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal calls
        if event in CHANGES or (event == "open" and arguments[2] & WRITES):
            calls += str(folder) in str(arguments[0])
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)

    return watch
