"""Python in a process of its own, for what a test must see from outside."""

import subprocess
import sys
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
