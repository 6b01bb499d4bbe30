"""The number of CPU threads: found by trying, recorded, and the same again in a resumed run."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from modeling import PASSIVE_WAITING, wait_passively
from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from tests.train.test_loop import curve, same_tensors
from train.__main__ import main
from train.config import Config
from train.data.batches import Batch, micro_batch_size
from train.loop import Trainer, train
from train.pacing import threads
from train.pacing.threads import ThreadCount, candidates, fastest

WEIGHTS = "checkpoints/step-000012/model.safetensors"


@pytest.fixture
def two_cores(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """A run whose bits depend on the number of threads, on a machine of two cores, where every run is worth a trial."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "AVAILABLE", 2)
    monkeypatch.setattr(threads, "SMALLEST_RUN", 0.0)
    yield with_fields(tiny, run__threads=0, run__keep_checkpoints=9, run__max_seconds=900, model__norm="layernorm")
    torch.set_num_threads(before)


def test_powers_of_two_are_tried_and_all_threads() -> None:
    assert [candidates(most) for most in (1, 2, 3, 6, 8)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 6], [1, 2, 4, 8]]


@pytest.mark.parametrize(
    ("seconds", "present", "expected"),
    [
        ({1: 1.0, 2: 0.6, 4: 0.5}, None, 4),
        ({1: 1.0, 2: 0.98, 4: 3.0}, None, 1),  # two are hardly faster than one
        ({1: 1.0, 2: 0.9}, 1, 1),  # nor worth a change
        ({1: 1.0, 2: 0.6}, 1, 2),
        ({1: 0.7, 2: 1.0}, 2, 1),
        ({1: 0.7, 2: 1.0}, 3, 1),
    ],
)
def test_the_fewest_that_are_as_fast_as_the_fastest(
    seconds: dict[int, float], present: int | None, expected: int
) -> None:
    assert fastest(seconds, present) == expected


def test_trying_changes_nothing(two_cores: Config, fresh_run_dir: Callable[[str], Path]) -> None:
    """A run that tries its threads is, bit for bit, the run that is given the number found; dropout is on."""
    tried = RunFolder(train(with_fields(two_cores, run__dir=fresh_run_dir("tried")), recipe="debug"))
    ((step, number),) = tried.state["threads"]
    assert step == 0
    assert f"{number} CPU thread" in tried.log.read_text()
    assert "found by trying (passes a second by threads: 1: " in tried.log.read_text()
    given = with_fields(two_cores, run__dir=fresh_run_dir("given"), run__threads=number)
    folder = RunFolder(train(given, recipe="debug"))
    assert folder.state["threads"] == [[0, number]]
    assert "found by trying" not in folder.log.read_text()
    assert curve(tried.path) == curve(folder.path)
    assert same_tensors(tried.path / WEIGHTS, folder.path / WEIGHTS)


