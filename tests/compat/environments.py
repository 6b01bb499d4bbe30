"""Throw-away Python environments that share one installed torch.

An environment is a virtual environment with a `.pth` file that leads to folders behind its own site-packages. What it
installs itself comes first. pip counts packages found through the `.pth` as installed, so torch is neither fetched nor
copied again. It needs the network: pip takes the packages from its index.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SHARED = "behind.pth"
FOREIGN_VARIABLES = ("HF_", "HUGGING", "TRANSFORMERS_", "PYTHON", "PYTORCH_", "TORCH", "PIP_REQUIRE")
"""Beginnings of variables that would lead an environment back to this project, or to the user's caches or account."""


def closure(roots: tuple[str, ...]) -> set[str]:
    """The installed distributions that `roots` need, with themselves, by normalised name."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in roots]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(needed.name))
    return found


def link_packages(names: set[str], folder: Path) -> None:
    """Fill `folder` with links to the files of installed distributions, as a site-packages that has nothing else."""
    folder.mkdir(parents=True)
    for name in sorted(names):
        distribution = importlib.metadata.distribution(name)
        tops = {path.parts[0] for path in distribution.files or () if path.parts[0] not in ("..", "__pycache__")}
        for top in sorted(tops):
            target = Path(str(distribution.locate_file(top))).resolve()
            if not (folder / top).exists() and target.exists():
                (folder / top).symlink_to(target)


def site_packages() -> Path:
    """The folder with the packages of the Python that runs."""
    return Path(str(importlib.metadata.distribution("torch").locate_file("")))


class Environment:
    """A virtual environment at `folder`, with packages of its own in front of those in `behind`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"

    def make(self, behind: Path, packages: list[str]) -> None:
        """Create it and install `packages` with pip.

        Raises:
            OSError: pip failed; the message has the end of what it wrote.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", "--without-pip", str(self.folder)], "make a virtual environment")
        own = next(self.folder.glob("lib/python*/site-packages"), self.folder / "Lib" / "site-packages")
        (own / SHARED).write_text(f"{behind.resolve()}\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet"]
        pip += ["--disable-pip-version-check", "--no-compile", "--upgrade", *packages]
        if packages:
            _run(pip, f"install {' '.join(packages)}")
        (self.folder / "complete").touch()

    @property
    def complete(self) -> bool:
        """Whether `make` has ended without an error."""
        return (self.folder / "complete").exists()

    def run(self, *arguments: object, scratch: Path, timeout: float, **variables: str) -> subprocess.CompletedProcess:
        """Run its Python with an empty HF_HOME in `scratch`, which is the working directory; no network for the Hub.

        Raises:
            subprocess.TimeoutExpired: it took more than `timeout` seconds.
        """
        return subprocess.run(
            [self.python, *map(str, arguments)],
            cwd=scratch,
            env=variables_for(scratch) | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def variables_for(scratch: Path) -> dict[str, str]:
    """The variables of a process that knows nothing of this project, the user's caches or account."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_VARIABLES)}
    return kept | {
        "HF_HOME": str(scratch / "hf_home"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


@contextmanager
def environment(folder: Path, behind: Path, packages: list[str], *, keep: bool) -> Iterator[Environment]:
    """An environment for the time of the block; with `keep` it stays, and is used again when it is complete."""
    made = Environment(folder)
    try:
        if not (keep and made.complete):
            made.make(behind, packages)
        yield made
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR") and "from versions:" not in line] or lines[-1:]
        raise OSError(f"cannot {what}: {' '.join(errors)[-600:]}")
