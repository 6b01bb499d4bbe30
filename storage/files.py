"""Files and folders that appear under their final name complete, or not at all.

Both context managers write under a temporary name beside the target, sync it to the disk, and rename it. Any
exception on the way, KeyboardInterrupt included, removes the temporary and leaves the target as it was. A process that
is killed leaves its temporary there; the next one that writes the same target removes it, as `remove_leftovers` does
in a whole folder. Who writes holds a lock on the temporary (flock), so that nobody takes it for a leftover.
"""

import contextlib
import errno
import glob
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows: there nothing is locked, and leftovers stay
    fcntl = None

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Libraries that write for themselves (safetensors, torch) report a full disk in the text of exceptions of their own.
_FULL_TEXT = os.strerror(errno.ENOSPC).lower()
# numpy (`tofile`, `save`, and GGUF files) says how many numbers were written, and not why no more.
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
# What is written (.tmp), and a target that was moved aside for its replacement (.old).
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}\.(?P<kind>tmp|old)")
_LOCK = ".lock"
_LONGEST_STEM = 200  # bytes
_SHORTENED = re.compile(r".+~[0-9a-f]{16}")
_NOTHING_LEFT = "nothing was left under this name"


def as_path(name: str | Path, expected: str) -> Path:
    """The path that somebody named; whether something is there is not said.

    Args:
        expected: what it should name, for the message.

    Raises:
        ValueError: no file system can have it (it is too long, or of a user who is not there), or it may not be read.
    """
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:
        text = str(name)
        text = text if len(text) <= 80 else f"{text[:80]} … ({len(text):,} characters)"
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ValueError(f"expected {expected}, got {text}: {reason}") from None
    return path


def matching_paths(folder: Path, pattern: str) -> list[Path]:
    """The paths below a folder that match a pattern, in order; hidden ones only where the pattern names them.

    A folder that is missing, or that somebody deletes at this moment, has none: `Path.glob` raises in the second case
    before Python 3.13.
    """
    return [folder / name for name in sorted(glob.glob(pattern, root_dir=folder))]  # noqa: PTH207 (see above)


@contextlib.contextmanager
def atomic_file(path: str | Path, mode: str = "w", **open_kwargs: Any) -> Generator[IO[Any]]:
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
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers_of(path)
        temporary, file, lock = _open_temporary(path, mode.replace("w", "x"), open_kwargs)
    try:
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
    finally:
        _close(lock)


@contextlib.contextmanager
def atomic_folder(path: str | Path, *, replace: bool = False) -> Generator[Path]:
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
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers_of(path)
        temporary, lock = _make_temporary(path)
    try:
        _refuse_existing(path, replace)  # again: a folder that a killed process had moved aside is back
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
    finally:
        _close(lock)


def remove_folder(path: Path) -> None:
    """Delete a folder; a process that is killed meanwhile leaves nothing incomplete under its name.

    Raises:
        OSError: it cannot be deleted.
    """
    aside = _temporary_name(path)
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a folder and all below it under temporary names.

    A target that was moved aside, and whose replacement did not come, gets its name back.
    """
    for parent, names, files in os.walk(folder):
        for name in [*names, *files]:
            if _TEMPORARY.fullmatch(name):
                _remove_leftover(Path(parent, name))
        names[:] = [name for name in names if not _TEMPORARY.fullmatch(name)]


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Generator[Path]:
    """An empty folder where the system keeps what is temporary; it is removed after the block.

    Raises:
        OSError: there is no such place that may be written to, or it has no room for what the block writes; the message
            says what to do.
    """
    try:
        place = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise OSError(
            f"expected a temporary folder that may be written to: {error.strerror}. Set TMPDIR to a folder that may"
        ) from error
    left = "it was temporary, and is removed (TMPDIR is where such folders are made)"
    with (
        _full_disk_explained(Path(place, f"{prefix}…"), left),
        tempfile.TemporaryDirectory(prefix=prefix, dir=place) as name,
    ):
        yield Path(name)


@dataclass(frozen=True, slots=True)
class FolderLock:
    """A lock on a folder that is held. It is on the lock file, not on its name: where somebody deletes the folder and
    another process makes it again and locks it, both hold a lock."""

    folder: Path
    identity: tuple[int, int] | None  # device and inode of the lock file; no other file gets them while it is held

    def check(self) -> None:
        """Raise an OSError unless the folder is the one that was locked."""
        found = _identity(self.folder / _LOCK)
        if found is None or found != self.identity:
            what = "deleted or renamed" if found is None else "deleted, and another process has made one of that name"
            raise OSError(
                f"{self.folder}: expected the folder that this process began in, but it was {what}; nothing more is "
                "written into it. Begin again in another folder"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def locked_folder(folder: Path, busy: str) -> Generator[FolderLock]:
    """Keep every other process out of a folder for the block, by a lock file in it.

    Args:
        folder: it is made where it is missing.
        busy: what the error says after the folder's name when another process has it.

    Raises:
        ValueError: another process has the lock.
    """
    lock = FileLock(folder / _LOCK, timeout=1, poll_interval=0.02)  # who only asks holds it for a moment
    try:
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except Timeout:
        raise ValueError(f"{folder}: {busy}") from None
    try:
        yield FolderLock(folder, _identity(folder / _LOCK))
    finally:
        lock.release()


@contextlib.contextmanager
def locked_file(path: Path) -> Generator[None]:
    """Let one process at a time read a file and write it again, for the block; the others wait.

    Raises:
        OSError: the lock file beside it cannot be written; the message names `path` and what to do.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with explain_write_errors(path):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def explain_write_errors(path: Path, left: str = _NOTHING_LEFT) -> Generator[None]:
    """Rewords an OSError of the block, which writes what will be `path`: the type and errno stay, the message says
    which file, what happened, what is left (`left`), and what to do.
    """
    try:
        with _full_disk_explained(path, left):
            yield
    except OSError as error:
        if error.strerror is None:
            raise
        raise _reworded(
            error,
            f"{path}: cannot be written ({error.strerror}); {left}. "
            "Check that its folder exists and may be written to, or choose another place.",
        ) from error


