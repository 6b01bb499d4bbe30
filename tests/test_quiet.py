"""What a user types in the first minutes prints no library's warning in between."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WARNING = re.compile(r"warning|deprecated|\[transformers\]", re.IGNORECASE)


def run(*words: str, given: str = "") -> str:
    """The output of `python WORDS`, bars and errors included."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment | {"HF_HUB_OFFLINE": "1"},
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def noise(output: str) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", output) if WARNING.search(line)]


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("run") / "debug"
    return folder, run("-m", "train", "debug", "--steps", "3", "--run-dir", str(folder))


def test_training_prints_no_warning(training: tuple[Path, str]) -> None:
    assert "finished after 3 steps" in training[1]
    assert noise(training[1]) == []


@pytest.mark.slow
def test_bundling_and_writing_print_no_warning(training: tuple[Path, str], tmp_path: Path) -> None:
    bundle = str(tmp_path / "bundle")
    output = run("-m", "hub_export", "bundle", str(training[0]), "--out", bundle)
    assert "exported, and checked" in output
    output += run("app.py", "--model", bundle, "--terminal", "--max-new-tokens", "100", given="Once\n")
    assert "Once" in output
    assert noise(output) == []


@pytest.mark.parametrize("line", ["x.py:1: FutureWarning: y", "[transformers] `z` is deprecated", "\r\x1b[KWARNING: a"])
def test_a_warning_would_be_seen(line: str) -> None:
    assert noise(f"a bar 3%\r{line}\nthe end") != []
