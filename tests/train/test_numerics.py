"""Numbers that go wrong, each put in by hand: the run stops before the weights move, says where, and can go on."""

import json
import math
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from storage.records import read_jsonl
from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from train.__main__ import parse
from train.config import Config
from train.loop import Trainer, train
from train.numerics.guard import LEAST_NORMS, MOST_OVERFLOWS, DivergedError, Guard
from train.objective import mean_loss

DOWN = "model.layers.1.mlp.down_proj"


def before_step(step: int, spoil: Callable[[Trainer], None], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Call `spoil` once, before a step; the result gets a copy of the weights that the step begins with."""
    do_step, seen = Trainer._step, {}

    def spoiled(trainer: Trainer) -> None:
        if trainer.state.step + 1 == step and not seen:
            seen["trainer"] = trainer
            spoil(trainer)
            seen["before"] = [parameter.detach().clone() for parameter in trainer.unwrapped.parameters()]
        do_step(trainer)

    monkeypatch.setattr(Trainer, "_step", spoiled)
    return seen


def after_step(step: int, spoil: Callable[[Trainer], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `spoil` once, after the update of a step."""
    do_step, done = Trainer._step, []

    def spoiled(trainer: Trainer) -> None:
        do_step(trainer)
        if trainer.state.step == step and not done:
            done.append(step)
            spoil(trainer)

    monkeypatch.setattr(Trainer, "_step", spoiled)


def scale_weights(factor: float) -> Callable[[Trainer], None]:
    def spoil(trainer: Trainer) -> None:
        with torch.no_grad():
            for parameter in trainer.unwrapped.parameters():
                parameter.mul_(factor)

    return spoil


def continue_as_told(error: DivergedError) -> RunFolder:
    """Give the command that a message ends with."""
    name, config = parse(shlex.split(str(error).splitlines()[1])[3:])
    return RunFolder(train(config, recipe=name))


def set_weight(value: float) -> Callable[[Trainer], None]:
    def spoil(trainer: Trainer) -> None:
        with torch.no_grad():
            trainer.unwrapped.get_parameter(f"{DOWN}.weight")[0, 0] = value

    return spoil


def overflow(trainer: Trainer) -> None:
    """The weights stay finite, the output of one layer does not."""
    trainer.unwrapped.get_submodule(DOWN).register_forward_hook(lambda module, inputs, output: output * math.inf)


def scale_gradient(factor: float) -> Callable[[Trainer], None]:
    def spoil(trainer: Trainer) -> None:
        trainer.unwrapped.get_parameter(f"{DOWN}.weight").register_hook(lambda gradient: (gradient + 1e-3) * factor)

    return spoil


def raise_learning_rate(trainer: Trainer) -> None:
    for optimizer in trainer.inner_optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group.get("peak_lr", group["lr"]) * 1e4


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (set_weight(math.nan), rf"the loss of step 6 is not finite.* got nan, found in {DOWN}\.weight, with batch 6"),
        (set_weight(math.inf), rf"the loss of step 6 is not finite.* found in {DOWN}\.weight, with batch 6"),
        (overflow, rf"the loss of step 6 is not finite.* found in {DOWN}, with batch 6"),
        (scale_gradient(math.nan), rf"the gradient norm of step 6 is not finite.* got nan, found in {DOWN}\.weight"),
        (scale_gradient(math.inf), rf"the gradient norm of step 6 is not finite.* got inf, found in {DOWN}\.weight"),
    ],
    ids=["nan-weight", "infinite-weight", "overflowing-layer", "nan-gradient", "infinite-gradient"],
)
@pytest.mark.parametrize("clipping", [0.0, 1.0])
def test_what_is_not_finite_stops_before_the_update(
    tiny: Config,
    fresh_run_dir: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Trainer], None],
    found: str,
    clipping: float,
) -> None:
    """On a step that is not logged too, where the norm of the gradient was once not computed without clipping."""
    seen = before_step(6, spoil, monkeypatch)
    config = with_fields(tiny, run__dir=fresh_run_dir("r"), run__log_every=100, optimizer__max_grad_norm=clipping)
    with pytest.raises(DivergedError, match=found) as failed:
        train(config, recipe="debug")
    after = list(seen["trainer"].unwrapped.parameters())
    assert all(torch.equal(one, two) or one.isnan().any() for one, two in zip(seen["before"], after, strict=True))
    run = RunFolder(tiny.run.dir or config.run.dir or Path())
    assert list(run.checkpoints()) == [4]
    assert "(epoch " in str(failed.value)
    assert "the last good checkpoint is step-000004. Continue from there without this batch" in str(failed.value)
    assert "lower --optimizer.learning-rate" in str(failed.value)
    assert run.state["status"] == "failed"
    assert run.state["cut_short"] == f"failed after 5 of 12 planned steps (42% of its tokens): {failed.value.reason}"
    assert str(run.path) not in run.state["cut_short"]  # it goes into the model card