def sync_file(path: Path) -> None:
    """Have a file that was appended to on the disk before anything that is written later; one that is not there is
    left out.

    Raises:
        OSError: the disk refuses; the message names the file.
    """
    with explain_write_errors(path, "what was in it before is kept"), contextlib.suppress(FileNotFoundError):
        _sync(path)


def _temporary_name(path: Path, kind: str = "tmp") -> Path:
    return path.parent / f".{_stem(path)}.{secrets.token_hex(6)}.{kind}"


def _stem(path: Path) -> str:
    """The name of a target as its temporaries have it: a name may have 255 bytes in all, so of a long one its beginning
    and a checksum."""
    name = os.fsencode(path.name)
    if len(name) <= _LONGEST_STEM:
        return path.name
    return f"{name[: _LONGEST_STEM - 17].decode(errors='ignore')}~{hashlib.sha256(name).hexdigest()[:16]}"


def _open_temporary(path: Path, mode: str, open_kwargs: dict[str, Any]) -> tuple[Path, IO[Any], int | None]:
    """A new temporary file of `path`, open, and a descriptor that holds the lock on it beyond its closing."""
    while True:
        temporary = _temporary_name(path)
        file = temporary.open(mode, **open_kwargs)
        lock = os.dup(file.fileno()) if fcntl else None
        if _hold(lock, temporary):
            return temporary, file, lock
        file.close()


def _make_temporary(path: Path) -> tuple[Path, int | None]:
    """A new temporary folder of `path`, and a descriptor that holds the lock on it."""
    while True:
        temporary = _temporary_name(path)
        temporary.mkdir()
        lock = os.open(temporary, os.O_RDONLY) if fcntl else None
        if _hold(lock, temporary):
            return temporary, lock


def _hold(lock: int | None, temporary: Path) -> bool:
    """Lock a temporary that is still empty; whether it is there. Where not, another process took it for a leftover
    before it was locked, and the descriptor is closed."""
    if lock is None or not fcntl:
        return True
    with contextlib.suppress(OSError):  # a file system without locks: nobody removes leftovers there
        fcntl.flock(lock, fcntl.LOCK_EX)
    if temporary.exists():
        return True
    os.close(lock)
    return False


def _close(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _remove_leftovers_of(path: Path) -> None:
    with os.scandir(path.parent) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(f".{_stem(path)}.")]
    for name in names:
        found = _TEMPORARY.fullmatch(name)
        if found and found["name"] == _stem(path):
            _remove_leftover(path.parent / name, path)


def _remove_leftover(path: Path, target: Path | None = None) -> None:
    """Remove a temporary, or give a target that was moved aside its name back, unless somebody is at work on it.

    Args:
        target: None (default): as the temporary's name has it. One that was moved aside, and whose name was too long
            for that, stays until the target is written again.
    """
    found = _TEMPORARY.fullmatch(path.name)
    assert found
    if not fcntl:
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if target is None and _SHORTENED.fullmatch(found["name"]) and found["kind"] == "old":
                return
            target = target or path.with_name(found["name"])
            if found["kind"] == "old" and not os.path.lexists(target):
                path.rename(target)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        finally:
            os.close(descriptor)


def _refuse_existing(path: Path, replace: bool) -> None:
    if not replace and os.path.lexists(path):
        raise ValueError(f"{path}: expected a name that is free, but it exists; remove it or choose another name")


def _swap_in(temporary: Path, path: Path) -> None:
    """Renames `temporary` to `path`; what was there comes back if that fails, and is deleted if it succeeds."""
    if not os.path.lexists(path):
        temporary.rename(path)
        return
    aside = _temporary_name(path, "old")
    lock = os.open(path, os.O_RDONLY) if fcntl and path.is_dir() else None
    _hold(lock, path)
    try:
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
    finally:
        _close(lock)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows has no handle of a folder to sync
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _full_disk_explained(path: Path, left: str = _NOTHING_LEFT) -> Generator[None]:
    """Rewords a full disk, whoever reports it, into one OSError; every other exception passes as it is."""
    try:
        yield
    except Exception as error:
        code = getattr(error, "errno", None)
        # By a block inside this one; shutil.Error, of several files, has no errno.
        worded = isinstance(error, OSError) and error.strerror is None and code is not None
        text = str(error)
        if worded or (code not in _FULL and _FULL_TEXT not in text.lower() and not _SHORT_WRITE.fullmatch(text)):
            raise
        reason = os.strerror(code if code in _FULL else errno.ENOSPC)
        message = (
            f"{path}: the disk has no room for it ({reason}); {left}. "
            "Free some space or choose a folder on another disk, then run the same command again."
        )
        raise _reworded(error if code in _FULL else OSError(errno.ENOSPC, reason), message) from error


def _reworded(error: BaseException, message: str) -> OSError:
    reworded = type(error)(message) if isinstance(error, OSError) else OSError(message)
    reworded.errno = getattr(error, "errno", None)
    return reworded
