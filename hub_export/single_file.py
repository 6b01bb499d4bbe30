"""What the exports to a single file share: the optional packages they need, and the name they write to."""

import importlib.util
import os
from pathlib import Path


def require(*packages: str, for_what: str) -> None:
    """Refuses to go on without optional packages.

    Raises:
        ValueError: one is missing; the message has the pip command.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{for_what} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            f"pip install {' '.join(missing)}"
        )


def check_output(out: Path, force: bool, *, kind: str, magic: bytes) -> None:
    """Refuses to overwrite what is at `out`: anything without `force`, and what is no file of that kind even with it.

    Args:
        out: the file to make.
        force: whether a file of that kind may be replaced.
        kind: the name of the format.
        magic: its first bytes.

    Raises:
        ValueError: saying what is there.
    """
    if not os.path.lexists(out):
        return
    if not out.is_file() or not _begins_with(out, magic):
        raise ValueError(
            f"{out}: expected a name that is free, but something that is no {kind} file is there (so not even --force "
            "replaces it). Remove it yourself or choose another --out."
        )
    if not force:
        raise ValueError(
            f"{out}: expected a name that is free, but a file of type {kind} is there. "
            "Add --force to replace it, or choose another --out."
        )


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
