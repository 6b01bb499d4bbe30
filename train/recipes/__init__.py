"""One recipe a file; each is a function that returns one full `Config`.

A recipe may also be a JSON file, `{"recipe": name, "config": {section: {field: value}}}`, as recipe.json of a run and
best.json of a sweep are.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from storage.checksums import describe_damage, is_seal_broken
from storage.records import REPLACE, is_json_object, read_json
from storage.run_folder import RunFolder
from train.config import Config, as_json, check_name, from_json
from train.recipes.bookcorpus import bookcorpus
from train.recipes.chat import chat
from train.recipes.debug import debug
from train.recipes.modern import modern
from train.recipes.openwebtext import openwebtext
from train.recipes.scifi import scifi
from train.recipes.stories import stories
from train.recipes.wiki import wiki
from train.recipes.wikitext import wikitext

RECIPES: dict[str, Callable[[], Config]] = {
    recipe.__name__: recipe for recipe in (stories, scifi, bookcorpus, openwebtext, wikitext, wiki, modern, chat, debug)
}

logger = logging.getLogger(__name__)


def get_recipe(name: str) -> Config:
    """The recipe of that name.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}: expected one of {', '.join(RECIPES)}")
    return RECIPES[name]()


def load_recipe(name_or_path: str) -> tuple[str, Config]:
    """The name and the config of a recipe given by its name or by its JSON file.

    Fields that a file leaves out are the recipe's; it never resumes a run, nor plans one again (`--minutes`). A file
    that was changed since ScratchGPT wrote it counts, and a line is logged: people edit such files.

    Raises:
        ValueError: for an unknown name, a file that is missing or no recipe file, and a field in it that is unknown or
            has a value of another type or out of range.
    """
    if not name_or_path.endswith(".json"):
        return name_or_path, get_recipe(name_or_path)
    shape = '{"recipe": name, "config": {section: {field: value}}}'
    path = Path(name_or_path)
    if not path.exists():
        raise ValueError(f"{path}: expected a recipe file, got a name that does not exist")
    folder = RunFolder(path.parent)
    advice = folder.recipe_advice if path == folder.recipe_file else REPLACE
    content = read_json(path, advice)
    if is_changed := is_json_object(content) and is_seal_broken(content):
        _note_change(path)
    try:
        if not is_json_object(content) or not is_json_object(content.get("config")):
            raise ValueError(f"expected a recipe file such as {shape}, got one without a config")
        name = str(content.get("recipe"))
        tree = as_json(get_recipe(name))
        for section, values in content["config"].items():
            if section not in tree:
                raise ValueError(f"unknown section {section!r}: expected {', '.join(tree)}")
            if not isinstance(values, dict):
                raise ValueError(f"section {section!r}: expected its fields and their values, got {values!r}")
            tree[section] |= {check_name(f"{section}.{field}").split(".")[1]: values[field] for field in values}
        config = from_json(tree)
    except ValueError as error:
        raise ValueError(f"{path}: {error}{f'. {advice}' if is_changed else ''}") from None
    minutes = 0.0 if content.get("fitted") else config.run.minutes  # earlier versions left them beside their plan
    return name, replace(config, run=replace(config.run, resume=False, minutes=minutes))


@functools.cache  # once, however often a command reads the file
def _note_change(path: Path) -> None:
    logger.warning("%s: %s: it was edited, or is damaged", path, describe_damage([path.name]))
