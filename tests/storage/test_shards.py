"""Token shards: what was written is read back as one sequence, or refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.shards import SplitWriter, TokenSplit, read_manifest, write_manifest


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
