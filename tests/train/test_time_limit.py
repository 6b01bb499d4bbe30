"""The time limit of a run: it stretches, then it shortens the schedule and says so; a run that it cut short goes on."""

import re
import shlex
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.records import read_jsonl
from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from train.__main__ import main, parse
from train.config import Config
from train.loop import Trainer, train
from train.pacing.time_limit import Costs
from train.run_log import RunLog

STEP = 0.01
"""Seconds of a step on the clock of these tests; nothing else takes time."""


@pytest.fixture
def run_with_clock(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., RunFolder]:
    """Trains `tiny` for `steps` on a clock on which step number n takes `seconds(n)`."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    do_step = Trainer._step
    pace: list[Callable[[int], float]] = [lambda step: STEP]

    def stepping(trainer: Trainer) -> None:
        do_step(trainer)
        now[0] += pace[0](trainer.state.step)

    monkeypatch.setattr(Trainer, "_step", stepping)
    folders: dict[str, Path] = {}

    def run(seconds: Callable[[int], float] = lambda step: STEP, *, name: str = "timed", **fields: object) -> RunFolder:
        pace[0] = seconds
        folders[name] = folders.get(name) or fresh_run_dir(name)
        longer = {"evaluate_every": 10_000, "checkpoint_every": 10_000}
        config = with_fields(
            tiny, model__num_hidden_layers=1, run__dir=folders[name],
            **{f"run__{key}": value for key, value in (longer | fields).items()},
        )  # fmt: skip
        return RunFolder(train(config, recipe="debug"))

    return run


def log_of(run: RunFolder) -> str:
    return run.log.read_text()


@pytest.mark.parametrize(
    ("seconds", "steps", "tolerance"),
    [
        # What the last evaluation will take is not known, and room is left for it.
        pytest.param(lambda step: STEP, 96, 0, id="steady"),
        # The first steps take five times as long as the others: what they took of the time is lost, and no more.
        pytest.param(lambda step: STEP * (5 if step <= 5 else 1), 76, 3, id="busy-at-the-beginning"),
    ],
)
def test_a_hard_limit_cuts_the_run_short_and_says_so(
    run_with_clock: Callable[..., RunFolder], seconds: Callable[[int], float], steps: int, tolerance: int
) -> None:
    run = run_with_clock(seconds, steps=100_000, max_seconds=1.0)
    state = run.state
    assert state["status"] == "finished"
    assert state["step"] == state["steps"] == pytest.approx(steps, abs=tolerance)
    assert state["planned_steps"] == 100_000
    assert state["max_seconds"] == 1.0
    assert state["seconds"] == pytest.approx(1.0, abs=0.05)
    said = f"the time limit of 1 s ended the run after {state['step']} of 100,000 planned steps (0% of its tokens)"
    assert state["cut_short"] == said
    assert f"cut short: {said}; it goes on, without a limit, with\n  {state['resume_command']}\n" in log_of(run)
    assert log_of(run).count("the schedule is shortened, for now to") == 1
    if not tolerance:  # the rate stays at its peak for half the run, and falls to nothing
        rates = [line["learning_rate"] for line in read_jsonl(run.path / "metrics.jsonl")]
        assert rates[30] == 3e-3
        assert rates[-1] == pytest.approx(3e-3 / 48)


def test_a_limit_stretches_for_the_planned_steps_and_says_so(run_with_clock: Callable[..., RunFolder]) -> None:
    """A run of 200 steps with time for 100 of them; for 30 steps the machine is half as fast."""
    run = run_with_clock(lambda step: STEP * (2 if 60 <= step < 90 else 1), steps=200, max_seconds=1.0, max_stretch=4.0)
    state = run.state
    assert (state["status"], state["step"], state["steps"], state["planned_steps"]) == ("finished", 200, 200, 200)
    assert (state["cut_short"], state["resume_command"]) == (None, None)
    assert state["seconds"] == pytest.approx(2.3)
    assert 2.3 <= state["max_seconds"] <= 4.0
    stretched = re.findall(r"step (\d+): .*do not suffice.*is stretched to .*, of at most 4 s", log_of(run))
    assert int(stretched[0]) <= 20
    assert 2 <= len(stretched) <= 4
    assert "shortened" not in log_of(run)


def test_past_its_maximum_a_limit_shortens_the_schedule_until_the_machine_is_fast_again(
    run_with_clock: Callable[..., RunFolder],
) -> None:
    run = run_with_clock(lambda step: STEP * (9 if step <= 30 else 1), steps=400, max_seconds=2.0, max_stretch=4.0)
    assert run.state["step"] == 400
    assert run.state["cut_short"] is None
    assert "does not suffice for the planned 400 steps" in log_of(run)
    assert "suffices for the planned 400 steps at the present pace" in log_of(run)


def test_a_run_that_was_cut_short_goes_on_by_the_command_that_it_names(
    run_with_clock: Callable[..., RunFolder], tmp_path: Path
) -> None:
    """At a rate that rises again and falls to nothing, to the planned steps."""
    run = run_with_clock(steps=150, max_seconds=1.0, evaluate_every=25, checkpoint_every=25)
    cut = run.state["step"]
    assert 90 < cut <= 100
    command = shlex.split(run.state["resume_command"])
    assert command[:3] == ["python", "-m", "train"]
    main(command[3:])
    again = RunFolder(run.path)
    assert (again.state["status"], again.state["step"], again.state["cut_short"]) == ("finished", 150, None)
    assert again.state["max_seconds"] == 0
    assert "its time limit had cut it short; it goes on to 150 steps" in log_of(again)
    rates = {line["step"]: line["learning_rate"] / 3e-3 for line in read_jsonl(run.path / "metrics.jsonl")}
    assert rates[cut] < 0.05
    assert rates[cut + 1] == pytest.approx(1 / 2, abs=0.05)  # warm-up in 2 steps, to the schedule of 150 steps
    assert rates[cut + 2] == pytest.approx((149 - cut) / 75)
    assert rates[150] == pytest.approx(1 / 75)
    assert list(rates) == list(range(1, 151))


def test_the_same_command_gives_a_run_that_was_cut_short_its_time_again(
    run_with_clock: Callable[..., RunFolder],
) -> None:
    """As a second `make demo` does; and once it has its planned steps, it is finished."""
    command = partial(run_with_clock, steps=250, max_seconds=0.5, max_stretch=2.0, resume=True)
    states = [command().state for _ in range(3)]
    assert [state["step"] for state in states] == pytest.approx([98, 196, 250], abs=4)
    assert [state["max_seconds"] for state in states] == pytest.approx([1.0, 1.98, 2.6], abs=0.1)
    assert [state["cut_short"] is None for state in states] == [False, False, True]
    assert log_of(command()).endswith("the run is finished: 250 steps are done (more: --steps)\n")


def test_an_interrupted_run_keeps_its_stretched_limit(
    run_with_clock: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"steps": 200, "max_seconds": 1.0, "max_stretch": 4.0}
    do_step = Trainer._step

    def stopping(trainer: Trainer) -> None:
        do_step(trainer)
        if trainer.state.step == 50:
            trainer._stop("SIGINT")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stopping)
        state = run_with_clock(**fields).state
    assert (state["status"], state["step"]) == ("stopped", 50)
    assert state["cut_short"] == "stopped (SIGINT) after 50 of 200 planned steps (25% of its tokens)"
    assert state["resume_command"].endswith(" --resume")
    assert state["max_seconds"] > 2.0
    resumed = run_with_clock(**fields, resume=True)
    assert (resumed.state["step"], resumed.state["max_seconds"]) == (200, state["max_seconds"])
    assert log_of(resumed).count("is stretched to") == 1


def test_the_bar_knows_what_is_to_come(
    run_with_clock: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time left is that of the steps which fit into the limit, evaluations and checkpoints included."""
    left: dict[int, float | None] = {}
    advance = RunLog.advance

    def advancing(log: RunLog, seconds_left: float | None, **values: str) -> None:
        left[len(left) + 1] = seconds_left
        advance(log, seconds_left, **values)

    monkeypatch.setattr(RunLog, "advance", advancing)
    run_with_clock(steps=1000, max_seconds=2.0)
    assert left[1] is None
    assert left[100] == pytest.approx(1.0, abs=0.02)
    assert left[max(left)] == 0


