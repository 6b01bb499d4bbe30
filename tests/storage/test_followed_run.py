"""A run folder that another process writes: its JSON Lines, its lock, its checkpoints."""

import json
import os
from pathlib import Path

import pytest
from filelock import FileLock

from storage.records import JsonlFollower
from storage.run_folder import RunFolder


def line(step: int, **values: object) -> str:
    return json.dumps({"step": step} | values) + "\n"


@pytest.fixture
def followed(tmp_path: Path) -> JsonlFollower:
    """A file that does not exist yet."""
    return JsonlFollower(tmp_path / "metrics.jsonl", integer_field="step")


def test_a_follower_reads_only_what_was_appended(followed: JsonlFollower) -> None:
    path = followed.path
    assert not followed.read()
    path.write_text(line(1) + line(2))
    assert followed.read()
    with path.open("r+") as stream:  # what was read already may change without being read again
        stream.write("x" * 10)
        stream.seek(0, os.SEEK_END)
        stream.write(line(3))
    assert followed.read()
    assert [each["step"] for each in followed.records] == [1, 2, 3]
    assert followed.offset == path.stat().st_size
    assert not followed.read()
    path.unlink()
    assert followed.read()
    assert followed.records == []


def test_an_unfinished_last_line_waits_for_its_end_and_a_broken_one_is_counted(followed: JsonlFollower) -> None:
    last = line(2, text="a\u2028b")
    followed.path.write_text(line(1) + '{"step": 1, "tra\x00\n[1]\n{"step": "one"}\n\n' + last[:9])
    followed.read()
    assert [each["step"] for each in followed.records] == [1]
    assert followed.broken == 3
    with followed.path.open("a") as stream:
        stream.write(last[9:])
    assert followed.read()
    assert followed.records[-1]["text"] == "a\u2028b"


@pytest.mark.parametrize("how", ["replaced", "replaced by a longer one", "cut"])
def test_a_rewound_file_is_read_from_its_beginning(followed: JsonlFollower, how: str) -> None:
    path = followed.path
    path.write_text("".join(map(line, range(1, 6))))
    followed.read()
    new = line(1, train_loss=9.0) + (line(2) * 40 if "longer" in how else "")
    if how == "cut":
        path.write_text(new)
    else:
        (path.parent / "new").write_text(new)
        (path.parent / "new").replace(path)
    assert followed.read()
    assert followed.records[0]["train_loss"] == 9.0
    assert len(followed.records) == new.count("\n")


def test_testing_the_lock_leaves_it_free_and_makes_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not run.is_locked
    assert not (tmp_path / ".lock").exists()
    with run.lock():
        assert run.is_locked
    assert not run.is_locked
    with FileLock(tmp_path / ".lock", timeout=0):
        pass


def test_incomplete_checkpoints_are_left_out(tmp_path: Path) -> None:
    for name in ("step-000020", "step-000003", ".step-000030.abc.tmp", "step-x"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "config.json").write_text("{}")
    (tmp_path / "checkpoints" / "step-000010").mkdir()
    assert list(RunFolder(tmp_path).checkpoints()) == [3, 20]
