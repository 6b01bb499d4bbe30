"""`python -m train RECIPE --plan`: what it counts is what the run has, and it makes nothing."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling import ScratchGPTForCausalLM
from modeling.sizing import flops_per_token
from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from tokenization import save_tokenizer
from tokenization.trainers import train_own
from train.__main__ import main
from train.config import Config
from train.pacing.plan import DEVICES, GPT2_VOCABULARY, Plan, Trial, at, make_plan, vocabulary_size
from train.recipes import get_recipe


def trial(windows: int, memory: int) -> Trial:
    return Trial(windows=windows, pass_seconds=1.0, update_seconds=0.1, evaluation_seconds=0.3, memory=memory)


def planned(config: Config, folder: Path) -> Plan:
    return make_plan(config, RunFolder(folder), lambda line: None)


def test_it_counts_what_the_model_has(tmp_path: Path) -> None:
    recipe = with_fields(get_recipe("debug"), data__gradient_accumulation_steps=2, optimizer__name="adamw")
    plan = planned(recipe, tmp_path)
    shape = recipe.model.build(vocab_size=400, end_of_text=399)
    model = ScratchGPTForCausalLM(shape)
    assert plan.parameters == model.num_parameters()
    assert plan.vocabulary == 400
    assert plan.tokens == 20 * 8 * 64
    assert plan.flops == plan.tokens * flops_per_token(shape, 64)
    # fp32 weights, and AdamW's two moments and counter of each tensor.
    assert plan.checkpoint_bytes == 12 * plan.parameters + 4 * len(list(model.parameters()))
    assert [trial.windows for trial in plan.trials] == [1, 8]  # on the CPU micro-batches are computed together
    assert plan.seconds > 20 * plan.step_seconds > 0
    assert plan.memory >= plan.trials[-1].memory > 50e6
    assert list(tmp_path.iterdir()) == []


@given(st.integers(1, 9), st.integers(10, 90), st.integers(0, 50), st.integers(0, 9), st.integers(1, 500))
def test_what_grows_in_a_straight_line_is_followed(few: int, many: int, base: int, slope: int, windows: int) -> None:
    trials = [trial(few, base + slope * few), trial(many, base + slope * many)]
    assert at(windows, "memory", trials) == pytest.approx(base + slope * windows)
    assert at(windows, "memory", [trial(many, slope * many)]) == pytest.approx(slope * windows)
    falling = [trial(few, base + many), trial(many, base)]
    assert at(windows, "memory", falling) == base  # noise; no more windows take less


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_the_command_says_the_plan_and_writes_nothing(
    objective: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    flags = ["--data.objective", objective, "--run.max-seconds", "0.001", "--run.threads", str(torch.get_num_threads())]
    main(["debug", "--plan", "--run-dir", str(run), "--steps", "30", *flags])
    printed = capsys.readouterr()
    assert re.match(r"plan of debug: 33,\d{3} parameters, vocabulary 400, cpu, fp32, \d+ threads\n", printed.out)
    assert "tokens   15,360: 30 steps of 8 windows of 64 tokens\n" in printed.out
    assert "limit    less than a second do not suffice at this pace" in printed.out
    assert all(f"{name} less than a second" in printed.out for name in DEVICES)
    assert "trying 3 steps of 8 of 8 windows" in printed.err
    assert not run.exists()


def test_a_text_that_is_too_short_is_planned_as_it_would_be_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "poem.txt").write_text("The lamp burned low and the sea was quiet.\n" * 12)
    main(["debug", "--plan", "--corpus", str(tmp_path / "poem.txt"), "--run-dir", str(tmp_path / "run")])
    said = capsys.readouterr().out
    assert "the text is short (516 bytes): a vocabulary of 273, not 400 (--tokenizer.vocab-size)" in said
    assert "vocabulary 273" in said


def test_a_mistake_is_told_before_anything_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="expected a divisor of the batch size 8, got 3"):
        main(["debug", "--plan", "--data.gradient-accumulation-steps", "3"])
    assert capsys.readouterr().err == ""


def test_the_vocabulary_is_that_of_a_tokenizer_that_exists(tmp_path: Path) -> None:
    config, said = get_recipe("debug"), []
    run = RunFolder(tmp_path / "run")
    assert vocabulary_size(config, run, said.append) == 400
    assert vocabulary_size(with_fields(config, tokenizer__kind="gpt2"), run, said.append) == GPT2_VOCABULARY
    assert said == []
    assert vocabulary_size(with_fields(config, tokenizer__kind="characters"), run, said.append) == 128
    assert said == ["assumed: a vocabulary of 128 characters; the text tells how many there are"]
    save_tokenizer(train_own(["one two three"], 260), tmp_path / "other")
    given = replace(config, tokenizer=replace(config.tokenizer, path=tmp_path / "other"))
    assert vocabulary_size(given, run, said.append) == 260
    save_tokenizer(train_own(["one two three"], 258), run.tokenizer)
    assert vocabulary_size(given, run, said.append) == 258


def test_a_gpu_without_room_is_not_named() -> None:
    config = get_recipe("debug")
    plan = Plan(
        parameters=2 * 10**9, vocabulary=400, tokens=10**6, flops=1e15, step_seconds=1.1, seconds=22.0, memory=10**9,
        checkpoint_bytes=10**9, device="cpu, fp32", trials=(trial(8, 10**9),),
    )  # fmt: skip
    last = plan.lines(config, "debug")[-1]
    assert "T4" not in last
    assert "A100 11 s" in last  # 1e15 / (0.3 x 312e12)
    huge = replace(plan, parameters=10**11).lines(config, "debug")[-1]
    assert huge.startswith("GPUs     none that is known has room")