@given(
    step=st.integers(0, 500), more=st.integers(1, 500), evaluate_every=st.integers(1, 90),
    checkpoint_every=st.integers(1, 90), evaluation=st.floats(0, 30), checkpoint=st.floats(0, 30),
)  # fmt: skip
def test_costs_are_those_of_a_loop(
    step: int, more: int, evaluate_every: int, checkpoint_every: int, evaluation: float, checkpoint: float
) -> None:
    costs = Costs(
        step=1.0, evaluation=evaluation, checkpoint=checkpoint, evaluate_every=evaluate_every,
        checkpoint_every=checkpoint_every,
    )  # fmt: skip
    end = step + more
    expected = 0.0
    for at in range(step + 1, end + 1):
        expected += 1.0
        expected += evaluation * (at % evaluate_every == 0 or at == end)
        expected += checkpoint * (at % checkpoint_every == 0 or at == end)
    assert costs.seconds(step, end) == pytest.approx(expected)
    reachable = costs.reachable(step, end, expected / 2)
    assert step < reachable <= end
    assert reachable == step + 1 or costs.seconds(step, reachable) <= expected / 2
    assert reachable == end or costs.seconds(step, reachable + 1) > expected / 2


@pytest.mark.parametrize(
    ("flags", "limit"),
    [
        ("", (158, 4)),
        ("--run.max-seconds 158", (158, 1)),  # a limit that was asked for is a hard one
        ("--run.max_seconds=60", (60, 1)),
        ("--run.max-seconds 60 --run.max-stretch 4", (60, 4)),
        ("--run.max-stretch 2", (158, 2)),
        ("--run.max-seconds 0", (0, 1)),
    ],
)
def test_a_limit_on_the_command_line(flags: str, limit: tuple[float, float]) -> None:
    _, config = parse(["stories", *flags.split()])
    assert (config.run.max_seconds, config.run.max_stretch) == limit


def test_a_stretch_without_a_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: --run\.max-stretch: expected it with a time limit only"):
        main(["debug", "--run.max-stretch", "2", "--run-dir", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: --run\.max-stretch: expected at least 1, got 0\.5"):
        main(["debug", "--run.max-seconds", "9", "--run.max-stretch", "0.5", "--run-dir", str(tmp_path)])
