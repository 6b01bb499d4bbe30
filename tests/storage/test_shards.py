"""Token shards: what was written is read back as one sequence, or refused."""

import io
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import shards
from storage.checksums import file_checksum
from storage.shards import SplitWriter, TokenSplit, describe_ids, read_ids, read_manifest, write_manifest

ROOT = Path(__file__).parents[2]


def write_split(folder: Path, parts: list[list[int]], shard_tokens: int) -> dict[str, object]:
    """The entry of the manifest."""
    writer = SplitWriter(folder=folder, name="train", dtype=np.uint16, shard_tokens=shard_tokens)
    for part in parts:
        writer.append(np.array(part, dtype=np.int64))
    writer.flush()
    return {"tokens": writer.tokens, "bytes": 9, "documents": 1, "files": writer.files}


@given(st.lists(st.lists(st.integers(0, 2**16 - 1), max_size=9), max_size=9), st.integers(1, 12), st.data())
def test_shards_are_one_sequence(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], shard_tokens: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("tokens")
    ids = [token for part in parts for token in part]
    if not ids:
        return
    entry = write_split(folder, parts, shard_tokens)
    assert len(list(folder.glob("train-*.npy"))) == -(-len(ids) // shard_tokens)
    split = TokenSplit(folder, entry)
    start = data.draw(st.integers(0, len(ids)))
    end = data.draw(st.integers(start, len(ids)))
    assert split.read(start, end - start).tolist() == ids[start:end]
    assert split.positions_of(ids[0]).tolist() == [place for place, token in enumerate(ids) if token == ids[0]]


def test_few_shards_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps a file descriptor, and a large text has thousands."""
    opened = []
    map_array = shards.map_array

    def mapping(path: Path, again: str) -> np.ndarray:
        array = map_array(path, again)
        opened.append(weakref.ref(array))
        return array

    monkeypatch.setattr(shards, "map_array", mapping)
    monkeypatch.setattr(shards, "MOST_MAPS", 3)
    ids = list(range(40))
    split = TokenSplit(tmp_path, write_split(tmp_path, [ids], 2))
    for start in (0, 7, 31, 0):
        assert split.read(start, 9).tolist() == ids[start : start + 9]
        assert sum(array() is not None for array in opened) <= 3
    assert split.positions_of(39).tolist() == [39]
    assert len(opened) > 40


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of file sizes")
def test_a_shard_for_which_there_is_no_room_is_named(tmp_path: Path) -> None:
    program = (
        "import resource, signal, numpy\n"
        "from pathlib import Path\n"
        "from storage.shards import SplitWriter\n"
        f"writer = SplitWriter(folder=Path({str(tmp_path / 'tokens')!r}), name='train', dtype=numpy.uint16)\n"
        "writer.append(numpy.arange(50_000))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "writer.flush()\n"
    )
    command = [sys.executable, "-B", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "train-00000.npy: the disk has no room for it (File too large)" in done.stderr
    assert not list((tmp_path / "tokens").iterdir())


def test_a_shard_is_what_numpy_writes(tmp_path: Path) -> None:
    write_split(tmp_path, [list(range(9)), [], [7, 300]], 100)
    expected = io.BytesIO()
    np.save(expected, np.array([*range(9), 7, 300], dtype=np.uint16))
    assert (tmp_path / "train-00000.npy").read_bytes() == expected.getvalue()


def test_a_folder_is_complete_with_its_manifest_and_must_fit_it(tmp_path: Path) -> None:
    entry = write_split(tmp_path, [list(range(9))], 100)
    assert read_manifest(tmp_path) is None
    write_manifest(tmp_path, {"train": entry, "validation": entry | {"tokens": 8}})
    assert read_manifest(tmp_path) == {"train": entry, "validation": entry | {"tokens": 8}}
    assert len(TokenSplit.open(tmp_path, "train")) == 9
    with pytest.raises(ValueError, match="expected 8 tokens as the manifest says, got 9"):
        TokenSplit.open(tmp_path, "validation")
    with pytest.raises(ValueError, match="expected a split called test, but the manifest has none"):
        TokenSplit.open(tmp_path, "test")


def test_a_flipped_bit_in_ids_or_their_facts_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ids.npy"
    np.save(path, np.arange(50, dtype=np.uint16))
    describe_ids(path, tokenizer="t", tokens=50, texts=1, ends=True, sources=[])
    assert len(read_ids(path)[0]) == 50
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(
        ValueError, match=r"but ids\.npy does not have the checksum it had when written: write it again"
    ):
        read_ids(path)
    path.write_bytes(raw)
    facts = tmp_path / "ids.npy.json"
    facts.write_text(facts.read_text().replace('"texts": 1', '"texts": 3'))
    with pytest.raises(ValueError, match=r"but ids\.npy\.json does not have the checksum"):
        read_ids(path)


def test_damaged_shards_and_manifests_are_named_with_what_to_do(tmp_path: Path) -> None:
    entry = write_split(tmp_path, [list(range(9))], 4)
    sums = {name: file_checksum(tmp_path / name) for name in sorted(path.name for path in tmp_path.glob("train-*"))}
    write_manifest(tmp_path, {"train": entry | {"sha256": sums}, "validation": entry})
    for split in ("train", "validation"):
        TokenSplit.open(tmp_path, split).check()
    raw = (tmp_path / "train-00001.npy").read_bytes()
    (tmp_path / "train-00001.npy").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(
        ValueError, match=r"but train-00001\.npy does not have .* Delete the folder, and the same command"
    ):
        TokenSplit.open(tmp_path, "train").check()
    TokenSplit.open(tmp_path, "validation").check()  # of an older version, without checksums
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"documents": 1', '"documents": 2', 1))
    with pytest.raises(
        ValueError, match=r"but manifest\.json does not have the checksum .*\. Delete .*, and the same comm"
    ):
        read_manifest(tmp_path)


def test_ids_that_are_not_as_described_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ids.npy"
    np.save(path, np.arange(50, dtype=np.uint16))
    with pytest.raises(ValueError, match=r"expected ids\.npy\.json beside it, which says whose ids they are, got none"):
        read_ids(path)
    describe_ids(path, tokenizer="t", tokens=51, texts=1, ends=True, sources=[])
    with pytest.raises(
        ValueError, match=r"expected 51 tokens, as ids\.npy\.json says, got an array of shape \(50,\): write"
    ):
        read_ids(path)
