"""The loop: resume, determinism, signals, refusals."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from storage.records import read_jsonl
from storage.run_folder import RunFolder
from storage.shards import TokenSplit
from tests.train.conftest import with_fields
from train import checkpoint
from train.checkpoint import TrainState, random_states, set_random_states
from train.config import Config
from train.data.batches import training_evaluation_batches
from train.device import measure_peak_flops
from train.loop import Trainer, train
from train.objective import ModelWithLoss, mean_loss
from train.pacing import data_parallel

ROOT = Path(__file__).parents[2]
WEIGHTS = "checkpoints/step-000012/model.safetensors"
OPTIMIZER = "checkpoints/step-000012/training/optimizer.safetensors"
TIMED = {"seconds", "tokens_per_second", "model_flops_utilization"}
COMMANDS = """
import sys
from train.__main__ import main
split = sys.argv.index("--")
for run_dir in sys.argv[1:split]:
    main(["debug", "--run-dir", run_dir, *sys.argv[split + 1 :]])
"""


def curve(run_dir: Path) -> list[dict[str, float]]:
    return [{key: line[key] for key in line.keys() - TIMED} for line in read_jsonl(run_dir / "metrics.jsonl")]


def same_tensors(one: Path, other: Path) -> bool:
    left, right = load_file(one), load_file(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the process a real SIGINT at the end of a step."""
    do_step = Trainer._step

    def stepping(trainer: Trainer) -> None:
        do_step(trainer)
        if trainer.state.step == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "_step", stepping)


