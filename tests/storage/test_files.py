"""Nothing incomplete under a final name, whatever fails."""

import errno
import fcntl
import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError

from storage.files import (
    atomic_file,
    atomic_folder,
    locked_folder,
    remove_folder,
    remove_leftovers,
    temporary_folder,
)  # fmt: skip

ROOT = Path(__file__).parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    with atomic_file(target) as file:
        file.write("é\n")
        assert not target.exists()
    assert target.read_bytes() == b"\xc3\xa9\n"
    with atomic_file(target, "wb") as file:
        file.write(b"\x00")
    assert target.read_bytes() == b"\x00"
    assert names(target.parent) == ["a.txt"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_what_was_there_and_no_temporary(tmp_path: Path, failure: type[BaseException]) -> None:
    file_path, folder_path = tmp_path / "a.txt", tmp_path / "run"
    file_path.write_text("old")
    folder_path.mkdir()
    (folder_path / "old").touch()
    with pytest.raises(failure), atomic_file(file_path) as file:  # noqa: PT012
        file.write("new")
        raise failure("stop")
    with pytest.raises(failure), atomic_folder(folder_path, replace=True) as folder:  # noqa: PT012
        (folder / "new").touch()
        raise failure("stop")
    assert file_path.read_text() == "old"
    assert names(folder_path) == ["old"]
    assert names(tmp_path) == ["a.txt", "run"]


def test_a_folder_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "run"
    with atomic_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("1")
    assert (target / "sub" / "a").read_text() == "1"
    with atomic_folder(target, replace=True) as folder:
        (folder / "b").touch()
    assert names(target) == ["b"]
    assert names(target.parent) == ["run"]


def test_an_existing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"expected a name that is free, but it exists; remove it or choose another"),
        atomic_folder(tmp_path),
    ):
        pytest.fail("the block must not run")


def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    with (
        pytest.raises(
            OSError, match=r"run: the disk has no room for it \(No space left on device\).*Free some space"
        ) as caught,
        atomic_folder(tmp_path / "run"),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x" * 100_000)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="no room for it"), atomic_file(tmp_path / "a.safetensors", "wb"):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert names(tmp_path) == []


def test_a_file_that_outgrows_the_room_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "from storage.files import atomic_file\n"
        f"with atomic_file({str(tmp_path / 'a.txt')!r}) as file:\n"
        "    file.write('x' * 1_000_000)\n"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = subprocess.run(
        [sys.executable, "-B", "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "a.txt: the disk has no room for it (File too large)" in done.stderr
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OSError, match=r"a: cannot be written \(File exists\).*choose another place"),
        atomic_file(tmp_path / "file" / "a"),
    ):
        pytest.fail("the block must not run")


KILLED = """
import os, signal, sys
from pathlib import Path
from storage import files

target, moment = Path(sys.argv[1]), sys.argv[2]
rename = Path.rename

def killed(path, to):
    if moment == "before the new" and path.name.endswith(".tmp"):
        os.kill(os.getpid(), signal.SIGKILL)
    done = rename(path, to)
    if moment == "before the deletion" and path.name.endswith(".tmp"):
        os.kill(os.getpid(), signal.SIGKILL)
    return done

Path.rename = killed
with files.atomic_folder(target, replace=True) as folder:
    (folder / "new").touch()
    if moment == "while writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def kill(target: Path, moment: str) -> None:
    """A process that replaces a folder and is killed at that moment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-B", "-c", KILLED, str(target), moment], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["while writing", "before the new", "before the deletion"])
@pytest.mark.parametrize("cleans", ["the next writer", "a sweep of the folder"])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, moment: str, cleans: str) -> None:
    """A folder that was moved aside for a replacement that did not come has its name again."""
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").touch()
    kill(target, moment)
    assert len(names(tmp_path)) > 1 or not target.exists()
    if cleans == "a sweep of the folder":
        remove_leftovers(tmp_path)
        assert names(tmp_path) == ["run"]
        assert names(target) == (["new"] if moment == "before the deletion" else ["old"])
    with atomic_folder(target, replace=True) as folder:
        (folder / "next").touch()
    assert names(tmp_path) == ["run"]
    assert names(target) == ["next"]


