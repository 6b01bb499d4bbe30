"""Something done to a folder at one exact call to the file system, which a thread meets once in a hundred tries."""

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class DisturbedAt:
    """Counts what is asked of the file system about a folder, and calls `change` before the one of this number."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, number: int, change: Callable[[], object]
    ) -> None:
        self.folder, self.number, self.change, self.count = str(folder), number, change, 0
        self.changing = False
        for module, name in [(os, "scandir"), (os, "stat"), (os, "listdir"), (io, "open"), (builtins, "open")]:
            monkeypatch.setattr(module, name, self.counted(getattr(module, name)))

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counting."""

        def call(*arguments: Any, **named: Any) -> Any:
            if not self.changing and arguments and self.folder in str(arguments[0]):
                self.count += 1
                if self.count == self.number:
                    self.changing = True
                    self.change()
                    self.changing = False
            return function(*arguments, **named)

        return call


def numbers(calls: int, every: int) -> list[int]:
    """One of each `every` calls, another place in each group; with 1 all of them, from the first."""
    return [group * every + group % every + 1 for group in range(calls // every)]
