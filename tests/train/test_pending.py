"""Steps whose numbers are read later, as on a GPU, here on the CPU: the same run, no waiting, and nothing worse."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from tests.train.test_numerics import DOWN, before_step, scale_gradient, set_weight
from train.config import Config
from train.loop import Trainer, train
from train.numerics.guard import LEAST_NORMS, DivergedError
from train.numerics.pending import DeviceGuard
from train.optimizer import Muon

WEIGHTS = "model.safetensors"


class Reads(TorchDispatchMode):
    """Counts what would wait for a GPU: numbers that are read, and places of what is not zero."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default
        self.count += func in waits
        return func(*args, **(kwargs or {}))


def defer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs be as on a GPU."""
    build = Trainer._build

    def build_and_defer(trainer: Trainer, prepared: Any) -> None:
        build(trainer, prepared)
        trainer.device_guard = DeviceGuard(trainer.inner_optimizers, trainer.accelerator.device)

    monkeypatch.setattr(Trainer, "_build", build_and_defer)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_is_the_same_bit_for_bit(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    config = with_fields(tiny, optimizer__name=optimizer, optimizer__max_grad_norm=0.5, run__log_every=3)
    runs = [RunFolder(train(with_fields(config, run__dir=fresh_run_dir("each")), recipe="debug"))]
    defer(monkeypatch)
    runs.append(RunFolder(train(with_fields(config, run__dir=fresh_run_dir("later")), recipe="debug")))
    one, other = (run.checkpoint_folder(12) / WEIGHTS for run in runs)
    assert one.read_bytes() == other.read_bytes()
    changing = {"seconds", "tokens_per_second", "model_flops_utilization"}
    lines = [[{key: line[key] for key in line.keys() - changing} for line in run.metrics()] for run in runs]
    assert lines[0] == lines[1]


def test_the_device_is_read_in_the_steps_that_need_it_alone(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two numbers of each step, at once: at steps 1, 3, 8 (a line, an evaluation) and 10."""
    step, reads = Trainer._step, []

    def counted(trainer: Trainer) -> None:
        with Reads() as mode:
            step(trainer)
        reads.append(mode.count)

    monkeypatch.setattr(Trainer, "_step", counted)
    fields: dict[str, Any] = {"run__evaluate_every": 8, "run__checkpoint_every": 8, "run__log_every": 8}
    train(with_fields(tiny, run__dir=fresh_run_dir("each"), **fields, run__steps=10), recipe="debug")
    # Targets are counted in each step, on the CPU where the batch is; the rest is loss and norm.
    assert reads == [3] * 10
    reads.clear()
    defer(monkeypatch)
    train(with_fields(tiny, run__dir=fresh_run_dir("later"), **fields, run__steps=10), recipe="debug")
    assert reads == [3, 1, 5, 1, 1, 1, 1, 11, 1, 5]


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (set_weight(math.nan), rf"the loss of step 6 is not finite.* found in {DOWN}\.weight, with batch 6 "),
        (scale_gradient(math.nan), rf"the gradient norm of step 6 is not finite.* found in {DOWN}\.weight, with batch"),
        (scale_gradient(math.inf), rf"the gradient norm of step 6 is not finite.* found in {DOWN}\.weight, with batch"),
    ],
    ids=["nan-weight", "nan-gradient", "infinite-gradient"],
)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_is_not_finite_reaches_no_weight(
    tiny: Config,
    fresh_run_dir: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Trainer], None],
    found: str,
    optimizer: str,
) -> None:
    """Two more steps are begun after it, until the evaluation after step 8."""
    defer(monkeypatch)
    seen = before_step(6, spoil, monkeypatch)
    config = with_fields(tiny, run__dir=fresh_run_dir("r"), run__log_every=100, optimizer__name=optimizer)
    with pytest.raises(DivergedError, match=found) as failed:
        train(config, recipe="debug")
    after = list(seen["trainer"].unwrapped.parameters())
    assert all(torch.equal(one, two) or one.isnan().any() for one, two in zip(seen["before"], after, strict=True))
    run = RunFolder(config.run.dir or Path())
    assert list(run.checkpoints()) == [4]
    assert "Continue from there without this batch" in str(failed.value)
    assert str(failed.value).splitlines()[1].endswith("--run.skip-batches 6")
    assert run.state["cut_short"] == f"failed after 5 of 12 planned steps (42% of its tokens): {failed.value.reason}"
    assert run.state["tokens_seen"] == 5 * 4 * 32


def test_a_gradient_far_above_its_history_reaches_no_weight(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    defer(monkeypatch)
    seen = before_step(LEAST_NORMS + 2, scale_gradient(1e7), monkeypatch)
    config = with_fields(tiny, run__dir=fresh_run_dir("r"), run__steps=LEAST_NORMS + 4, run__log_every=100)
    with pytest.raises(
        DivergedError,
        match=rf"the gradient norm of step 22 is far above its history, at most [\d.]+ in the last 20 steps: "
        rf"expected a number like those before it, got [\de.+]+, found in {DOWN}\.weight, with batch 22",
    ):
        train(config, recipe="debug")
    after = seen["trainer"].unwrapped.parameters()
    assert all(torch.equal(one, two) for one, two in zip(seen["before"], after, strict=True))


def test_a_stop_between_two_readings_saves_what_was_judged(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    defer(monkeypatch)
    before_step(6, lambda trainer: trainer._stop("asked"), monkeypatch)
    run = RunFolder(train(with_fields(tiny, run__dir=fresh_run_dir("r"), run__log_every=100), recipe="debug"))
    assert max(run.checkpoints()) == 6
    monkeypatch.undo()
    whole = RunFolder(train(with_fields(tiny, run__dir=fresh_run_dir("w"), run__log_every=100), recipe="debug"))
    train(with_fields(tiny, run__dir=run.path, run__log_every=100, run__resume=True), recipe="debug")
    assert (run.checkpoint_folder(12) / WEIGHTS).read_bytes() == (whole.checkpoint_folder(12) / WEIGHTS).read_bytes()


@pytest.mark.parametrize("make", [Muon, torch.optim.AdamW])
def test_an_optimizer_leaves_weights_as_they_are_where_asked(make: Any) -> None:
    weight = torch.nn.Parameter(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    fields: dict[str, Any] = {"momentum": 0.9} if make is Muon else {"fused": True}
    optimizer: Any = make([weight], lr=0.1, weight_decay=0.1, **fields)
    refused = torch.zeros(())
    optimizer.found_inf, optimizer.grad_scale = refused, None
    before = weight.detach().clone()
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert not torch.equal(weight, before)
    before = weight.detach().clone()
    refused.fill_(1)
    weight.grad = torch.full_like(weight, math.nan)
    optimizer.step()
    assert torch.equal(weight, before)