@pytest.mark.parametrize("letter", ["n", "ä"])
@pytest.mark.parametrize("moment", ["before the new", "before the deletion"])
def test_a_long_name_comes_back_as_it_was(tmp_path: Path, letter: str, moment: str) -> None:
    """Its temporaries cannot have all of it; a sweep of the folder, which has no more, leaves them alone."""
    length = 230 // len(letter.encode())
    target, other = tmp_path / (letter * length), tmp_path / (letter * (length - 1) + "x")
    target.mkdir()
    (target / "old").touch()
    kill(target, moment)
    left = names(tmp_path)
    remove_leftovers(tmp_path)
    assert [name for name in names(tmp_path) if name.endswith(".old")] == [n for n in left if n.endswith(".old")]
    with atomic_folder(other):
        pass
    with pytest.raises(RuntimeError), atomic_folder(target, replace=True):
        raise RuntimeError
    assert names(tmp_path) == sorted([target.name, other.name])
    assert names(target) == (["old"] if moment == "before the new" else ["new"])


def test_a_folder_that_came_back_is_not_replaced_unasked(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").touch()
    kill(target, "before the new")
    assert not target.exists()
    with pytest.raises(ValueError, match="expected a name that is free"), atomic_folder(target):
        pytest.fail("the block must not run")
    assert names(target) == ["old"]


def test_what_somebody_writes_now_is_no_leftover(tmp_path: Path) -> None:
    """Two writers of one name at once, and a sweep: the last one to end counts, and nothing is lost."""
    target = tmp_path / "a.txt"
    with atomic_file(target) as first:
        first.write("first")
        with atomic_file(target) as second:
            second.write("second")
        remove_leftovers(tmp_path)
        assert target.read_text() == "second"
    assert target.read_text() == "first"
    with atomic_folder(tmp_path / "b") as folder:
        remove_leftovers(tmp_path)
        (folder / "c").touch()
    assert names(tmp_path) == ["a.txt", "b"]


def test_leftovers_are_known_by_their_whole_name(tmp_path: Path) -> None:
    others = [".a.txt.0123456789ab.tmp.txt", ".a.txt.abc.tmp", "a.txt.0123456789ab.tmp", ".b.txt.0123456789ab.tmp"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / ".a.txt.0123456789ab.tmp").touch()
    with atomic_file(tmp_path / "a.txt") as file:
        file.write("x")
    assert names(tmp_path) == sorted([*others, "a.txt"])


@pytest.mark.parametrize("start", ["", "a"], ids=["cut between characters", "cut inside one"])
def test_a_long_name_in_another_script(tmp_path: Path, start: str) -> None:
    target = tmp_path / (start + "я" * 120 + ".txt")
    with atomic_file(target) as file:
        file.write("x")
    assert names(tmp_path) == [target.name]


def test_a_folder_is_removed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where deleting its files stops in the middle, its name is free already."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").touch()
    monkeypatch.setattr("storage.files.shutil.rmtree", lambda *given, **named: None)
    remove_folder(tmp_path / "a")
    assert [name[:3] for name in names(tmp_path)] == [".a."]
    monkeypatch.undo()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_a_full_disk_in_a_tree_that_is_copied_is_explained(tmp_path: Path) -> None:
    """shutil.Error is a list of what failed, without a number."""
    with pytest.raises(OSError, match="a: the disk has no room for it") as caught, atomic_folder(tmp_path / "a"):
        raise shutil.Error([("one", "two", "[Errno 28] No space left on device: 'two'")])
    assert caught.value.errno == errno.ENOSPC


def test_a_full_disk_that_numpy_meets_is_explained(tmp_path: Path) -> None:
    """It says "50000 requested and 4936 written", without a number of the error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"a\.npy: the disk has no room for it") as caught:
            write_array(tmp_path / "a.npy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == []


def write_array(path: Path) -> None:
    with atomic_file(path, "wb") as file:
        np.save(file, np.arange(50_000))


def test_a_full_disk_of_temporary_files_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors reports it in an exception of its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    message = rf"{tmp_path}.check-….*the disk has no room for it .*TMPDIR"
    with pytest.raises(OSError, match=message) as caught, temporary_folder("check-"):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == []


def test_a_folder_to_be_locked_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OSError, match=r"run: cannot be written \(Not a directory\).*choose another place"),
        locked_folder(tmp_path / "file" / "run", "busy"),
    ):
        pytest.fail("the block must not run")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every sync and every rename, in order; a temporary is called tmp or old."""
    done: list[str] = []
    fsync, rename, replace = os.fsync, Path.rename, Path.replace

    def short(path: Path) -> str:
        return path.suffix[1:] if path.name.startswith(".") else path.name

    def noted_fsync(descriptor: int) -> None:
        done.append(f"sync {short(Path(f'/proc/self/fd/{descriptor}').readlink())}")
        fsync(descriptor)

    def noted(move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def moved(path: Path, target: Path) -> Path:
            done.append(f"{short(path)} -> {short(Path(target))}")
            return move(path, target)

        return moved

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted(rename))
    monkeypatch.setattr(Path, "replace", noted(replace))
    return done


