"""`--minutes N`: what it chooses, what it keeps, and what it refuses."""

import gzip
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from modeling.scaling.choice import BATCH
from modeling.scaling.shapes import SHAPES
from storage.run_folder import RunFolder
from train.__main__ import main, parse
from train.checks import check_minutes, given_fields, kept_fields
from train.config import Config, replace_fields
from train.pacing import minutes
from train.pacing.clock import command_seconds, counted
from train.pacing.minutes import fit_to_minutes, learning_rate, measure_steps
from train.pacing.plan import Plan, make_plan
from train.recipes import get_recipe
from train.run import Run

ROOT = Path(__file__).parents[2]
LINES = "".join(
    f"The kettle number {number} hums, and the window glows in house {number % 17}.\n" for number in range(4000)
)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(LINES)
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two narrowest models alone, whose steps are measured in a second, in a command that has just begun."""
    monkeypatch.setattr(minutes, "SHAPES", {width: SHAPES[width] for width in (64, 96)})
    monkeypatch.setattr(minutes, "command_seconds", lambda: 3.0)


def plan(words: list[str], folder: Path):
    _, config = parse(["modern", *words])
    said = []
    kept = kept_fields(config, get_recipe("modern"), given_fields(words))
    chosen, lines = fit_to_minutes(config, kept, RunFolder(folder), said.append)
    return chosen, lines, said


def begin(words: list[str], folder: Path) -> RunFolder:
    """A run of the recipe modern that was planned, and has its tokens, but has taken no step."""
    name, config = parse(["modern", *words, "--run-dir", str(folder)])
    Run(config, name, RunFolder(folder), given=given_fields(words), quiet=True)
    return RunFolder(folder)


@pytest.mark.usefixtures("small")
def test_the_plan_fits_the_minutes(text: Path, tmp_path: Path) -> None:
    chosen, lines, said = plan(["--corpus", str(text), "--minutes", "600"], tmp_path / "run")
    assert chosen.model.hidden_size in (64, 96)
    assert chosen.data.batch_size == BATCH
    assert chosen.run.steps >= 30
    assert 0.9 * 36_000 < chosen.run.max_seconds < 35_997  # the seconds of the command come off
    assert chosen.run.minutes == 0  # the plan is made
    assert chosen.model.residual_dropout == 0.1  # the text is read again and again
    assert chosen.optimizer.learning_rate == round(learning_rate(chosen.run.steps * 2048), 4)
    assert len(said) == 1
    assert said[0].startswith("measured, seconds of a step: ")
    planned, expected, *short = lines
    assert short == [
        "the text is short: after 20 readings another one teaches nothing new, and the run ends before its 600 minutes"
    ]
    steps = f"{chosen.run.steps:,} steps of 8 windows of 256 tokens, which read the text "
    assert planned.startswith("plan for 600 minutes: ")
    assert f"({chosen.model.num_hidden_layers} layers, {chosen.model.hidden_size} wide)" in planned
    assert f"a vocabulary of {chosen.tokenizer.vocab_size:,}, {steps}" in planned
    assert re.fullmatch(
        r"expected: \d\.\d\d bits per byte of held-out text, by a law fitted on English books and by how well this "
        r"text compresses \(0\.\d\d times their bits\)",
        expected,
    )
    assert not (tmp_path / "run").exists()


def test_longer_trainings_have_lower_rates() -> None:
    rates = [learning_rate(tokens) for tokens in (1e4, 1e6, 4e6, 16e6, 1e9)]
    assert rates == [0.02, 0.02, 0.01, 0.005, 0.003]


@pytest.mark.usefixtures("small")
def test_what_is_given_is_kept(text: Path, tmp_path: Path) -> None:
    words = "--minutes 600 --model.hidden-size 32 --tokenizer.vocab-size 300 --data.batch-size 4"
    words += " --model.max-position-embeddings 64 --model.residual-dropout 0.3 --schedule.warmup-steps 7"
    chosen, lines, _ = plan(["--corpus", str(text), *words.split()], tmp_path / "run")
    model = chosen.model
    assert (model.hidden_size, model.max_position_embeddings, model.residual_dropout) == (32, 64, 0.3)
    assert (chosen.tokenizer.vocab_size, chosen.data.batch_size, chosen.schedule.warmup_steps) == (300, 4, 7)
    assert "a vocabulary of 300" in lines[0]
    assert "steps of 4 windows of 64 tokens" in lines[0]


@pytest.mark.usefixtures("small")
def test_what_is_given_is_kept_with_the_value_of_the_recipe_too(text: Path, tmp_path: Path) -> None:
    recipe = get_recipe("modern")
    assert (recipe.data.batch_size, recipe.schedule.warmup_steps, recipe.run.max_seconds) == (32, 30, 0)
    words = "--minutes 600 --data.batch-size 32 --schedule.warmup-steps 30 --run.max-seconds 0 --model.hidden-size 256"
    words += " --model.num-hidden-layers 1 --model.max-position-embeddings 16"
    chosen, _, _ = plan(["--corpus", str(text), *words.split()], tmp_path / "run")
    assert (chosen.data.batch_size, chosen.schedule.warmup_steps, chosen.run.max_seconds) == (32, 30, 0)
    assert (chosen.model.hidden_size, chosen.model.num_hidden_layers) == (256, 1)


@pytest.mark.parametrize(("flags", "vocabulary"), [("", 2048), ("--tokenizer.kind characters --data.split text", 128)])
def test_times_are_scaled_from_the_vocabulary_that_was_measured(
    flags: str, vocabulary: int, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = []

    def recorded(*arguments: Any) -> Plan:
        plans.append(make_plan(*arguments))
        return plans[-1]

    monkeypatch.setattr(minutes, "make_plan", recorded)
    words = f"modern --corpus {text} --minutes 600 --model.max-position-embeddings 64 --data.batch-size 2 {flags}"
    shape = SHAPES[64]
    seconds = measure_steps(parse(words.split())[1], [shape], RunFolder(tmp_path / "run"), lambda line: None)
    assert [plan.vocabulary for plan in plans] == [vocabulary]
    assert seconds(shape, vocabulary) == pytest.approx(plans[0].step_seconds)
    assert seconds(shape, 8 * vocabulary) > seconds(shape, vocabulary)


@pytest.mark.usefixtures("small")
def test_a_run_that_was_planned_is_resumed_by_its_plan(text: Path, tmp_path: Path) -> None:
    words = ["--corpus", str(text), "--minutes", "2"]
    run = begin(words, tmp_path / "run")
    config, fitted = run.recipe["config"], run.recipe["fitted"]
    assert (config["run"]["minutes"], fitted["run.minutes"]) == (0, 2)
    again = begin([*words, "--resume", "--run.max-seconds", "0"], run.path).recipe
    assert again["fitted"] == fitted
    changed = {key: value for key, value in again["config"]["run"].items() if value != config["run"][key]}
    assert changed == {"max_seconds": 0.0, "resume": True}
    assert again["config"] | {"run": None} == config | {"run": None}
    with pytest.raises(
        ValueError, match=r"--minutes: expected that of the run in .*, 2, by which .*, got 60: its plan"
    ):
        begin(["--corpus", str(text), "--minutes", "60", "--resume"], run.path)
    assert run.peek_recipe()["fitted"] == fitted
    # As an earlier version has left it.
    run.write_recipe({**run.recipe, "config": config | {"run": config["run"] | {"minutes": 2.0}}, "fitted": {}})
    with pytest.raises(
        ValueError, match=r"--minutes: expected that of the run in .*, 2, by which .*, got 60: its plan"
    ):
        begin(["--corpus", str(text), "--minutes", "60", "--resume"], run.path)
    unplanned = begin(["--corpus", str(text), "--steps", "3"], tmp_path / "unplanned")
    with pytest.raises(
        ValueError, match=r"--minutes: expected that of the run in .*, none, without which it began, got"
    ):
        begin([*words, "--resume"], unplanned.path)


@pytest.mark.usefixtures("small")
def test_the_recipe_of_a_run_that_was_planned_is_not_planned_again(text: Path, tmp_path: Path) -> None:
    run = begin(["--corpus", str(text), "--minutes", "2"], tmp_path / "run")
    config = run.recipe["config"]
    for left in (0.0, 2.0):  # as it is written now, and as earlier versions wrote it
        run.write_recipe({**run.recipe, "config": config | {"run": config["run"] | {"minutes": left}}})
        name, other = parse([str(run.recipe_file), "--steps", "5000", "--run-dir", str(tmp_path / "other")])
        check_minutes(other, name, kept_fields(other, get_recipe(name), ["run.steps"]))
        assert (other.run.minutes, other.run.steps) == (0, 5000)
        assert other.run.max_seconds == config["run"]["max_seconds"]
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"recipe": "modern", "config": {"run": {"minutes": 2.0, "steps": 9}}}))
    with pytest.raises(SystemExit, match=r"--run\.steps: expected none beside --minutes, which chooses it"):
        main([str(mine), "--corpus", str(text)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("modern --minutes 0.1", r"--minutes: expected 0\.5 to 2,880 \(two days\), got 0\.1; for a longer run"),
        ("modern --minutes 100000", r"--minutes: expected 0\.5 to 2,880 \(two days\), got 100000; for a longer"),
        ("modern --minutes -1", r"--minutes: expected 0\.5 to 2,880 \(two days\), got -1"),
        ("scifi --minutes 5", "--minutes: expected it with the recipe modern, .* got it with scifi; `python -m"),
        ("modern --minutes 5 --steps 500", "--run.steps: expected none beside --minutes, which chooses it"),
        ("modern --minutes 5 --steps 9", "--run.steps: expected none beside --minutes, which chooses it"),
        ("modern --minutes 5 --run.max-seconds 9", "--run.max-seconds: expected none beside --minutes"),
        ("modern --minutes 5 --from x", "--minutes: expected none beside --from, which keeps"),
        (
            "modern --minutes 5 --data.objective masked",
            "--minutes: expected it with --data.objective causal, .* got it with masked",
        ),
    ],
)
def test_what_it_cannot_choose_for_is_refused(words: str, message: str, text: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=message):
        main([*words.split(), "--corpus", str(text), "--run-dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match=r"--minutes: expected one process, got several \(accelerate launch\)"):
        main(["modern", "--corpus", str(text), "--minutes", "5", "--run-dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("small")
def test_a_text_or_a_time_that_is_too_short(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poem = tmp_path / "poem.txt"
    poem.write_text(LINES[:500])
    with pytest.raises(SystemExit, match=r"--minutes: expected a text of at least 2,000 bytes, got 500"):
        main(["modern", "--corpus", str(poem), "--minutes", "5", "--run-dir", str(tmp_path / "run")])
    monkeypatch.setattr(minutes, "command_seconds", lambda: 29.0)  # a machine that took so long to come here
    with pytest.raises(SystemExit, match=r"--minutes: expected at least \d+\.\d for this text .* got 0\.5; give more"):
        main(["modern", "--corpus", str(text), "--minutes", "0.5", "--run-dir", str(tmp_path / "run")])


@pytest.mark.usefixtures("small")
def test_the_reading_of_a_text_whose_size_only_reading_tells_takes_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = tmp_path / "texts.jsonl"
    records.write_text((json.dumps({"text": LINES}) + "\n") * 9)
    monkeypatch.setattr(minutes, "MOST_BYTES", 2 * len(LINES))
    monkeypatch.setattr(minutes, "PREPARING_PER_BYTE", 40 / (8 * len(LINES)))  # all of it: more than half a minute
    with pytest.raises(SystemExit, match=r"--minutes: expected at least \d+\.\d for this text .* got 0\.5; give more"):
        main(["modern", "--corpus", str(records), "--minutes", "0.5", "--run-dir", str(tmp_path / "run")])


def test_minutes_count_from_the_entry_of_the_command(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(minutes, "SHAPES", {64: SHAPES[64]})
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: time.time() - 7200)  # a notebook's kernel
    words = ["--corpus", str(text), "--minutes", "20"]
    main(["modern", *words, "--run-dir", str(tmp_path / "run"), "--plan"])
    assert capsys.readouterr().out.startswith("plan for 20 minutes: ")
    chosen, _, _ = plan(words, tmp_path / "run")
    assert 0.5 * 1200 < chosen.run.max_seconds < 1200


def test_a_command_begins_where_its_outermost_block_does(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    @counted()
    def work() -> float:
        now[0] += 2
        return command_seconds()

    assert [work(), work()] == [2, 2]
    with counted():
        now[0] += 30
        assert [work(), work()] == [32, 34]
    assert work() == 2
    with pytest.raises(LookupError, match="expected a call inside of counted"):
        command_seconds()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("name", "is_said"), [("texts.jsonl.gz", True), ("text.txt", False)])
def test_a_text_whose_size_is_a_guess_is_said(
    name: str, is_said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (json.dumps({"text": LINES}) + "\n").encode() * 9
    (tmp_path / name).write_bytes(gzip.compress(content) if is_said else content)
    monkeypatch.setattr(minutes, "MOST_BYTES", 2 * len(LINES))
    words = "--minutes 600 --model.hidden-size 32 --model.max-position-embeddings 32 --data.batch-size 2"
    _, lines, _ = plan(["--corpus", str(tmp_path / name), *words.split()], tmp_path / "run")
    said = [line for line in lines if "only reading tells" in line]
    assert len(said) == is_said
    assert not is_said or f"the plan counts {9 * len(LINES):,} bytes" in said[0]  # all that was read


@pytest.mark.slow
def test_the_command_takes_its_minutes_and_goes_on(text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = f"-m train modern --corpus {text} --minutes 2 --run-dir {run}"
    command = [sys.executable, *words.split()]
    subprocess.run(command, check=True, timeout=300, cwd=ROOT)
    folder = RunFolder(run)
    assert folder.state["status"] == "finished"
    fitted = folder.recipe["fitted"]
    assert {"run.steps", "run.max_seconds", "model.hidden_size", "tokenizer.vocab_size"} <= fitted.keys()
    subprocess.run([*command, "--resume"], check=True, timeout=300, cwd=ROOT)
    assert folder.recipe["fitted"] == fitted  # nothing is planned anew


def test_models_of_another_precision_are_measured_in_the_same_process(tiny: Config, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16", "fp32"):
        config = replace_fields(tiny, {"run.precision": precision})
        assert make_plan(config, RunFolder(tmp_path / "run"), lambda line: None).device.endswith(precision)
