"""Windows that stand in a split, against brute force."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.repeats import repeated_windows
from storage.shards import TokenSplit


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 2), max_size=60),
    st.lists(st.integers(0, 2), max_size=30),
    st.integers(1, 7),
    st.sampled_from([1, 3, 2**18]),
)
def test_they_are_what_brute_force_finds(
    tmp_path: Path, corpus: list[int], written: list[int], window: int, chunk: int
) -> None:
    np.save(tmp_path / "train-00000.npy", np.asarray(corpus, dtype=np.uint16))
    description = {"files": ["train-00000.npy"], "tokens": len(corpus), "bytes": 0, "documents": 1}
    split = TokenSplit(tmp_path, description)
    known = {tuple(corpus[start : start + window]) for start in range(len(corpus) - window + 1)}
    expected = [tuple(written[start : start + window]) in known for start in range(max(0, len(written) - window + 1))]
    assert [found.tolist() for found in repeated_windows(split, [written, [], corpus], window, chunk=chunk)] == [
        expected,
        [],
        [True] * max(0, len(corpus) - window + 1),
    ]


@pytest.mark.parametrize("window", [2, 50])
def test_large_ids_do_not_meet_by_chance(tmp_path: Path, window: int) -> None:
    random = np.random.default_rng(1)
    corpus = random.integers(0, 65_536, size=100_000, dtype=np.uint16)
    np.save(tmp_path / "train-00000.npy", corpus)
    split = TokenSplit(tmp_path, {"files": ["train-00000.npy"], "tokens": len(corpus), "bytes": 0, "documents": 1})
    written = [*corpus[500:600].tolist(), 70_000, *corpus[9_000:9_100].tolist()]
    (found,) = repeated_windows(split, [written], window)
    around = set(range(100 - window + 1, 101))
    assert [start for start in range(len(found)) if not found[start]] == sorted(around)