def test_the_command_of_the_message_goes_on_without_the_batch(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It equals a run that was told to leave the batch out from its beginning, bit for bit."""
    with monkeypatch.context() as patch:
        before_step(6, set_weight(math.nan), patch)
        broken = fresh_run_dir("broken")
        with pytest.raises(DivergedError) as failed:
            train(with_fields(tiny, run__dir=broken), recipe="debug")
    command = str(failed.value).splitlines()[1].strip()
    assert command == RunFolder(broken).state["resume_command"]
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "train"]
    assert words[-3:] == ["--resume", "--run.skip-batches", "6"]
    name, config = parse(words[3:])
    train(config, recipe=name)
    asked = train(with_fields(tiny, run__dir=fresh_run_dir("asked"), run__skip_batches=(6,)), recipe="debug")
    weights = "checkpoints/step-000012/model.safetensors"
    assert (broken / weights).read_bytes() == (asked / weights).read_bytes()
    assert "step 6: batch 6 is left out, as asked" in (broken / "train.log").read_text()
    state = json.loads((broken / "checkpoints/step-000012/training/state.json").read_text())
    assert (state["state"]["step"], state["state"]["skipped"]) == (12, 1)


def test_a_second_broken_batch_is_left_out_beside_the_first(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(6, set_weight(math.nan), monkeypatch)  # the sixth step has the seventh batch
    config = with_fields(tiny, run__dir=fresh_run_dir("r"), run__skip_batches=(2,))
    with pytest.raises(
        DivergedError, match=r"of step 6 is not finite.* with batch 7 \((.|\n)*--run.skip-batches 2 7\n"
    ):
        train(config, recipe="debug")


def test_a_gradient_far_above_its_history_stops(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a resume: the history is saved. Asked not to compare, the run goes on to its end."""
    config = with_fields(tiny, run__dir=fresh_run_dir("r"), run__steps=LEAST_NORMS)
    train(config, recipe="debug")
    longer = with_fields(config, run__steps=LEAST_NORMS + 4, run__resume=True)
    with monkeypatch.context() as patch:
        before_step(LEAST_NORMS + 1, scale_gradient(1e7), patch)
        with pytest.raises(
            DivergedError,
            match=rf"the gradient norm of step 21 is far above its history, at most [\d.]+ in the last 20 steps: "
            rf"expected a number like those before it, got [\de.+]+, found in {DOWN}\.weight, with batch 21",
        ):
            train(longer, recipe="debug")
        assert max(RunFolder(longer.run.dir or Path()).checkpoints()) == LEAST_NORMS
    before_step(LEAST_NORMS + 1, scale_gradient(1e7), monkeypatch)
    run = RunFolder(train(with_fields(longer, run__spike_factor=0.0), recipe="debug"))
    assert run.state["status"] == "finished"


def test_a_learning_rate_far_too_high_stops(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update of step 6 spoils the weights; the step that shows it leaves them as they are."""
    begun: list[list[torch.Tensor]] = []
    trainers: list[Trainer] = []
    do_step = Trainer._step

    def step(trainer: Trainer) -> None:
        trainers.append(trainer)
        begun.append([parameter.detach().clone() for parameter in trainer.unwrapped.parameters()])
        do_step(trainer)

    monkeypatch.setattr(Trainer, "_step", step)
    before_step(6, raise_learning_rate, monkeypatch)
    config = with_fields(tiny, run__dir=fresh_run_dir("r"))
    with pytest.raises(DivergedError) as failed:
        train(config, recipe="debug")
    said = re.match(
        r"the loss of step (\d+) is far above its history, [\d.]+ in the first step: expected a number like those "
        r"before it, got [\d.e+]+, found in (\S+), with batch (\d+) \(epoch \d+, position \d+\)\. "
        r"The weights were not touched",
        str(failed.value),
    )
    assert said is not None, failed.value
    assert int(said[1]) == int(said[3]) == len(begun) > 6
    trainer = trainers[-1]
    assert said[2] in dict(trainer.unwrapped.named_parameters())
    assert trainer.state.step == len(begun) - 1
    after = trainer.unwrapped.parameters()
    assert all(torch.equal(one, two) for one, two in zip(begun[-1], after, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(begun[-2], begun[-1], strict=True))
    assert "rate is too high" in str(failed.value)
    run = RunFolder(config.run.dir or Path())
    assert list(run.checkpoints()) == [4]
    assert run.state["status"] == "failed"
    assert all(math.isfinite(line["train_loss"]) for line in read_jsonl(run.path / "metrics.jsonl"))


@pytest.mark.parametrize("what", ["weight", "optimizer"])
def test_a_state_that_is_not_finite_is_not_saved(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Broken by the last update before a checkpoint, where no loss has shown it yet."""

    def spoil(trainer: Trainer) -> None:
        evaluate = trainer._evaluate

        def evaluate_and_break() -> None:
            evaluate()
            if what == "weight":
                set_weight(math.nan)(trainer)
            else:
                trainer.inner_optimizers[0].state[trainer.unwrapped.model.norm.weight]["exp_avg"][0] = math.inf

        monkeypatch.setattr(trainer, "_evaluate", evaluate_and_break)

    before_step(6, spoil, monkeypatch)
    config = with_fields(tiny, run__dir=fresh_run_dir("r"))
    place = rf"{DOWN}\.weight" if what == "weight" else r"exp_avg/model\.norm\.weight"
    with pytest.raises(DivergedError, match=rf"the state after the update of step 8 is not finite, found in {place}"):
        train(config, recipe="debug")
    assert list(RunFolder(config.run.dir or Path()).checkpoints()) == [4]


@pytest.mark.parametrize("factor", [1e30, 100.0])
@pytest.mark.parametrize("kind", ["due", "stopped", "evaluated"])
def test_weights_that_are_finite_and_of_no_use_are_not_saved(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, factor: float, kind: str
) -> None:
    """A checkpoint that is due, that of a run that is stopped, and one with an evaluation. The message leads on.

    Times 1e30 the normalised outputs are zeros, their loss that of guessing; only the gradient shows it.
    """

    def spoil(trainer: Trainer) -> None:
        scale_weights(factor)(trainer)
        if kind == "stopped":
            trainer._stop("asked")

    step, every = 5 if kind == "stopped" else 6, 3 if kind == "evaluated" else 12
    config = with_fields(tiny, run__dir=fresh_run_dir("r"), run__checkpoint_every=3, run__evaluate_every=every)
    name = "validation loss" if kind == "evaluated" else "loss after the update"
    what = f"the gradient norm after the update of step {step} is not finite: expected a number like those before it, "
    what = what if factor == 1e30 else f"the {name} of step {step} is far above its history, "
    with monkeypatch.context() as patch:
        after_step(step, spoil, patch)
        with pytest.raises(DivergedError, match=what) as failed:
            train(config, recipe="debug")
    run = RunFolder(config.run.dir or Path())
    assert list(run.checkpoints()) == [3]
    assert "Nothing was saved of this step; the last good checkpoint is step-000003" in str(failed.value)
    assert str(failed.value).splitlines()[1].endswith(f"--resume --run.skip-batches {step}")
    assert continue_as_told(failed.value).state["status"] == "finished"


def test_a_checkpoint_that_is_judged_changes_no_run(
    tiny: Config, finished_run: Path, fresh_run_dir: Callable[[str], Path]
) -> None:
    """The loss that is judged draws no random number, which dropout would."""
    config = with_fields(tiny, run__dir=fresh_run_dir("r"), run__checkpoint_every=1)
    weights = "checkpoints/step-000012/model.safetensors"
    assert (train(config, recipe="debug") / weights).read_bytes() == (finished_run / weights).read_bytes()


def test_a_checkpoint_whose_gradients_are_far_above_the_others_is_left_behind(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the next step shows it: as long as the run fails there, the message says how to begin at the one before."""
    spoil = scale_gradient(1e7)
    config = with_fields(tiny, run__dir=fresh_run_dir("r"), run__steps=LEAST_NORMS + 4, run__checkpoint_every=10)
    with monkeypatch.context() as patch:
        before_step(LEAST_NORMS + 1, spoil, patch)
        with pytest.raises(DivergedError) as failed:
            train(config, recipe="debug")
    last = RunFolder(config.run.dir or Path()).checkpoint_folder(20)
    assert f"If it fails there again, delete {last}: the same command begins at step-000010. " in str(failed.value)
    shutil.rmtree(last)
    run = continue_as_told(failed.value)
    assert run.state["status"] == "finished"
    assert "resuming from step 10\n" in run.log.read_text()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["validation loss", "train eval loss", "pseudo perplexity", "replay validation loss"])
def test_each_number_of_an_evaluation_is_judged(
    tiny: Config, going_on: Config, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str,
    bad: float,
) -> None:  # fmt: skip
    """The loss of one set of batches goes wrong, the others stay what they are; the run can go on from the last one."""
    config, chosen = with_fields(tiny, run__dir=tmp_path / "r"), []
    if which == "pseudo perplexity":
        config = with_fields(config, data__objective="masked")
    if which == "replay validation loss":
        config = with_fields(
            going_on,
            run__dir=tmp_path / "r",
            data__replay=finished_run,
            data__replay_share=0.25,
            data__windows="random",
        )

    def choose(trainer: Trainer) -> None:
        objective, old = trainer.objective, trainer.old_text
        chosen.append({
            "validation loss": trainer.validation,
            "train eval loss": trainer.train_evaluation,
            "pseudo perplexity": getattr(objective, "one_hidden", None),
            "replay validation loss": old and old.validation,
        }[which])  # fmt: skip

    def measured(model: Any, batches: Any, device: torch.device) -> float:
        return bad if any(batches is each for each in chosen) else mean_loss(model, batches, device)

    with monkeypatch.context() as patch:
        patch.setattr("train.loop.mean_loss", measured)
        patch.setattr("train.objective.mean_loss", measured)
        before_step(6, choose, patch)
        message = rf"the {which} of step 8 is not finite: .* got {bad}, with batch 8 .*Nothing was saved of this"
        with pytest.raises(DivergedError, match=message) as failed:
            train(config, recipe="debug")
    run = RunFolder(tmp_path / "r")
    assert list(run.checkpoints()) == [4]
    assert run.state["status"] == "failed"
    assert run.state["resume_command"].endswith("--run.skip-batches 8")
    assert continue_as_told(failed.value).state["status"] == "finished"


def remembered(judge: Guard, *, loss: float = 3.0, norm: float = 1.0, is_scaled: bool = False) -> str | None:
    """What a guard says of a step; one that it lets pass is remembered."""
    reason = judge.judge_loss(loss) or judge.judge_norm(norm, is_scaled=is_scaled)
    if reason is None:
        judge.remember(loss, norm)
    return reason


def guard(*, spike_factor: float = 100.0, clipping: float = 0.0) -> Guard:
    return Guard(spike_factor=spike_factor, guess_loss=5.0, clipping=clipping)


def test_a_loss_is_compared_with_the_first_and_with_guessing() -> None:
    judge = guard()
    assert remembered(judge, loss=1000.0) is None  # an initialisation may be that wide
    assert judge.judge_loss(4999.0) is None
    assert judge.judge_loss(5001.0) == "is far above its history, 1000 in the first step"
    small = guard()
    assert [remembered(small, loss=loss) for loss in (0.01, 24.9)] == [None, None]  # not worse than five times guessing
    assert guard(spike_factor=0.0).judge_loss(1e30) is None
    assert guard(spike_factor=0.0).judge_loss(math.inf) == "is not finite"


def test_a_norm_is_compared_after_the_first_steps() -> None:
    judge = guard()
    assert [remembered(judge, norm=norm) for norm in (1.0, 1e6)] == [None, None]
    judge = guard(clipping=3.0)
    assert not any(remembered(judge, norm=1e-4) for _ in range(LEAST_NORMS))
    assert judge.judge_norm(2.9) is None  # clipping leaves it as it is
    judge = guard(clipping=3.0)
    assert not any(remembered(judge, norm=1e-4) for _ in range(LEAST_NORMS))
    assert judge.judge_norm(3.1) == f"is far above its history, at most 0.0001 in the last {LEAST_NORMS} steps"


def test_overflows_of_fp16_are_allowed_for_a_while() -> None:
    judge = guard()
    assert not any(remembered(judge, norm=math.inf, is_scaled=True) for _ in range(MOST_OVERFLOWS))
    assert judge.judge_norm(math.inf, is_scaled=True) == "is not finite"
    assert remembered(judge, norm=1.0, is_scaled=True) is None
    assert judge.judge_norm(math.nan, is_scaled=True) is None


def test_a_guard_continues_with_what_was_saved() -> None:
    one, other = guard(), guard()
    for number in range(1, 150):
        assert remembered(one, norm=number) is None
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert (other.first_loss, other.norms) == (one.first_loss, one.norms)
    assert other.judge_norm(1e6) == "is far above its history, at most 149 in the last 100 steps"
