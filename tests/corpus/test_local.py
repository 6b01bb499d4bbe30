"""Which files a corpus is made of, and whether they are still the same."""

import os
from pathlib import Path

import pytest

from corpus.local import describe_changes, fingerprint


def test_a_fingerprint_tells_what_was_added_removed_and_edited(tmp_path: Path) -> None:
    for name, text in {"a.txt": "one", "b.txt": "two", "c.txt": "three"}.items():
        (tmp_path / name).write_text(text)
    before = fingerprint([tmp_path])
    assert before[0] == {
        "path": (tmp_path / "a.txt").as_posix(),
        "bytes": 3,
        "modified": (tmp_path / "a.txt").stat().st_mtime_ns,
        "sha256": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
    }
    assert describe_changes(before, fingerprint([tmp_path])) == ""
    (tmp_path / "a.txt").write_text("One")
    (tmp_path / "b.txt").unlink()
    (tmp_path / "d.txt").write_text("four")
    root = tmp_path.as_posix()
    changes = describe_changes(before, fingerprint([tmp_path], before))
    assert changes == f"1 file added ({root}/d.txt), 1 file removed ({root}/b.txt), 1 file edited ({root}/a.txt)"
    with pytest.raises(ValueError, match="no such file or folder"):
        fingerprint([tmp_path / "x.txt"])


def test_moved_files_are_the_same_and_another_order_is_not(tmp_path: Path) -> None:
    for name, text in {"a.txt": "one", "b.txt": "two"}.items():
        (tmp_path / name).write_text(text)
    before = fingerprint([tmp_path])
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert describe_changes(before, fingerprint([moved])) == ""
    turned = fingerprint([moved / "b.txt", moved / "a.txt"])
    assert describe_changes(fingerprint([moved]), turned) == "the files come in another order"


def test_a_file_of_the_same_size_and_time_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = fingerprint([path])
    path.write_text("two")
    os.utime(path, ns=(before[0]["modified"], before[0]["modified"]))
    assert describe_changes(before, fingerprint([path], before)) == ""
    assert describe_changes(before, fingerprint([path])) == f"1 file edited ({path.as_posix()})"


@pytest.mark.parametrize("start", ["", "/somewhere/"])  # the command line makes paths absolute
def test_an_address_is_no_path(start: str) -> None:
    with pytest.raises(
        ValueError, match=r"^https://example\.org/a/b\.txt: expected a file .+, got an address; download"
    ):
        fingerprint([Path(start + "https://example.org/a/b.txt")])
