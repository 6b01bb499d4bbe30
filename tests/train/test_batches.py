"""Windows and the batches of an evaluation."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.shards import SplitWriter, TokenSplit
from train.data.batches import (
    IGNORED,
    ConsecutiveWindows,
    PackedWindows,
    RandomWindows,
    evaluation_batches,
    training_evaluation_batches,
)

END = 0


def write_split(folder: Path, ids: list[int], **more: object) -> TokenSplit:
    writer = SplitWriter(folder=folder, name="train", dtype=np.uint16)
    writer.append(np.array(ids, dtype=np.int64))
    writer.flush()
    return TokenSplit(
        folder, {"tokens": writer.tokens, "bytes": len(ids), "documents": 1, "files": writer.files, **more}
    )


def stream_of(lengths: list[int]) -> tuple[list[int], list[list[int]]]:
    """Documents of distinct ids, and their stream E d1 E d2 … E."""
    numbers = iter(range(1, 60_000))
    documents = [[next(numbers) for _ in range(length)] for length in lengths]
    return [END] + [token for document in documents for token in [*document, END]], documents


def test_random_windows_depend_on_seed_and_position_alone(tmp_path: Path) -> None:
    split = write_split(tmp_path, list(range(100)))
    batches = RandomWindows(split, batch_size=5, length=8, seed=1)
    drawn = [batches.next() for _ in range(4)]
    again = RandomWindows(split, batch_size=5, length=8, seed=1)
    again.load_state_dict({"drawn": 2})
    assert again.next().input_BL.equal(drawn[2].input_BL)
    other = RandomWindows(split, batch_size=5, length=8, seed=2)
    assert not other.next().input_BL.equal(drawn[0].input_BL)
    for batch in drawn:
        assert batch.target_BL.equal(batch.input_BL + 1)


@settings(max_examples=60, deadline=None)
@given(tokens=st.integers(5, 300), length=st.integers(3, 40), batch_size=st.integers(1, 9), seed=st.integers(0, 5))
def test_shuffled_windows(
    tmp_path_factory: pytest.TempPathFactory, tokens: int, length: int, batch_size: int, seed: int
) -> None:
    """Every epoch has every token as a target, once but for those of its first and last window, in windows at other
    places and in another order than the epoch before; a run that goes on has the same batches."""
    if tokens < length + 1:
        return
    split = write_split(tmp_path_factory.mktemp("split"), list(range(tokens)))

    def new() -> ConsecutiveWindows:
        return ConsecutiveWindows(split, batch_size=batch_size, length=length, seed=seed)

    epochs = [new().windows_of(epoch) for epoch in range(3)]
    for starts in epochs:
        targets = [start + place for start in starts for place in range(1, length + 1)]
        assert set(targets) == set(range(1, tokens))
        inner = sorted(starts)[1:-1]
        assert all(after - before == length for before, after in zip(inner, inner[1:], strict=False))
    if tokens > 12 * length:
        assert [sorted(starts) for starts in epochs] != [list(starts) for starts in epochs]
        assert len({tuple(starts) for starts in epochs}) == 3
    batches = new()
    drawn = [batches.next() for _ in range(5)]
    stopped, resumed = new(), new()
    for _ in range(3):
        stopped.next()
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.next().input_BL.equal(drawn[3].input_BL)
    for batch in drawn:
        assert batch.input_BL.shape == (batch_size, length)
        assert batch.target_BL.equal(batch.input_BL + 1)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), length=st.integers(3, 12), seed=st.integers(0, 5))
def test_packed_windows(tmp_path_factory: pytest.TempPathFactory, lengths: list[int], length: int, seed: int) -> None:
    """Every window is a run of documents (or a piece of one); an epoch holds no token of a short one twice, and every
    token of a long one with what follows it."""
    ids, documents = stream_of(lengths)
    if len(ids) < length + 2:
        return
    split = write_split(tmp_path_factory.mktemp("split"), ids)
    batches = PackedWindows(split, batch_size=1, length=length, seed=seed, end_of_text=END)
    follows = dict(zip(ids[1:], ids[2:], strict=False))
    first_tokens = {document[0] for document in documents}
    seen: list[int] = []
    while True:
        batch = batches.next()
        if batches.epoch:
            break
        window = [*batch.input_BL[0].tolist(), int(batch.target_BL[0, -1])]
        for token, after in zip(window, window[1:], strict=False):
            assert after in first_tokens if token == END else after == follows[token]
        seen += [token for token in batch.input_BL[0].tolist() if token != END]
    short = {token for document in documents if len(document) + 1 <= length for token in document}
    counted = [token for token in seen if token in short]
    assert len(counted) == len(set(counted))
    long = {token for document in documents if len(document) + 1 > length for token in document}
    assert long <= set(seen)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), length=st.integers(3, 50))
def test_whole_documents_are_scored_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], length: int
) -> None:
    ids, _ = stream_of(lengths)
    split = write_split(tmp_path_factory.mktemp("split"), ids, log_probability=-1.0)
    batches = evaluation_batches(split, batch_size=4, length=length, windows=1, end_of_text=END)
    targets = np.concatenate([batch.target_BL.numpy().ravel() for batch in batches])
    assert sorted(targets[targets != IGNORED].tolist()) == sorted(ids[1:])
    follows = dict(zip(ids[1:], ids[2:], strict=False))
    for batch in batches:
        for token, target in zip(batch.input_BL.flatten().tolist(), batch.target_BL.flatten().tolist(), strict=True):
            assert target == IGNORED or token == END or target == follows[token]


def test_evenly_spaced_windows(tmp_path: Path) -> None:
    split = write_split(tmp_path, list(range(101)))
    batches = evaluation_batches(split, batch_size=2, length=10, windows=5, end_of_text=END)
    starts = [int(row[0]) for batch in batches for row in batch.input_BL]
    assert starts == [0, 22, 45, 67, 90]
    one = evaluation_batches(split, batch_size=2, length=500, windows=5, end_of_text=END)
    assert one[0].input_BL.shape == (1, 100)


def test_training_windows_are_evaluated_beside_those_of_validation(tmp_path: Path) -> None:
    """As many as validate, of the same kind: windows, or complete documents where these are scored."""
    train = write_split(tmp_path / "train", list(range(301)))
    few, many = (write_split(tmp_path / str(size), list(range(size))) for size in (31, 101))
    sizes = dict(batch_size=2, length=10, windows=5, end_of_text=END)
    for validation, starts in ((few, [0, 145, 290]), (many, [0, 72, 145, 217, 290])):
        batches = training_evaluation_batches(train, validation, **sizes)
        assert [int(row[0]) for batch in batches for row in batch.input_BL] == starts
        assert len(starts) == sum(len(batch.input_BL) for batch in evaluation_batches(validation, **sizes))
    ids, documents = stream_of([3, 5, 4, 6, 2])
    train = write_split(tmp_path / "documents", ids)
    known = write_split(tmp_path / "known", ids, log_probability=-1.0)
    for windows, chosen in ((1, [0]), (3, [0, 2, 4]), (9, [0])):  # its description says that one document validates
        known.documents = 1 if windows == 9 else 5
        batches = training_evaluation_batches(train, known, **(sizes | {"windows": windows}))
        targets = [target for batch in batches for target in batch.target_BL.flatten().tolist() if target != IGNORED]
        assert targets == [token for index in chosen for token in [*documents[index], END]]