def resume_to_the_end(config: Config, stops: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in as many sessions as it takes to be interrupted after each of these steps, and a last one."""
    config = with_fields(config, run__resume=True)
    for step in stops:
        with monkeypatch.context() as patch:
            stop_after(step, patch)
            status = RunFolder(train(config, recipe="debug")).state
        assert (status["status"], status["step"]) == ("stopped", step)
        evaluated = "checkpoints/step-000004" if step > 4 else None
        assert status["best_checkpoint"] in (evaluated, "checkpoints/step-000008")
    train(config, recipe="debug")


def assert_same_run(one: Path, other: Path) -> None:
    """Curve, weights and the optimizer's state are equal bit for bit."""
    assert curve(one) == curve(other)
    assert same_tensors(one / WEIGHTS, other / WEIGHTS)
    assert same_tensors(one / OPTIMIZER, other / OPTIMIZER)


def assert_accumulation_changes_nothing(config: Config, make_run_dir: Callable[[str], Path]) -> None:
    """The training losses with one micro-batch a step and with four agree, where these are not computed together."""
    config = with_fields(config, model__residual_dropout=0.0)
    runs = [
        with_fields(config, run__dir=make_run_dir(str(parts)), data__gradient_accumulation_steps=parts)
        for parts in (1, 4)
    ]
    losses = []
    for run, room in zip(runs, (data_parallel.ACTIVATIONS, 0), strict=True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(data_parallel, "ACTIVATIONS", room)
            losses.append([line["train_loss"] for line in curve(train(run, recipe="debug"))])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("stops", "windows"),
    [
        ([5], "packed"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (([1, 10], "packed"), ([5], "random"))),
        ([1, 10], "random"),
    ],
)
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(
    tiny: Config,
    finished_run: Path,
    fresh_run_dir: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    windows: str,
    stops: list[int],
) -> None:
    config = with_fields(tiny, data__windows=windows)
    if windows == "packed":
        unbroken = finished_run
    else:  # and in micro-batches
        config = with_fields(config, data__gradient_accumulation_steps=2)
        monkeypatch.setattr(data_parallel, "ACTIVATIONS", 0)
        unbroken = train(with_fields(config, run__dir=fresh_run_dir("unbroken")), recipe="debug")
    broken = fresh_run_dir("broken")
    resume_to_the_end(with_fields(config, run__dir=broken), stops, monkeypatch)
    assert_same_run(broken, unbroken)
    samples = [read_jsonl(run / "samples.jsonl")[-4:] for run in (broken, unbroken)]
    assert samples[0] == samples[1]


def test_the_unbroken_run_crosses_an_epoch_border(finished_run: Path) -> None:
    state = json.loads((finished_run / "checkpoints/step-000012/training/state.json").read_text())
    assert state["batches"]["epoch"] >= 1


def test_another_seed_is_another_curve(tiny: Config, finished_run: Path, fresh_run_dir: Callable[[str], Path]) -> None:
    config = with_fields(tiny, run__dir=fresh_run_dir("other"), run__seed=7)
    assert curve(train(config, recipe="debug")) != curve(finished_run)


def test_accumulation_gives_the_gradients_of_the_whole_batch(
    tiny: Config, fresh_run_dir: Callable[[str], Path]
) -> None:
    assert_accumulation_changes_nothing(tiny, fresh_run_dir)


def test_what_a_run_leaves(finished_run: Path) -> None:
    run = json.loads((finished_run / "run.json").read_text())
    assert run["status"] == "finished"
    assert run["step"] == 12
    assert run["tokens_seen"] == 12 * 4 * 32
    assert run["floor_bits_per_byte"] > 0
    evaluation = run["evaluation"]
    assert evaluation["perplexity"] == pytest.approx(math.exp(evaluation["validation_loss"]))
    assert evaluation["bits_per_byte"] > run["floor_bits_per_byte"]
    lines = read_jsonl(finished_run / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert all({"tokens_seen", "train_loss", "learning_rate"} <= line.keys() for line in lines)
    assert all(0 < line["gradient_norm"] < math.inf and 0 < line["model_flops_utilization"] < 1 for line in lines)
    assert 0 < run["model_flops_utilization"] < 1
    assert "peak of matrix products: " in (finished_run / "train.log").read_text()
    evaluated = [line["step"] for line in lines if "validation_loss" in line]
    assert evaluated == [4, 8, 12]
    assert {line["step"] for line in read_jsonl(finished_run / "samples.jsonl")} == {1, 3, 4, 8, 10, 12}
    assert (finished_run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not list(finished_run.rglob("*.tmp"))
    assert list(RunFolder(finished_run).checkpoints()) == sorted({8, 12} | {int(run["best_checkpoint"][-6:])})


def test_a_checkpoint_loads_as_it_is(finished_run: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(finished_run / "checkpoints/step-000012", local_files_only=True)
    loss = model(torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss
    assert torch.isfinite(loss)
    tokenizer = AutoTokenizer.from_pretrained(finished_run / "checkpoints/step-000012", trust_remote_code=False)
    assert tokenizer.model_max_length == model.config.max_position_embeddings


def test_the_loss_of_an_evaluation_is_that_of_whole_documents(finished_run: Path, tiny: Config) -> None:
    """The floor and the loss speak of the same text: every held-out story, each token once."""
    from corpus.stories.generator import generate_stories
    from tokenization import load_tokenizer

    tokenizer: Any = load_tokenizer(finished_run / "tokenizer")
    stories = list(generate_stories(seed=tiny.corpus.seed, count=tiny.corpus.validation_stories))
    ids = [tokenizer.encode_ordinary(story.text) for story in stories]
    run = json.loads((finished_run / "run.json").read_text())
    tokens = sum(len(story) + 1 for story in ids)
    floor = -sum(story.log_probability or math.nan for story in stories) / math.log(2)
    size = sum(len(story.text.encode()) for story in stories)
    assert run["floor_bits_per_byte"] == pytest.approx(floor / size)
    bits = run["evaluation"]["validation_loss"] * tokens / math.log(2)
    assert run["evaluation"]["bits_per_byte"] == pytest.approx(bits / size)


def test_the_training_loss_of_an_evaluation_is_without_dropout_and_of_fixed_windows(
    tiny: Config, finished_run: Path, fresh_run_dir: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """At the last step it is the loss of the last checkpoint; measuring it leaves the curve of training as it was."""
    model = AutoModelForCausalLM.from_pretrained(finished_run / "checkpoints/step-000012", local_files_only=True)
    train_split, validation = (TokenSplit.open(finished_run / "tokens", name) for name in ("train", "validation"))
    batches = training_evaluation_batches(
        train_split, validation, batch_size=1, length=32, windows=2, end_of_text=model.config.eos_token_id
    )
    expected = mean_loss(ModelWithLoss(model), batches, torch.device("cpu"))
    lines = read_jsonl(finished_run / "metrics.jsonl")
    assert [line["step"] for line in lines if "train_eval_loss" in line] == [4, 8, 12]
    assert lines[-1]["train_eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert f"; training loss {expected:.4f} in evaluation mode" in (finished_run / "train.log").read_text()
    capfd.readouterr()
    rarely = with_fields(tiny, run__dir=fresh_run_dir("rarely"), run__evaluate_every=12)
    losses = [line["train_loss"] for line in curve(train(rarely, recipe="debug"))]
    assert losses == [line["train_loss"] for line in lines]
    assert f"train/val={expected:.4f}/{lines[-1]['validation_loss']:.4f}, bits/byte=" in capfd.readouterr().err


def test_a_second_process_is_refused(tiny: Config, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(ValueError, match="another process trains in"):
        train(with_fields(tiny, run__dir=tmp_path), recipe="debug")


def test_a_run_folder_with_a_run_needs_resume(tiny: Config, finished_run: Path) -> None:
    with pytest.raises(ValueError, match=r"got one with a run of 12 steps.*--resume"):
        train(with_fields(tiny, run__dir=finished_run), recipe="debug")


def test_a_run_folder_of_another_recipe_is_refused(tiny: Config, finished_run: Path) -> None:
    config = with_fields(tiny, run__dir=finished_run, run__resume=True, model__num_hidden_layers=3)
    own = rf"python -m train {finished_run}/recipe\.json --run-dir {finished_run} --resume"
    with pytest.raises(ValueError, match=rf"--model\.num-hidden-layers: the run has 2, asked for 3\); .*`{own}`"):
        train(config, recipe="debug")


def test_a_finished_run_says_so(tiny: Config, finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(with_fields(tiny, run__dir=finished_run, run__resume=True), recipe="debug")
    assert "the run is finished: 12 steps are done" in capsys.readouterr().out


def test_a_stopped_run_may_be_declared_long_enough(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_fields(tiny, run__dir=fresh_run_dir("r"), run__resume=True)
    with monkeypatch.context() as patch:
        stop_after(6, patch)
        assert RunFolder(train(config, recipe="debug")).state["status"] == "stopped"
    state = RunFolder(train(with_fields(config, run__steps=6), recipe="debug")).state
    assert (state["status"], state["cut_short"], state["step"]) == ("finished", None, 6)
    loss = RunFolder(config.run.dir or Path()).record_at(6, "validation_loss")["validation_loss"]
    assert (state["best_checkpoint"], state["best_validation_loss"]) == ("checkpoints/step-000006", loss)


def test_another_precision_than_before_is_said(
    tiny: Config, fresh_run_dir: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_fields(tiny, run__dir=fresh_run_dir("r"), run__resume=True, run__steps=4, run__precision="fp32")
    train(config, recipe="debug")
    train(with_fields(config, run__steps=8, run__precision="bf16"), recipe="debug")
    assert "bf16 from here on, fp32 until now (--run.precision fp32 keeps it)" in capsys.readouterr().out
    train(with_fields(config, run__steps=12, run__precision="bf16"), recipe="debug")
    assert "from here on" not in capsys.readouterr().out


def test_a_broken_checkpoint_is_named(tiny: Config, fresh_run_dir: Callable[[str], Path]) -> None:
    run_dir = train(with_fields(tiny, run__dir=fresh_run_dir("broken"), run__steps=4), recipe="debug")
    weights = run_dir / "checkpoints/step-000004/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"step-000004: expected a complete checkpoint.*delete this folder"):
        train(with_fields(tiny, run__dir=run_dir, run__resume=True), recipe="debug")


def test_a_full_disk_keeps_the_last_checkpoint(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = fresh_run_dir("full")
    save = checkpoint.save

    def full(folder: Path, **given: Any) -> None:
        if folder.name == "step-000008":
            monkeypatch.setattr(checkpoint, "save_file", no_space)
        save(folder, **given)

    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="no room"):
        train(with_fields(tiny, run__dir=run_dir), recipe="debug")
    assert list(RunFolder(run_dir).checkpoints()) == [4]
    assert not list((run_dir / "checkpoints").glob(".*"))


def test_a_signal_to_the_command_saves_and_exits_cleanly(finished_run: Path, tmp_path: Path) -> None:
    """Two commands one after the other in one process: SIGINT for the first, SIGTERM for the second."""
    signals = (signal.SIGINT, signal.SIGTERM)
    run_dirs = [tmp_path / number.name for number in signals]
    flags = [
        "--steps", "100000", "--tokenizer.path", str(finished_run / "tokenizer"), "--run.evaluate-every", "100000",
        "--run.checkpoint-every", "100000", "--run.sample-tokens", "0",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", COMMANDS, *map(str, run_dirs), "--", *flags], cwd=tmp_path, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    for number, run_dir in zip(signals, run_dirs, strict=True):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (run_dir / "metrics.jsonl").exists():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.1)
        process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    for number, run_dir in zip(signals, run_dirs, strict=True):
        assert f"{number.name}: stopped after step" in output
        run = json.loads((run_dir / "run.json").read_text())
        assert run["status"] == "stopped"
        assert (run_dir / run["latest_checkpoint"] / "model.safetensors").is_file()


def test_every_field_of_the_state_is_saved() -> None:
    state = TrainState(
        step=3, skipped=1, tokens_seen=4, seconds=5.0, best_step=2, best_validation_loss=1.5, losses=[1.0]
    )
    copy = TrainState()
    copy.load_state_dict(json.loads(json.dumps(state.state_dict())))
    assert dataclasses.asdict(copy) == dataclasses.asdict(state)


def test_every_process_has_a_random_state_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of a single process' states are those of old checkpoints; a process without one keeps its own."""
    torch.manual_seed(3)
    first = random_states(SimpleNamespace(num_processes=1))
    assert "random/cpu" in first
    torch.manual_seed(4)
    other = torch.get_rng_state()
    monkeypatch.setattr(checkpoint, "gather_object", lambda own: [{"cpu": first["random/cpu"]}, *own])
    both = random_states(SimpleNamespace(num_processes=2))
    for process, expected in enumerate((first["random/cpu"], other)):
        torch.manual_seed(5)
        set_random_states(both, process)
        assert torch.equal(torch.get_rng_state(), expected)
        set_random_states(first, process_index=1)
        assert torch.equal(torch.get_rng_state(), expected)


def test_measuring_the_peak_draws_no_random_numbers() -> None:
    accelerator = SimpleNamespace(device=torch.device("cpu"), mixed_precision="no")
    before = torch.get_rng_state()
    assert measure_peak_flops(accelerator, seconds=0.01) > 1e6
    assert torch.equal(torch.get_rng_state(), before)


def test_without_clipping_the_norm_is_that_of_logged_steps(tiny: Config, fresh_run_dir: Callable[[str], Path]) -> None:
    config = with_fields(tiny, optimizer__max_grad_norm=0.0, run__log_every=5)
    lines = read_jsonl(train(with_fields(config, run__dir=fresh_run_dir("free")), recipe="debug") / "metrics.jsonl")
    assert [line["step"] for line in lines if "gradient_norm" in line] == [5, 10]
