"""Checksums: what differs is named, and what has none counts as intact."""

import os
import subprocess
from pathlib import Path

import pytest

from storage.checksums import (
    SUMS,
    check_folder,
    damaged_files,
    describe_damage,
    file_checksum,
    is_seal_broken,
    sealed,
    write_checksums,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "training").mkdir()
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "training" / "state.json").write_text("{}")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "training" / ".cache").mkdir()
    (tmp_path / "training" / ".cache" / "file").touch()
    write_checksums(tmp_path)
    return tmp_path


def test_sha256sum_reads_what_is_written(folder: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "a.json: OK\ntraining/state.json: OK\n")
    assert damaged_files(folder) == []


def test_a_flipped_bit_and_a_missing_file_are_named(folder: Path) -> None:
    (folder / "a.json").write_bytes(b"{|")
    assert damaged_files(folder) == ["a.json"]
    (folder / "training" / "state.json").unlink()
    assert damaged_files(folder) == ["a.json", "training/state.json"]
    assert damaged_files(folder, leave_out="training/") == ["a.json"]
    with pytest.raises(
        ValueError,
        match=r"expected the files as they were written, but a\.json and training/state\.json do not have the "
        r"checksums they had when written\. Copy it again\. \(Where it was changed on purpose, delete SHA256SUMS\.\)",
    ):
        check_folder(folder, "Copy it again.")


def test_nothing_but_files_of_the_folder_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "device").symlink_to("/dev/zero")
    outside = folder.parent / f"{folder.name}.txt"
    outside.write_text("outside")
    named = ["/dev/zero", str(outside), "pipe", "device", f"../{outside.name}", "training/../../x", "training"]
    opened: list[Path] = []
    monkeypatch.setattr("storage.checksums.file_checksum", lambda path: opened.append(path) or file_checksum(path))
    with (folder / SUMS).open("a") as sums:
        sums.writelines(f"{file_checksum(outside)}  {name}\n" for name in named)
    assert damaged_files(folder) == sorted(named)
    assert opened == [folder / "a.json", folder / "training" / "state.json"]


def test_a_link_to_a_file_is_followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As the cache of the Hub has them."""
    blob = (folder / "a.json").rename(tmp_path_factory.mktemp("blobs") / "blob")
    (folder / "a.json").symlink_to(blob)
    assert damaged_files(folder) == []


@pytest.mark.parametrize("damage", [b"\x00", b"\xff", b"\n", b" "])
def test_damaged_checksums_are_found(folder: Path, damage: bytes) -> None:
    """At every place of the file: no flip there makes it fit."""
    raw = (folder / SUMS).read_bytes()
    for place in range(len(raw) - 1):
        if raw[place : place + 1] != damage:
            (folder / SUMS).write_bytes(raw[:place] + damage + raw[place + 1 :])
            assert damaged_files(folder), raw[:place]


def test_a_folder_without_checksums_is_intact(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert damaged_files(tmp_path) == []
    check_folder(tmp_path, "Do something.")


def test_the_checksum_of_a_beginning(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    before = file_checksum(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"one two")
    assert file_checksum(tmp_path / "a", 3) == before != file_checksum(tmp_path / "a")


def test_a_sealed_object() -> None:
    value = sealed({"tokens": 5, "files": ["a"]})
    assert not is_seal_broken(value)
    assert not is_seal_broken(dict(reversed(value.items())))
    assert is_seal_broken(value | {"tokens": 7})
    assert value["checksum"] == "335d569e990a1edc64556fcb7084b948ec426e557f5e8e8255897aabbd5d3eca"
    assert not is_seal_broken({"tokens": 5})


def test_a_clause_for_a_message() -> None:
    assert describe_damage(["a"]) == "a does not have the checksum it had when written"
    assert describe_damage(list("abcdef")).startswith("a, b, c, d, e and f do not have")
    assert describe_damage(list("abcdefg")).startswith("a, b, c, d, e and 2 more do not have the checksums they had")
