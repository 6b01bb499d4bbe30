"""Searches: what they write, and that one which was killed or interrupted reaches the same numbers."""

import csv
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from sqlalchemy.exc import OperationalError

from storage.run_folder import RunFolder
from tests.train.test_loop import curve, stop_after
from tokenization import load_tokenizer
from train.__main__ import main as train_main
from train.config import from_json, replace_fields
from train.recipes import load_recipe
from train.sweep.__main__ import main
from train.sweep.search import should_prune

ROOT = Path(__file__).parents[3]
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
from train.sweep import search
from train.sweep.__main__ import main
should_prune = search.should_prune
def report_and_die(study, trial, step, value):
    decision = should_prune(study, trial, step, value)
    if (trial.number, step) == (2, 6):
        os.kill(os.getpid(), signal.SIGKILL)
    return decision
search.should_prune = report_and_die
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted search; read it, do not change it."""
    folder = tmp_path_factory.mktemp("sweeps") / "uninterrupted"
    main([*SEARCH, "--sweep-dir", str(folder)])
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(encoding="utf-8") as stream:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(stream)]


def test_what_a_search_writes(finished: Path) -> None:
    rows = table(finished)
    states = [row["state"] for row in rows]
    assert states == ["complete", "pruned at step 2", "complete"]
    runs = [RunFolder(finished / "trials" / f"trial-{number:03d}") for number in range(3)]
    for row, run in zip(rows, runs, strict=True):
        assert float(row["bits_per_byte"]) == min(r["bits_per_byte"] for r in run.metrics() if "bits_per_byte" in r)
        config = from_json(run.recipe["config"])
        assert config.model.hidden_size == int(row["model.hidden_size"])
        assert config.model.num_attention_heads == config.model.hidden_size // 16 or config.model.hidden_size == 8
        assert config.optimizer.muon_learning_rate == float(row["optimizer.muon_learning_rate"])
    assert len({(run.tokens / "train-00000.npy").stat().st_ino for run in runs}) == 1, "trials share their tokens"
    best = json.loads((finished / "best.json").read_text())["trial"]
    assert [run.path.name for run in runs if run.checkpoints()] == [f"trial-{best:03d}"]
    assert (finished / "sweep.png").read_bytes().startswith(b"\x89PNG")
    report = (finished / "sweep.md").read_text()
    assert "- `optimizer.muon_learning_rate`: 1e-05..0.1:log\n" in report
    assert all(f"{state} |" in report for state in states)
    assert not list(finished.rglob("*.tmp"))


def test_the_best_is_a_recipe_that_trains(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = min((row for row in table(finished) if row["state"] == "complete"), key=lambda row: row["bits_per_byte"])
    best = json.loads((finished / "best.json").read_text())
    assert (best["trial"], best["value"]) == (int(row["trial"]), float(row["bits_per_byte"]))
    train_main([str(finished / "best.json"), "--run-dir", str(tmp_path / "run")])
    assert curve(tmp_path / "run") == curve(finished / "trials" / f"trial-{best['trial']:03d}")
    assert f"{best['value']:.4f} bits per byte" in capsys.readouterr().out


def test_a_best_recipe_that_was_changed_is_taken_and_a_line_says_so(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(shutil.copy(finished / "best.json", tmp_path))
    whole = load_recipe(str(path))
    assert not caplog.messages
    content = json.loads(path.read_text())
    content["config"]["run"]["seed"] = 1336
    path.write_text(json.dumps(content))
    assert load_recipe(str(path)) == (whole[0], replace_fields(whole[1], {"run.seed": 1336}))
    assert [f"{path}: best.json does not have the checksum" in line for line in caplog.messages] == [True]


@pytest.mark.slow
def test_a_killed_search_resumes_to_the_same_numbers(finished: Path, tmp_path: Path) -> None:
    arguments = [*SEARCH, "--sweep-dir", str(tmp_path / "killed")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = RunFolder(tmp_path / "killed/trials/trial-002")
    assert list(run.checkpoints()) == [4]
    with pytest.raises(SystemExit, match=r"got one with a search; resume it with --resume"):
        main(arguments)
    main([*arguments, "--resume"])
    assert table(tmp_path / "killed") == table(finished)
    for trial in (finished / "trials").iterdir():
        assert curve(tmp_path / "killed/trials" / trial.name) == curve(trial)
    assert "from step 4" in run.log.read_text()


def test_an_interrupted_search_names_the_command_that_resumes_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*SEARCH, "--sweep-dir", str(tmp_path / "a b")]
    arguments[2] = "1"
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        main(arguments)
    out = capsys.readouterr().out
    assert "stopped; everything is saved, resume with\n  python -m train.sweep debug --trials 1" in out
    assert f"--sweep-dir '{tmp_path / 'a b'}' --resume" in out
    assert [row["state"] for row in table(tmp_path / "a b")] == ["not finished"]
    arguments[2] = "2"
    main([*arguments, "--resume"])
    assert table(tmp_path / "a b") == table(finished)[:2]


def test_an_evaluation_that_is_repeated_is_judged_as_the_first_time() -> None:
    """What a trial reported at later steps before it was killed does not count."""
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=1))
    study.add_trial(optuna.trial.create_trial(value=2.0, intermediate_values={2: 3.0, 4: 2.5, 6: 2.0}))
    trial = study.ask()
    assert not should_prune(study, trial, 2, 2.9)
    trial.report(9.0, 4)
    trial.report(0.5, 6)
    assert not should_prune(study, trial, 2, 2.9)
    other = study.ask()
    other.report(1.0, 4)  # better than the median by now; at step 2 it was not
    assert should_prune(study, other, 2, 3.1)


def test_trials_without_a_result_end_alone(tmp_path: Path) -> None:
    """Heads that do not fit, and an initialisation so wide that the loss is infinite."""
    space = ["--space", "model.num_key_value_heads=2,3", "model.initializer_range=1e38,0.02"]
    main(["debug", "--trials", "4", *space, *TINY, "--sweep-dir", str(tmp_path / "s"), "--steps", "2"])
    found = set()
    for row in table(tmp_path / "s"):
        wide = {"1e+38": r"the (loss|gradient norm) of step 1 is not finite", "0.02": "complete"}
        expected = wide[row["model.initializer_range"]]
        expected = "no such model: " if row["model.num_key_value_heads"] == "3" else expected
        found.add(expected)
        assert re.match(expected, row["state"])
    assert len(found) == 3


def test_a_vocabulary_for_which_the_text_is_too_short_ends_its_trial_alone(tmp_path: Path) -> None:
    tiny = [word for word in TINY if word not in ("--tokenizer.vocab-size", "300")]
    space = ["--tokenizer.kind", "sentencepiece", "--space", "tokenizer.vocab_size=400,30000"]
    text = ["--corpus.stories", "60", "--steps", "2"]
    main(["debug", "--trials", "4", *space, *tiny, *text, "--sweep-dir", str(tmp_path / "s")])
    states = {row["tokenizer.vocab_size"]: row["state"] for row in table(tmp_path / "s")}
    assert states["400"] == "complete"
    assert re.match(r"no such model: .*expected vocab_size of at most \d+", states["30000"])


def test_a_text_that_is_not_there_ends_the_search_whatever_is_searched(tmp_path: Path) -> None:
    """It is no trial's fault, and its trial is taken up again by --resume."""
    text = tmp_path / "text.txt.gz"
    text.write_bytes(b"no gzip")
    space = ["--data.split", "text", "--space", "tokenizer.vocab_size=300,400"]
    with pytest.raises(SystemExit, match=r"error: .*text\.txt\.gz"):
        main(
            [
                "debug",
                "--trials",
                "2",
                *space,
                "--corpus",
                str(text),
                "--sweep-dir",
                str(tmp_path / "s"),
                "--steps",
                "2",
            ]
        )
    assert not (tmp_path / "s" / "trials.csv").exists()  # no trial has ended


