"""Batches that are drawn ahead, as on CUDA, here on the CPU: the same batches, positions and runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from tests.train.test_batches import END, stream_of, write_split
from tests.train.test_pending import WEIGHTS, defer
from train.config import Config
from train.data.ahead import AheadBatches
from train.data.batches import Batch, Batches, training_batches
from train.data.masking import MaskedBatches, Masking
from train.data.replay import ReplayedBatches
from train.loop import Trainer, train

KINDS = ("random", "shuffled", "packed", "masked", "replayed")


def make(kind: str, split: Any) -> Batches:
    """Batches whose epochs have a few of them."""

    def windows(kind: str) -> Batches:
        return training_batches(split, kind, batch_size=3, length=8, seed=5, end_of_text=END)

    if kind == "masked":
        masking = Masking(mask_token_id=1, vocab_size=300, special_ids=(END, 1), rate=0.3)
        return MaskedBatches(windows("shuffled"), masking, seed=5)
    return ReplayedBatches(windows("packed"), windows("random")) if kind == "replayed" else windows(kind)


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(KINDS), draws=st.lists(st.integers(0, 2), min_size=1, max_size=25), at=st.integers(0, 24))
def test_batches_and_positions_are_those_without(
    tmp_path_factory: pytest.TempPathFactory, kind: str, draws: list[int], at: int
) -> None:
    """Over epochs, however often one is drawn ahead; and again after a return to an earlier position."""
    split = write_split(tmp_path_factory.mktemp("split"), stream_of([5, 30, 4, 7, 12, 3])[0])
    plain, ahead = make(kind, split), AheadBatches(make(kind, split))
    positions, batches = [], []
    for count in draws:
        for _ in range(count):
            ahead.draw()
        positions.append(plain.state_dict())
        assert ahead.state_dict() == positions[-1]
        batches.append(plain.next())
        assert same(ahead.next(), batches[-1])
    at = at % len(draws)
    ahead.draw()
    ahead.load_state_dict(positions[at])
    assert ahead.state_dict() == positions[at]
    assert all(same(ahead.next(), batch) for batch in batches[at:])


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.input_BL, other.input_BL) and torch.equal(one.target_BL, other.target_BL)


def test_an_error_is_raised_in_the_step_of_its_batch(tmp_path: Path) -> None:
    """And not before: what is evaluated and saved after the present step is not lost."""
    split = write_split(tmp_path, stream_of([30] * 5)[0])
    for kind in KINDS:
        batches, plain = AheadBatches(make(kind, split)), make(kind, split)
        read, split.read = split.read, None  # pyright: ignore[reportAttributeAccessIssue]
        batches.draw()
        assert batches.state_dict() == plain.state_dict()
        with pytest.raises(TypeError):
            batches.next()
        batches.load_state_dict(plain.state_dict())
        split.read = read
        assert same(batches.next(), plain.next())


def draw_ahead(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let runs be as on CUDA; what they do, in its order."""
    build, events = Trainer._build, []

    def build_as_on_cuda(trainer: Trainer, prepared: Any) -> None:
        build(trainer, prepared)
        assert not trainer.draws_ahead  # on the CPU
        trainer.draws_ahead = True

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: (events.append(name), call(*given))[1]

    monkeypatch.setattr(Trainer, "_build", build_as_on_cuda)
    monkeypatch.setattr(AheadBatches, "draw", counted("draw", AheadBatches.draw))
    monkeypatch.setattr(Trainer, "_forward_backward", counted("queue", Trainer._forward_backward))
    monkeypatch.setattr(Trainer, "_read_numbers", counted("read", Trainer._read_numbers))
    return events


@pytest.mark.parametrize("deferred", [False, True])
def test_a_run_is_the_same_bit_for_bit_and_draws_before_it_waits(
    tiny: Config,
    finished_run: Path,
    fresh_run_dir: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    deferred: bool,
) -> None:
    events = draw_ahead(monkeypatch)
    if deferred:
        defer(monkeypatch)
    run = RunFolder(train(with_fields(tiny, run__dir=fresh_run_dir("ahead"), run__log_every=100), recipe="debug"))
    whole = RunFolder(finished_run)
    assert (run.checkpoint_folder(12) / WEIGHTS).read_bytes() == (whole.checkpoint_folder(12) / WEIGHTS).read_bytes()
    assert events.count("draw") == 11  # none after the last step
    assert all(events[place - 1] == "queue" for place, event in enumerate(events) if event == "draw")
    followers = {events[place + 1] for place, event in enumerate(events) if event == "draw"}
    assert followers == ({"read", "queue"} if deferred else {"read"})


@pytest.mark.parametrize("skipped", [(), (3, 4, 9)])
@pytest.mark.parametrize("windows", ["packed", "random"])
def test_a_run_that_was_stopped_goes_on_as_if_it_was_not(
    tiny: Config,
    fresh_run_dir: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    windows: str,
    skipped: tuple[int, ...],
) -> None:
    config = with_fields(tiny, run__skip_batches=skipped, data__windows=windows)
    plain = RunFolder(train(with_fields(config, run__dir=fresh_run_dir("plain")), recipe="debug"))
    draw_ahead(monkeypatch)
    stopped = with_fields(config, run__dir=fresh_run_dir("stopped"))
    train(stopped, recipe="debug", watch=lambda step, _: "asked" if step == 8 else None)
    run = RunFolder(train(with_fields(stopped, run__resume=True), recipe="debug"))
    assert (run.checkpoint_folder(12) / WEIGHTS).read_bytes() == (plain.checkpoint_folder(12) / WEIGHTS).read_bytes()