def test_a_trial_has_as_many_windows_as_a_step_where_the_text_has_few(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads share windows: with one window no number of threads would be faster than one."""
    folder = fresh_run_dir("few")
    config = with_fields(tiny, run__dir=folder)
    trainer = Trainer(config, "debug", RunFolder(folder), quiet=True)
    whole = trainer.train_evaluation[0]
    one = Batch(whole.input_BL[:1], whole.target_BL[:1])
    trainer.train_evaluation = [one]  # as many as validate, of a short text
    seen: list[Batch] = []
    monkeypatch.setattr(threads, "forward_backward", lambda _accelerator, _model, batch, _rows: seen.append(batch))
    trainer._make_pass(trainer.model)()
    assert len(seen[0].input_BL) == micro_batch_size(config.data) == 4
    assert torch.equal(seen[0].input_BL, one.input_BL.expand(4, -1))
    assert torch.equal(seen[0].target_BL, one.target_BL.expand(4, -1))


def test_a_resumed_run_repeats_the_changes_of_the_number(
    two_cores: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads, and one from step 6 on; the run is killed after step 8, and resumed from its checkpoint of 4."""
    paces = iter([{1: 2.0, 2: 1.0}, {1: 1.0, 2: 2.0}])
    monkeypatch.setattr(threads, "try_threads", lambda run_pass, numbers: next(paces))
    steps = iter(range(1, 13))
    took = "the pace fell to 30%"
    with monkeypatch.context() as patch:
        patch.setattr(ThreadCount, "step_took", lambda count, seconds: took if next(steps) == 6 else None)
        unbroken = RunFolder(train(with_fields(two_cores, run__dir=fresh_run_dir("unbroken")), recipe="debug"))
    assert unbroken.state["threads"] == [[0, 2], [6, 1]]
    line = (
        "step 6: the pace fell to 30%: 1 CPU thread from here on, 2 until now (passes a second by threads: 1: 1, 2: 0.5"
    )
    assert line in unbroken.log.read_text()

    def resumed(name: str, known: list[list[int]]) -> RunFolder:
        broken = RunFolder(unbroken.path.with_name(name))
        shutil.copytree(unbroken.path, broken.path)
        for step in (8, 12):
            shutil.rmtree(broken.checkpoint_folder(step))
        broken.write_state(unbroken.state | {"status": "running", "threads": known})
        return RunFolder(train(with_fields(two_cores, run__dir=broken.path, run__resume=True), recipe="debug"))

    again = resumed("broken", [[0, 2], [6, 1]])
    assert again.state["threads"] == [[0, 2], [6, 1]]
    assert curve(again.path) == curve(unbroken.path)
    assert same_tensors(again.path / WEIGHTS, unbroken.path / WEIGHTS)
    unknown = resumed("unknown", [[0, 2]])  # what it would be without the record
    assert unknown.state["threads"] == [[0, 2]]
    assert not same_tensors(unknown.path / WEIGHTS, unbroken.path / WEIGHTS)


def test_the_number_of_a_run_is_kept_as_far_as_the_machine_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setattr(threads, "AVAILABLE", 4)

    def begin(history: list[list[int]], given: int = 0, recorded: object = None) -> str | None:
        return ThreadCount(given, may_try=True).begin(history, 50, recorded=recorded, seconds=100)

    assert begin([[0, 3]]) is None
    assert taken == [3]
    assert begin(history := [[0, 3]], given=3) is None
    assert begin(history, given=2) == "2 CPU threads from here on, 3 until now"
    assert history == [[0, 3], [50, 2]]
    assert begin(history := [[0, 8]]) == "the run had up to 8 CPU threads, here are 4: 4 from here on"
    assert history == [[0, 8], [50, 4]]
    said = begin(history := [[0, 2]], recorded=[[0, 2], [60, 8]])
    assert said == "the run had up to 8 CPU threads, here are 4: 2 from here on"
    assert begin(history := []) is None  # to be found by trying
    assert history == []
    assert ThreadCount(0, may_try=True).begin(history, 0, recorded=None, seconds=1.0) is None  # a run of a second
    assert history == [[0, 4]]


def test_the_pace_decides_when_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(threads, "AVAILABLE", 2)
    count = ThreadCount(0, may_try=True)
    count.begin([[0, 1]], 0, recorded=None, seconds=100)

    def reasons(seconds: float, steps: int) -> list[str]:
        found = []
        for _ in range(steps):
            now[0] += seconds
            if reason := count.step_took(seconds):
                found.append(reason)
                count.look(lambda: None, 10)
        return found

    assert reasons(0.5, 100) == []
    assert reasons(0.75, 100) == []
    assert reasons(1.0, 10) == ["the pace fell to 50%"]
    assert reasons(1.0, 100) == []
    assert reasons(0.5, 100) == ["the pace rose to 200%"]
    count.history.append([20, 1])
    assert reasons(0.5, 610) == ["looked again"]
    count.history.append([30, 2])
    assert reasons(0.5, 610) == []
    assert ThreadCount(1, may_try=True).may_try is False


def test_threads_sleep_while_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user has decided it; the commands see to it before they import torch."""
    for name in PASSIVE_WAITING:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    main(["--list"])
    assert {name: os.environ[name] for name in PASSIVE_WAITING} == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert "GOMP_SPINCOUNT" not in os.environ


def test_early_samples_leave_the_run_as_it_is(tiny: Config, fresh_run_dir: Callable[[str], Path]) -> None:
    """Steps 1, 3 and 10 have a short sample of the first prompt; without samples the run is the same, bit for bit."""
    runs = [
        RunFolder(train(with_fields(tiny, run__dir=fresh_run_dir(name), **fields), recipe="debug"))
        for name, fields in {
            "with": {"run__sample_tokens": 50},
            "without": {"run__sample_tokens": 0, "run__checkpoint_every": 12},
        }.items()
    ]
    early = [record for record in runs[0].samples() if record["step"] in (1, 3, 10)]
    assert [(record["step"], record["prompt"], record["seed"]) for record in early] == [
        (step, runs[0].prompts()[0], tiny.run.seed) for step in (1, 3, 10)
    ]
    assert all(record["text"].startswith(record["prompt"]) for record in early)
    assert len({record["step"] for record in runs[1].samples()}) == 1
    losses = [[line["train_loss"] for line in curve(run.path)] for run in runs]
    assert losses[0] == losses[1]
    assert same_tensors(runs[0].path / WEIGHTS, runs[1].path / WEIGHTS)
    states = [json.loads((run.path / "checkpoints/step-000012/training/state.json").read_text()) for run in runs]
    assert states[0]["batches"] == states[1]["batches"]