def test_a_search_with_a_teacher(finished: Path, tmp_path: Path) -> None:
    """All trials learn from one model, in its tokens, whose vocabulary they would not have by themselves."""
    teacher = next(finished.glob("trials/*/checkpoints/*"))
    folder = tmp_path / "s"
    taught = [word for word in TINY if word not in ("--tokenizer.vocab-size", "300")]
    main(["debug", "--trials", "2", *SPACE, *taught, "--teacher", str(teacher), "--sweep-dir", str(folder)])
    assert [row["state"] for row in table(folder)] == ["complete"] * 2
    assert from_json(json.loads((folder / "best.json").read_text())["config"]).data.teacher == str(teacher.resolve())
    runs = [RunFolder(path) for path in sorted((folder / "trials").iterdir())]
    vocabularies = [load_tokenizer(run.tokenizer).get_vocab() for run in runs]
    assert vocabularies == [load_tokenizer(teacher).get_vocab()] * 2
    assert [len(vocabulary) for vocabulary in vocabularies] == [300] * 2


def test_a_search_without_a_result_is_an_error(tmp_path: Path) -> None:
    space = ["--space", "model.num_key_value_heads=3,5"]
    with pytest.raises(SystemExit, match=r"error: no trial is complete \(reasons: .*sweep\.md\)"):
        main(["debug", "--trials", "2", *space, "--sweep-dir", str(tmp_path / "none")])
    assert "no such model: " in (tmp_path / "none/sweep.md").read_text()
    assert not (tmp_path / "none/best.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sify", "--trials", "2"], "error: unknown recipe 'sify': expected one of stories"),
        (["debug", "--trials", "0"], "error: --trials: expected at least 1, got 0"),
        (["debug", "--trials", "1", "--startup-trials", "0"], "error: --startup-trials: expected at least 1, got 0"),
        (["debug", "--trials", "1", "--run-dir", "x"], "error: --run-dir: each trial has a run folder of its own"),
        (
            ["modern", "--trials", "1", "--minutes", "5"],
            "error: --minutes: expected none in a search, .* got 5.0; leave",
        ),
        (["debug", "--trials", "1", "--from", "x"], "error: --from: expected none in a search, .* got x; leave"),
        (
            ["chat", "--trials", "1"],
            "error: --data.objective: expected causal or masked in a search, got chat, which goes",
        ),
        (["debug", "--trials", "1", "--teacher", "tests"], "error: --teacher .*/tests: .*/tests holds no model"),
        (
            ["scifi", "--trials", "1", "--space", "tokenizer.vocab_size=1000,4000"],
            "error: --space: expected a field that leaves the validation text as it is, got tokenizer.vocab_size with",
        ),
        (["debug", "--trials", "1", "--push", "me/x"], "error: --push: expected none in a search, .* with --push then"),
        (["debug", "--trials", "1", "--data.batch-size", "0"], "error: --data.batch-size: expected at least 1, got 0"),
        (["debug", "--trials", "1", "--sweep-dir", ""], "error: --sweep-dir: expected a value, got an empty text"),
        (["debug"], "2"),  # argparse names --trials
    ],
)
def test_a_mistake_is_named(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=message):
        main([*arguments, "--sweep-dir", str(tmp_path / "s")])
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seed", "3"], r"run\.seed: the sweep has 8, asked for 3"),
        (["--space", "optimizer.beta1=0.5..0.9"], r"space\.optimizer\.beta1: the sweep has nothing, asked for"),
        (["--model.num-hidden-layers", "1"], r"model\.num_hidden_layers: the sweep has 2, asked for 1"),
        (["--startup-trials", "9"], r"startup_trials: the sweep has 1, asked for 9"),
    ],
)
def test_the_folder_of_another_search_is_refused(finished: Path, change: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=rf"expected the folder of a sweep with these settings.*{message}"):
        main([*SEARCH, *change, "--sweep-dir", str(finished), "--resume"])


@pytest.mark.parametrize("arguments", [["--help"], ["debug", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    out = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "--trials" in out
    assert "best.json" in out


def test_a_database_that_cannot_be_written_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        full = OperationalError("UPDATE", {}, sqlite3.OperationalError("database or disk is full"))
        raise optuna.exceptions.StorageInternalError("An exception is raised during the commit.") from full

    monkeypatch.setattr(optuna.Trial, "set_user_attr", no_room)
    with pytest.raises(SystemExit) as stopped:
        main([*SEARCH, "--sweep-dir", str(tmp_path / "full")])
    assert str(stopped.value) == (
        f"error: {tmp_path / 'full' / 'study.db'}: cannot be written (database or disk is full); the trials that are "
        "finished are kept. Most likely the disk has no room for it: free some space, then run the same command again, "
        "with --resume."
    )
