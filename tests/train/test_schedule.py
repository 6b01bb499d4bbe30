"""Step → learning rate."""

import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.config import ScheduleConfig
from train.optimizer import Schedule


def factors(schedule: Schedule) -> list[float]:
    return [schedule.factor(step) for step in range(schedule.steps)]


def test_constant_after_a_linear_warm_up() -> None:
    assert factors(Schedule(ScheduleConfig(warmup_steps=4), 6)) == [0.25, 0.5, 0.75, 1, 1, 1]


def test_warm_up_stable_decay() -> None:
    schedule = Schedule(ScheduleConfig(name="wsd", warmup_steps=2, decay_fraction=0.5), 8)
    assert factors(schedule) == [0.5, 1, 1, 1, 1, 0.75, 0.5, 0.25]


def test_cosine_falls_from_one_to_the_final_ratio() -> None:
    schedule = Schedule(ScheduleConfig(name="cosine", final_ratio=0.1), 1001)
    assert schedule.factor(0) == 1
    assert schedule.factor(500) == pytest.approx(0.55, abs=1e-3)
    assert schedule.factor(1000) == pytest.approx(0.1, abs=1e-4)


@given(
    steps=st.integers(10, 200),
    changes=st.lists(st.tuples(st.integers(1, 199), st.integers(1, 199)), max_size=4),
    decay=st.sampled_from([0.2, 0.5, 1.0]),
)
def test_a_run_of_another_length_falls_without_a_jump_and_lands(
    steps: int, changes: list[tuple[int, int]], decay: float
) -> None:
    schedule = Schedule(ScheduleConfig(name="wsd", decay_fraction=decay), steps)
    step, seen = 0, []
    while step < schedule.steps:
        for at, to in changes:
            if at == step and step < to:
                before = schedule.factor(step)
                schedule.resize(step, to)
                assert schedule.factor(step) == pytest.approx(before)
        seen.append(schedule.factor(step))
        step += 1
    assert all(later <= earlier + 1e-12 for earlier, later in zip(seen, seen[1:], strict=False))
    assert 0 < seen[-1] <= 1
    assert schedule.factor(schedule.steps) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["wsd", "cosine", "constant"])
def test_an_extended_run_rises_to_the_schedule_of_its_length(name: Literal["wsd", "cosine", "constant"]) -> None:
    """It was shortened while its rate fell, and ended; after a rise as long as the warm-up nothing shows that."""
    config = ScheduleConfig(name=name, warmup_steps=10, decay_fraction=0.5)
    schedule = Schedule(config, 100)
    schedule.resize(60, 80)
    last = schedule.factor(80)
    schedule.extend(80, 400)
    planned = Schedule(config, 400)
    rise = [schedule.factor(step) for step in range(80, 90)]
    rising = [last + (1 - last) * (step + 1) / 10 for step in range(10)]
    assert rise == pytest.approx([min(each, planned.factor(80 + step)) for step, each in enumerate(rising)])
    assert [schedule.factor(step) for step in range(90, 401)] == [planned.factor(step) for step in range(90, 401)]
    copy = Schedule(config, 100)
    copy.load_state_dict(schedule.state_dict())
    assert copy == schedule


@given(st.lists(st.floats(0.1, 10, allow_nan=False), min_size=1, max_size=40), st.integers(1, 5))
def test_plateau_is_torchs_rule(losses: list[float], patience: int) -> None:
    config = ScheduleConfig(name="plateau", plateau_patience=patience, plateau_factor=0.1, plateau_threshold=1e-3)
    ours = Schedule(config, 100)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.1, patience=patience, threshold=1e-3, threshold_mode="rel", eps=0
    )
    for loss in losses:
        ours.evaluated(loss)
        theirs.step(loss)
        assert ours.factor(0) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_state_round_trip() -> None:
    schedule = Schedule(ScheduleConfig(name="plateau"), 50)
    copy = Schedule(schedule.config, 50)
    copy.load_state_dict(schedule.state_dict())
    assert copy == schedule
    assert math.isinf(copy.best)
    for loss in (3.0, 3.0, 3.0):
        schedule.evaluated(loss)
    copy.load_state_dict(schedule.state_dict())
    assert copy == schedule


def test_a_plateau_ends_at_the_final_ratio() -> None:
    config = ScheduleConfig(name="plateau", plateau_patience=1, plateau_factor=0.1, final_ratio=0.01)
    schedule = Schedule(config, 100)
    factors = []
    for _ in range(12):
        schedule.evaluated(1.0)
        factors.append(schedule.factor(10))
    assert factors[0] == 1.0
    assert min(factors) == factors[-1] == 0.01
    assert pytest.approx(factors[3]) == 0.1
