"""Help comes before the heavy imports: whoever asks a command what it takes waits for none of them."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "gradio", "datasets", "optuna", "matplotlib", "pandas"}
PROGRAM = """
import runpy, sys
module, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    print("\\nends with", end.code)
print("imported", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize(
    "words",
    [
        "app --help",
        "app --terminal --temperature hot",
        "train --help",
        "train --list",
        "train modern --help",
        "train.evaluate --help",
        "train.memorization --help",
        "train.sweep --help",
        "train.sweep modern --help",
        "tokenization --help",
        "tokenization train --help",
        "corpus --help",
        "hub_export --help",
        "hub_export bundle --help",
    ],
)
def test_help_imports_nothing_heavy(words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words.split()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *_, ended, imported = done.stdout.splitlines()
    assert ended == ("ends with 2" if "hot" in words else "ends with 0") or words == "train --list"
    assert not HEAVY & {*imported.split()}
    assert len(done.stdout.splitlines()) > 8 or "invalid float value: 'hot'" in done.stderr


def test_the_usage_that_app_begins_with_names_the_flags_of_its_help() -> None:
    usage = ast.get_docstring(ast.parse((ROOT / "app.py").read_text(encoding="utf-8")))
    assert usage is not None
    done = subprocess.run(
        [sys.executable, "app.py", "--help"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    flags = set(re.findall(r"--[a-z-]+", usage))
    assert {"--model", "--run-dir"} <= flags
    assert flags <= set(re.findall(r"--[a-z-]+", done.stdout))
