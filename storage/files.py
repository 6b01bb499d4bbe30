"""Files and folders that appear under their final name complete, or not at all.

Both context managers write under a temporary name beside the target, sync it to the disk, and rename it. Any
exception on the way, KeyboardInterrupt included, removes the temporary and leaves the target as it was.
"""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Libraries that write for themselves (safetensors, torch) report a full disk in the text of exceptions of their own.
_FULL_TEXT = os.strerror(errno.ENOSPC).lower()


@contextlib.contextmanager
def atomic_file(path: str | Path, mode: str = "w", **open_kwargs: Any) -> Iterator[IO[Any]]:
    """Opens a file for writing that takes the name `path`, replacing what is there, when the block ends well.

    Missing parent folders are made. Text is UTF-8 with `\\n` line ends unless `open_kwargs` (those of `open`) say
    otherwise.

    Args:
        path: the final name.
        mode: `"w"` (default) or `"wb"`.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the message names `path` and what to do.
    """
    assert mode in {"w", "wb"}, f"atomic_file writes complete files: mode 'w' or 'wb', got {mode!r}"
    path = Path(path)
    if "b" not in mode:
        open_kwargs = {"encoding": "utf-8", "newline": "\n", **open_kwargs}
    temporary = _temporary_sibling(path)
    try:
        with explain_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = temporary.open(mode.replace("w", "x"), **open_kwargs)
        try:
            with _full_disk_explained(path):
                yield file
            with explain_write_errors(path):
                file.flush()
                os.fsync(file.fileno())
        finally:
            with contextlib.suppress(OSError):  # the write that failed already speaks for itself
                file.close()
        with explain_write_errors(path):
            temporary.replace(path)
            _sync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def atomic_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Makes an empty temporary folder, to be filled in the block, that takes the name `path` when the block ends well.

    Missing parent folders are made. With `replace` an existing target is moved aside, the new folder takes its name,
    and only then is the old one deleted.

    Args:
        path: the final name.
        replace: whether an existing target may be replaced (default: no).

    Raises:
        ValueError: `path` exists and `replace` is false.
        OSError: the folder cannot be written, or the disk is full; the message names `path` and what to do.
    """
    path = Path(path)
    _refuse_existing(path, replace)
    temporary = _temporary_sibling(path)
    try:
        with explain_write_errors(path):
            temporary.mkdir(parents=True)
        with _full_disk_explained(path):
            yield temporary
        with explain_write_errors(path):
            for folder, _, names in os.walk(temporary):
                for name in names:
                    _sync(Path(folder, name))
                _sync(Path(folder))
        _refuse_existing(path, replace)
        with explain_write_errors(path):
            _swap_in(temporary, path)
            _sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def locked_folder(folder: Path, busy: str) -> Iterator[None]:
    """Keep every other process out of a folder for the block, by a lock file in it.

    Args:
        folder: it is made where it is missing.
        busy: what the error says after the folder's name when another process has it.

    Raises:
        ValueError: another process has the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{folder}: {busy}") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Rewords an OSError of the block, which writes what will be `path`: the type and errno stay, the message says
    which file, what happened, and what to do.
    """
    try:
        with _full_disk_explained(path):
            yield
    except OSError as error:
        if error.strerror is None:
            raise
        raise _reworded(
            error,
            f"{path}: cannot be written ({error.strerror}); nothing was left under this name. "
            "Check that its folder exists and may be written to, or choose another place.",
        ) from error


def _temporary_sibling(path: Path) -> Path:
    return path.parent / f".{path.name[:40]}.{secrets.token_hex(6)}.tmp"


def _refuse_existing(path: Path, replace: bool) -> None:
    if not replace and os.path.lexists(path):
        raise ValueError(f"{path}: expected a name that is free, but it exists; remove it or choose another name")


def _swap_in(temporary: Path, path: Path) -> None:
    """Renames `temporary` to `path`; what was there comes back if that fails, and is deleted if it succeeds."""
    if not os.path.lexists(path):
        temporary.rename(path)
        return
    aside = _temporary_sibling(path)
    path.rename(aside)
    try:
        temporary.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows has no handle of a folder to sync
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _full_disk_explained(path: Path) -> Iterator[None]:
    """Rewords a full disk, whoever reports it, into one OSError; every other exception passes as it is."""
    try:
        yield
    except Exception as error:
        code = getattr(error, "errno", None)
        worded = isinstance(error, OSError) and error.strerror is None  # by a block inside this one
        if worded or (code not in _FULL and _FULL_TEXT not in str(error).lower()):
            raise
        reason = os.strerror(code if code in _FULL else errno.ENOSPC)
        message = (
            f"{path}: the disk has no room for it ({reason}); nothing was left under this name. "
            "Free some space or choose a folder on another disk, then run the same command again."
        )
        raise _reworded(error if code in _FULL else OSError(errno.ENOSPC, reason), message) from error


def _reworded(error: BaseException, message: str) -> OSError:
    reworded = type(error)(message) if isinstance(error, OSError) else OSError(message)
    reworded.errno = getattr(error, "errno", None)
    return reworded
