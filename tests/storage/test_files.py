"""Nothing incomplete under a final name, whatever fails."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.files import atomic_file, atomic_folder

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
