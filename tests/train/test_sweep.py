"""Searches: what they leave, and that one which was killed or interrupted reaches the same numbers."""

import csv
import json
import signal
from pathlib import Path

import optuna
import pytest
from tqdm import tqdm

from tests.processes import Python
from tests.train.test_loop import curve, stop_after
from train.__main__ import main as train_main
from train.config import from_json
from train.recipes import get_recipe
from train.run_log import read_lines
from train.sweep.__main__ import main
from train.sweep.search import Search
from train.sweep.space import build_space

ROOT = Path(__file__).parents[2]
TINY = [
    "--corpus.stories", "3", "--corpus.validation-stories", "2", "--tokenizer.vocab-size", "300",
    "--model.intermediate-size", "32", "--model.head-dim", "8", "--model.max-position-embeddings", "32",
    "--data.batch-size", "4", "--seed", "8", "--steps", "6", "--run.evaluate-every", "2", "--run.checkpoint-every", "4",
    "--run.sample-tokens", "0", "--run.threads", "1",
]  # fmt: skip
SPACE = ["--space", "model.hidden-size=8..16:8", "optimizer.muon_learning_rate=1e-5..1e-1:log"]
SEARCH = ["debug", "--trials", "3", "--startup-trials", "1", *SPACE, *TINY]

KILLED = """
import os, signal, sys
from train.loop import Trainer
from train.sweep.__main__ import main
trial, step = int(sys.argv[1]), int(sys.argv[2])
do_step = Trainer._step
def stepping(trainer):
    do_step(trainer)
    if trainer.run_dir.name == f"trial-{trial:03d}" and trainer.state.step == step:
        os.kill(os.getpid(), signal.SIGKILL)
Trainer._step = stepping
main(sys.argv[3:])
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken search; read it, do not change it."""
    folder = tmp_path_factory.mktemp("sweeps") / "unbroken"
    main([*SEARCH, "--sweep-dir", str(folder)])
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(encoding="utf-8") as stream:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(stream)]


def test_what_a_search_leaves(finished: Path) -> None:
    rows = table(finished)
    ended = [row["state"] for row in rows]
    assert ended == ["complete", "pruned at step 2", "complete"]
    for row in rows:
        run_dir = finished / "trials" / f"trial-{int(row['trial']):03d}"
        values = [line["bits_per_byte"] for line in read_lines(run_dir / "metrics.jsonl") if "bits_per_byte" in line]
        assert float(row["bits_per_byte"]) == min(values)
        config = from_json(json.loads((run_dir / "recipe.json").read_text())["config"])
        assert config.model.hidden_size == int(row["model.hidden_size"])
        assert config.model.num_attention_heads == config.model.hidden_size // 16 or config.model.hidden_size == 8
        assert config.optimizer.muon_learning_rate == float(row["optimizer.muon_learning_rate"])
    assert (finished / "sweep.png").read_bytes().startswith(b"\x89PNG")
    report = (finished / "sweep.md").read_text()
    assert "- `optimizer.muon_learning_rate`: 1e-05..0.1:log" in report
    assert "- `model.hidden_size`: 8..16:8" in report
    assert all(f"{state} |" in report for state in ended)
    assert not list(finished.rglob("*.tmp"))


