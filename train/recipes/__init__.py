"""One recipe a file; each is a function that returns one full `Config`."""

from collections.abc import Callable

from train.config import Config
from train.recipes.bookcorpus import bookcorpus
from train.recipes.debug import debug
from train.recipes.modern import modern
from train.recipes.openwebtext import openwebtext
from train.recipes.scifi import scifi
from train.recipes.stories import stories
from train.recipes.wiki import wiki
from train.recipes.wikitext import wikitext

RECIPES: dict[str, Callable[[], Config]] = {
    recipe.__name__: recipe for recipe in (stories, scifi, bookcorpus, openwebtext, wikitext, wiki, modern, debug)
}


def get_recipe(name: str) -> Config:
    """The recipe of that name.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}: expected one of {', '.join(RECIPES)}")
    return RECIPES[name]()
