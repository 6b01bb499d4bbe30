"""`python -m train RECIPE [--corpus PATH…] [--run-dir DIR] [--resume] [--steps N] [--seed S] [--section.field value]`.

What counts, from weak to strong: the defaults, the recipe, the command line. RECIPE may also be a file: best.json of a
sweep (`python -m train.sweep`), or recipe.json of a run.
"""

import shutil
import sys
import textwrap
from dataclasses import replace

import tyro

from modeling import quick_imports
from train.checks import check_effects
from train.config import Config
from train.publishing import check_account, is_first_process, publish
from train.recipes import RECIPES, load_recipe

USAGE = (
    f"usage: python -m train RECIPE [options]   (RECIPE: {', '.join(RECIPES)}, or a .json file; --list; RECIPE --help)"
)


def list_recipes() -> str:
    """Each recipe's name and first sentence in two columns, wrapped to the width of the terminal."""
    rows = {name: (recipe.__doc__ or "").strip().splitlines()[0] for name, recipe in RECIPES.items()}
    rows["PATH.json"] = "A recipe file: best.json of a sweep, or recipe.json of a run."
    column = max(map(len, rows)) + 2
    width = max(shutil.get_terminal_size(fallback=(120, 24)).columns, column + 30)
    return "\n".join(
        textwrap.fill(f"{name:{column}}{about}", width, subsequent_indent=" " * column) for name, about in rows.items()
    )


def parse(arguments: list[str]) -> tuple[str, Config]:
    """The recipe's name and the config that its command line resolves to.

    Raises:
        ValueError: for an unknown recipe or a recipe file that is broken.
        SystemExit: for flags that tyro refuses, and after --help.
    """
    given, *flags = arguments
    name, recipe = load_recipe(given)
    config = tyro.cli(
        Config, default=recipe, args=flags, prog=f"python -m train {given}", description=RECIPES[name].__doc__
    )
    if config.corpus.paths != recipe.corpus.paths:
        paths = tuple(path.resolve() for path in config.corpus.paths)
        config = replace(config, corpus=replace(config.corpus, source="local", paths=paths))
    return name, config


def main(arguments: list[str] | None = None) -> None:
    """The command line; a user's mistake ends it with a message and exit status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{__doc__}\n{USAGE}\n\n{list_recipes()}")
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--list":
        print(list_recipes())
        return
    try:
        name, config = parse(arguments)
        check_effects(config, load_recipe(arguments[0])[1])
        repo = config.run.push if is_first_process() else None
        if repo:
            check_account(repo)
        with quick_imports():
            from train.device import leave_process_group
            from train.loop import train

        run_dir = train(config, recipe=name)
        leave_process_group()
        if repo:
            publish(run_dir, repo)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted before the first step; nothing is lost, the same command begins again")


if __name__ == "__main__":
    main()