def test_the_best_is_a_recipe_that_trains(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    complete = [row for row in table(finished) if row["state"] == "complete"]
    row = min(complete, key=lambda row: float(row["bits_per_byte"]))
    best = json.loads((finished / "best.json").read_text())
    assert (best["trial"], best["value"]) == (int(row["trial"]), float(row["bits_per_byte"]))
    train_main([str(finished / "best.json"), "--run-dir", str(tmp_path / "run")])
    assert curve(tmp_path / "run") == curve(finished / "trials" / f"trial-{best['trial']:03d}")
    assert f"{best['value']:.4f} bits per byte" in capsys.readouterr().out


def test_trials_share_tokens_and_only_the_best_keeps_weights(finished: Path) -> None:
    runs = sorted((finished / "trials").iterdir())
    assert len({(run / "tokens/train-00000.npy").stat().st_ino for run in runs}) == 1
    best = json.loads((finished / "best.json").read_text())["trial"]
    assert [run.name for run in runs if (run / "checkpoints").exists()] == [f"trial-{best:03d}"]


def test_a_killed_search_goes_on_to_the_same_numbers(clean_python: Python, finished: Path, tmp_path: Path) -> None:
    arguments = [*SEARCH, "--sweep-dir", str(tmp_path / "killed")]
    killed = clean_python.run("-c", KILLED, "2", "5", *arguments, folder=ROOT)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run_dir = tmp_path / "killed/trials/trial-002"
    assert [path.name for path in (run_dir / "checkpoints").glob("step-*")] == ["step-000004"]
    with pytest.raises(SystemExit, match=r"got one with a search; go on with it with --resume"):
        main(arguments)
    main([*arguments, "--resume"])
    assert table(tmp_path / "killed") == table(finished)
    for run in (finished / "trials").iterdir():
        assert curve(tmp_path / "killed/trials" / run.name) == curve(run)
    assert "going on from step 4" in (run_dir / "train.log").read_text()


def test_an_interrupted_search_says_how_it_goes_on_and_takes_more_trials(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*SEARCH, "--sweep-dir", str(tmp_path / "a b")]
    arguments[2] = "1"
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        main(arguments)
    said = capsys.readouterr().out
    assert "stopped; everything is saved, go on with\n  python -m train.sweep debug --trials 1" in said
    assert f"--sweep-dir '{tmp_path / 'a b'}' --resume" in said
    assert [row["state"] for row in table(tmp_path / "a b")] == ["not finished"]
    arguments[2] = "2"
    main([*arguments, "--resume"])
    assert table(tmp_path / "a b") == table(finished)[:2]


def search_of(study: optuna.Study, tmp_path: Path) -> Search:
    config = get_recipe("debug")
    return Search(
        recipe="debug", config=config, space=build_space(config, ["optimizer.beta1=0.1..0.9"], set()),
        folder=tmp_path, study=study, startup_trials=1, keep_checkpoints=False, precision="fp32",
        bar=tqdm(disable=True),
    )  # fmt: skip


def test_a_trial_that_sees_an_evaluation_again_is_judged_as_the_first_time(tmp_path: Path) -> None:
    """What it had reported later than that, before it was killed, does not count."""
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=1))
    finished = optuna.trial.create_trial(value=2.0, intermediate_values={2: 3.0, 4: 2.5, 6: 2.0})
    study.add_trial(finished)
    search = search_of(study, tmp_path)
    trial = study.ask()
    assert search._watch(trial, 2, {"bits_per_byte": 2.9}) is None
    trial.report(9.0, 4)
    trial.report(0.5, 6)
    assert search._watch(trial, 2, {"bits_per_byte": 2.9}) is None
    other = study.ask()
    other.report(1.0, 4)  # its best by now is better than the median at step 2, it was not so then
    assert search._watch(other, 2, {"bits_per_byte": 3.1}) == "pruned at step 2"
    assert study.trials[other.number].user_attrs["stopped"] == "pruned at step 2"


def test_trials_without_a_result_end_alone(tmp_path: Path) -> None:
    """Heads that do not fit, and an initialisation so wide that the loss is infinite."""
    space = ["--space", "model.num_key_value_heads=2,3", "model.initializer_range=1e30,0.02"]
    arguments = ["debug", "--trials", "4", *space, *TINY, "--sweep-dir", str(tmp_path / "s"), "--steps", "2"]
    main(arguments)
    states = {
        (row["model.num_key_value_heads"], row["model.initializer_range"]): row["state"]
        for row in table(tmp_path / "s")
    }
    for (heads, width), state in states.items():
        if heads == "3":
            assert state.startswith("no such model: ")
        else:
            assert state == {"1e+30": "the loss is not finite", "0.02": "complete"}[width]
    assert len(set(states.values())) == 3


def test_a_search_without_a_result_says_so(tmp_path: Path) -> None:
    space = ["--space", "model.num_key_value_heads=3,5"]
    with pytest.raises(SystemExit, match=r"error: no trial of 2 came to its end \(reasons: .*sweep\.md\)"):
        main(["debug", "--trials", "2", *space, "--sweep-dir", str(tmp_path / "none")])
    assert "no such model: " in (tmp_path / "none/sweep.md").read_text()
    assert not (tmp_path / "none/best.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sify", "--trials", "2"], r"error: unknown recipe 'sify': expected one of stories"),
        (["debug", "--trials", "0"], r"error: --trials: expected at least 1, got 0"),
        (["debug", "--trials", "1", "--startup-trials", "0"], r"error: --startup-trials: expected at least 1, got 0"),
        (["debug", "--trials", "1", "--run-dir", "x"], r"error: --run-dir: each trial has a run folder of its own"),
        (["debug", "--trials", "1", "--data.batch-size", "0"], r"error: --data.batch-size: expected at least 1, got 0"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=message):
        main([*arguments, "--sweep-dir", str(tmp_path / "s")])
    assert not (tmp_path / "s").exists()


def test_trials_must_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["debug"])
    assert stopped.value.code == 2
    assert "the following arguments are required: --trials" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seed", "3"], r"run\.seed: the sweep has 8, asked for 3"),
        (
            ["--space", "optimizer.beta1=0.5..0.9"],
            r"space\.optimizer\.beta1: the sweep has nothing, asked for",
        ),
        (["--model.num-hidden-layers", "1"], r"model\.num_hidden_layers: the sweep has 2, asked for 1"),
        (["--startup-trials", "9"], r"startup_trials: the sweep has 1, asked for 9"),
    ],
)
def test_the_folder_of_another_search_is_refused(finished: Path, change: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=rf"expected the folder of a sweep with these settings.*{message}"):
        main([*SEARCH, *change, "--sweep-dir", str(finished), "--resume"])


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["debug", "--help"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
        said = capsys.readouterr().out
        assert "--trials" in said
        assert "best.json" in said
