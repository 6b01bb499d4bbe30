"""A recipe in a file: `{"recipe": name, "config": {section: {field: value}}}`, as recipe.json and best.json have it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from train.config import Config, as_json, from_json
from train.fields import check_field, field_name
from train.recipes import get_recipe


def is_recipe_file(name: str) -> bool:
    """Whether the first word of a command line means a file, not a recipe's name."""
    return name.endswith(".json")


def load_recipe_file(path: Path) -> tuple[str, Config]:
    """The recipe's name and its config, with the file's values; fields that the file leaves out are the recipe's.

    Raises:
        ValueError: for a file that is missing or no recipe file, an unknown recipe, or a field that is unknown or has
            a value of another type.
    """
    shape = '{"recipe": name, "config": {section: {field: value}}}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a recipe file, got a name that does not exist") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected a recipe file, JSON such as {shape}, got a broken one ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise ValueError(f"{path}: expected a recipe file such as {shape}, got one without a config")
    try:
        name = content.get("recipe")
        recipe = get_recipe(name if isinstance(name, str) else repr(name))
        tree = as_json(recipe)
        for section, values in content["config"].items():
            _overlay(tree, section, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    config = from_json(tree)
    return content["recipe"], replace(config, run=replace(config.run, resume=False))


def _overlay(tree: dict[str, Any], section: str, values: Any) -> None:
    """Put a section of a file over that of a recipe."""
    if section not in tree:
        raise ValueError(f"unknown section {section!r}: expected {', '.join(tree)}")
    if not isinstance(values, dict):
        raise ValueError(f"section {section!r}: expected its fields and their values, got {values!r}")
    for leaf, value in values.items():
        check_field(field_name(f"{section}.{leaf}"), value)
        tree[section][leaf] = value
