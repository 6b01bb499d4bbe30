"""A run with fp16's gradient scaler: its loop, skipped updates and checkpoints, on the CPU.

accelerate scales on GPUs alone, so a run gets its scaler here by hand and computes in fp32. The rest is the run's own:
the loss is scaled, gradients are unscaled before they are clipped, an overflow skips the update and halves the scale.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from tests.train.test_numerics import before_step, scale_gradient, scale_weights
from train.config import Config
from train.loop import Trainer, train
from train.numerics.guard import DivergedError

SCALE = 65536.0
WEIGHTS = "checkpoints/step-000012/model.safetensors"


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Trainer]:
    """The trainers that are made from here on, each with a scaler."""
    build, made = Trainer._build, []

    def build_with_scaler(trainer: Trainer, prepared: Any) -> None:
        build(trainer, prepared)
        scaler, accelerator = torch.amp.GradScaler("cpu", init_scale=SCALE), trainer.accelerator

        def unscale_gradients() -> None:
            for optimizer in trainer.inner_optimizers:
                scaler.unscale_(optimizer)

        accelerator.scaler = scaler
        monkeypatch.setattr(accelerator, "unscale_gradients", unscale_gradients)
        made.append(trainer)

    monkeypatch.setattr(Trainer, "_build", build_with_scaler)
    return made


def overflow_in(steps: range, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient is infinite in these steps."""
    do_step = Trainer._step

    def step(trainer: Trainer) -> None:
        weight = trainer.unwrapped.get_parameter("model.layers.1.mlp.down_proj.weight")
        is_chosen = trainer.state.step + 1 in steps
        handle = weight.register_hook(lambda gradient: gradient * torch.inf if is_chosen else gradient)
        do_step(trainer)
        handle.remove()

    monkeypatch.setattr(Trainer, "_step", step)


def test_a_run_with_a_scale_is_the_one_without(
    tiny: Config, finished_run: Path, fresh_run_dir: Callable[[str], Path], trainers: list[Trainer]
) -> None:
    """Bit for bit, since the scale is a power of two: what is tried before a checkpoint does not scale twice."""
    run = train(with_fields(tiny, run__dir=fresh_run_dir("r")), recipe="debug")
    assert trainers[0].accelerator.scaler.get_scale() == SCALE
    assert (run / WEIGHTS).read_bytes() == (finished_run / WEIGHTS).read_bytes()


def test_an_overflow_skips_one_update_also_over_a_resume(
    tiny: Config, fresh_run_dir: Callable[[str], Path], trainers: list[Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    overflow_in(range(3, 4), monkeypatch)
    begun, do_step = [], Trainer._step

    def step(trainer: Trainer) -> None:
        begun.append([parameter.detach().clone() for parameter in trainer.unwrapped.parameters()])
        do_step(trainer)
        if trainer.state.step == 6 and trainer is trainers[0]:
            trainer._stop("asked")

    monkeypatch.setattr(Trainer, "_step", step)
    config = with_fields(tiny, run__dir=fresh_run_dir("r"))
    run = RunFolder(train(config, recipe="debug"))
    assert len(begun) == 6
    moved = [not all(map(torch.equal, one, two)) for one, two in zip(begun, begun[1:], strict=False)]
    assert moved == [True, True, False, True, True]
    train(with_fields(config, run__resume=True), recipe="debug")
    assert [trainer.accelerator.scaler.get_scale() for trainer in trainers] == [SCALE / 2] * 2
    assert run.peek_state()["status"] == "finished"
    assert all("gradient_norm" not in line for line in run.metrics() if line["step"] == 3)


def test_overflows_without_end_and_weights_of_no_use_stop(
    tiny: Config, fresh_run_dir: Callable[[str], Path], trainers: list[Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.numerics.guard.MOST_OVERFLOWS", 2)
    with monkeypatch.context() as patch:
        overflow_in(range(2, 9), patch)
        with pytest.raises(DivergedError, match="the gradient norm of step 4 is not finite"):
            train(with_fields(tiny, run__dir=fresh_run_dir("endless")), recipe="debug")
    before_step(4, scale_weights(100.0), monkeypatch)
    config = with_fields(tiny, run__dir=fresh_run_dir("spoiled"), run__checkpoint_every=3)
    with pytest.raises(DivergedError, match="the loss of step 4 is far above its history"):
        train(config, recipe="debug")
    assert list(RunFolder(config.run.dir or Path()).checkpoints()) == [3]
    assert len(trainers) == 2


def test_a_gradient_that_is_judged_is_not_the_scaled_one(
    tiny: Config, fresh_run_dir: Callable[[str], Path], trainers: list[Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scaled, each norm before a checkpoint would be far above those of the steps."""
    run = RunFolder(train(with_fields(tiny, run__dir=fresh_run_dir("r"), run__steps=25), recipe="debug"))
    assert run.state["status"] == "finished"
    config = with_fields(tiny, run__dir=run.path, run__steps=27, run__resume=True)
    before_step(26, scale_gradient(1e7), monkeypatch)
    with pytest.raises(DivergedError, match="the gradient norm of step 26 is far above its history"):
        train(config, recipe="debug")
    assert len(trainers) == 2
