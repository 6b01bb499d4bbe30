"""recipe.json: what a run was made with, and whether a folder belongs to a config."""

import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from train.config import Config, as_json
from train.run_log import write_json

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "numpy")


def write_recipe(config: Config, recipe: str, run_dir: Path) -> None:
    """Write recipe.json: the resolved config, the git commit and the versions of the libraries."""
    write_json(
        run_dir / "recipe.json",
        {
            "recipe": recipe,
            "config": as_json(config),
            "git_commit": git_commit(),
            "versions": {name: version(name) for name in LIBRARIES},
        },
    )


def check_same_run(config: Config, run_dir: Path) -> None:
    """Refuse a folder whose run had another config; only `run` may differ, apart from its seed.

    Raises:
        ValueError: naming each field, what the folder has and what was asked for.
    """
    path = run_dir / "recipe.json"
    if not path.is_file():
        return
    there = json.loads(path.read_text(encoding="utf-8"))["config"]
    here = as_json(config)
    different = [
        f"--{section}.{key.replace('_', '-')}: the run has {there[section].get(key)!r}, asked for {value!r}"
        for section, values in here.items()
        for key, value in values.items()
        if there[section].get(key) != value and (section != "run" or key == "seed")
    ]
    if different:
        raise ValueError(
            f"{run_dir}: expected the folder of a run with this config, got one of another "
            f"({'; '.join(different)}); give the same settings, or choose another --run-dir"
        )


def git_commit() -> str | None:
    """The commit of the sources, with a `+` when they differ from it; None outside a repository."""

    def git(*words: str) -> Any:
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)

    try:
        head, status = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    except OSError:
        return None
    return head.stdout.strip() + ("+" if status.stdout else "") if head.returncode == 0 else None