def test_all_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, calls: list[str]) -> None:
    """A name that reaches the disk first would be that of an empty file after a loss of power."""
    with atomic_file(tmp_path / "deep" / "deeper" / "a.txt") as file:
        file.write("x")
    assert calls == ["sync tmp", "tmp -> a.txt", "sync deeper"]
    calls.clear()
    for _ in range(2):
        with atomic_folder(tmp_path / "high" / "higher" / "run", replace=True) as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "a").touch()
            (folder / "b").touch()
    contents = ["sync b", "sync tmp", "sync a", "sync sub"]
    first = [*contents, "tmp -> run", "sync higher"]
    assert calls == [*first, *contents, "run -> old", "tmp -> run", "sync higher"]


def test_nobody_takes_what_is_being_replaced_for_a_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep at the moment at which neither the old folder nor the new one has the name."""
    (tmp_path / "run").mkdir()
    rename = Path.rename

    def swept(path: Path, target: Path) -> Path:
        if path.suffix == ".tmp":
            remove_leftovers(tmp_path)
            assert not (tmp_path / "run").exists()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", swept)
    with atomic_folder(tmp_path / "run", replace=True) as folder:
        (folder / "new").touch()
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["new"]


def test_an_old_folder_that_cannot_be_deleted_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stuck").touch()
    unlink = os.unlink

    def stuck(path: str, *given: Any, **named: Any) -> None:
        if path == "stuck":
            raise PermissionError(errno.EPERM, "not permitted")
        unlink(path, *given, **named)

    monkeypatch.setattr(os, "unlink", stuck)
    with atomic_folder(tmp_path / "run", replace=True) as folder:
        (folder / "new").touch()
    assert names(tmp_path / "run") == ["new"]


def test_a_file_and_a_link_are_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with atomic_folder(tmp_path / name, replace=True) as folder:
            (folder / "new").touch()
        assert names(tmp_path / name) == ["new"]
    assert names(tmp_path) == ["elsewhere", "file", "link"]
    assert names(tmp_path / "elsewhere") == ["kept"]


def test_the_first_error_counts_where_the_temporary_is_gone_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), atomic_folder(tmp_path / "run") as folder:  # noqa: PT012
        folder.rmdir()
        raise RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"), atomic_file(tmp_path / "a.txt"):  # noqa: PT012
        (temporary,) = tmp_path.iterdir()
        temporary.unlink()
        raise RuntimeError("stop")
    assert names(tmp_path) == []


def test_a_temporary_that_was_taken_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removed it before it was locked; no descriptor is left open."""
    flock, taken = fcntl.flock, 0

    def late(descriptor: int, operation: int) -> None:
        nonlocal taken
        if taken < 3:
            taken += 1
            (temporary,) = tmp_path.iterdir()
            temporary.rmdir() if temporary.is_dir() else temporary.unlink()
        flock(descriptor, operation)

    def descriptors() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    gc.collect()
    before = descriptors()
    monkeypatch.setattr(fcntl, "flock", late)
    with atomic_file(tmp_path / "a.txt") as file:
        assert descriptors() == before + 2  # the file, and the lock that outlives it
        file.write("x")
    (tmp_path / "a.txt").unlink()
    taken = 0
    with atomic_folder(tmp_path / "run") as folder:
        (folder / "new").touch()
    assert names(tmp_path / "run") == ["new"]
    assert descriptors() == before


def test_a_lock_keeps_others_out_until_the_block_ends(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "deep" / "run", "busy: wait"):
        with (
            pytest.raises(ValueError, match=r"deep/run: busy: wait$"),
            locked_folder(tmp_path / "deep" / "run", "busy: wait"),
        ):
            pytest.fail("the block must not run")
        (tmp_path / "deep" / "run" / "a").touch()
    with locked_folder(tmp_path / "deep" / "run", "busy: wait"):
        assert (tmp_path / "deep" / "run" / "a").exists()
