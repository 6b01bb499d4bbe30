"""sweep.json: what a search is made of, and whether a folder belongs to one."""

import json
from pathlib import Path
from typing import Any

from train.config import Config, as_json
from train.sweep.space import Space

# Fields of `run` that change what a trial reaches; the others may differ when a sweep goes on.
_RUN_FIELDS = ("seed", "steps", "max_seconds", "evaluate_every", "precision")


def objective_of(config: Config) -> str:
    """What is minimised: bits per byte, or where there are none (masked models) the validation loss."""
    return "bits_per_byte" if config.data.objective == "causal" else "validation_loss"


def settings(config: Config, recipe: str, space: Space, startup_trials: int) -> dict[str, Any]:
    """What makes a sweep that one and no other, as JSON values."""
    tree = as_json(config)
    tree["run"] = {key: tree["run"][key] for key in _RUN_FIELDS}
    return {
        "recipe": recipe,
        "objective": objective_of(config),
        "startup_trials": startup_trials,
        "space": space.as_json(),
        "config": tree,
    }


def check_same_sweep(
    config: Config, recipe: str, space: Space, startup_trials: int, folder: Path, resume: bool
) -> None:
    """Refuse a folder that has a search already, or another one than is to be gone on with.

    Raises:
        ValueError: naming what differs.
    """
    path = folder / "sweep.json"
    if not path.is_file():
        return
    if not resume:
        raise ValueError(
            f"{folder}: expected a new sweep folder, got one with a search; go on with it with --resume, or choose "
            "another --sweep-dir"
        )
    there = _flat(json.loads(path.read_text(encoding="utf-8")))
    here = _flat(settings(config, recipe, space, startup_trials))
    different = [
        f"{name}: the sweep has {there.get(name, 'nothing')}, asked for {here.get(name, 'nothing')}"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    if different:
        raise ValueError(
            f"{folder}: expected the folder of a sweep with these settings, got one of another "
            f"({'; '.join(different)}); give the same settings, or choose another --sweep-dir"
        )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a tree by their dotted names (those of a config without the word)."""
    if not isinstance(tree, dict):
        return {prefix.removeprefix("config."): tree}
    return {
        name: leaf
        for key, value in tree.items()
        for name, leaf in _flat(value, f"{prefix}.{key}" if prefix else key).items()
    }
