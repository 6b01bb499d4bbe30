"""`python -m train RECIPE [--corpus PATH…] [--from MODEL] [--run-dir DIR] [--resume] [--section.field value]`.

With --plan it says what that run will take (parameters, FLOPs, memory, time), and trains nothing.

What counts, from weak to strong: the defaults, the recipe, the command line. RECIPE may also be a file: best.json of a
sweep (`python -m train.sweep`), or recipe.json of a run.
"""

import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import tyro

from modeling import quick_imports, wait_passively
from storage.files import as_path
from storage.run_folder import RunFolder
from train.checks import check_effects, check_minutes, check_not_empty, given_fields, kept_fields, validate
from train.config import Config, replace_fields, value_of
from train.pacing.clock import counted
from train.publishing import check_account, is_first_process, publish
from train.recipes import RECIPES, load_recipe
from train.recipes.overview import recipe_table

USAGE = (
    f"usage: python -m train RECIPE [options]   (RECIPE: {', '.join(RECIPES)}, or a .json file; --list; RECIPE --help)"
)


def parse(arguments: list[str]) -> tuple[str, Config]:
    """The recipe's name and the config that its command line resolves to.

    Raises:
        ValueError: for an unknown recipe, a recipe file that is broken, an empty value, or a path that no file
            system can have.
        SystemExit: for flags that tyro refuses, and after --help.
    """
    given, *flags = arguments
    name, recipe = load_recipe(given)
    check_not_empty(flags)
    config = tyro.cli(
        Config, default=recipe, args=flags, prog=f"python -m train {given}", description=RECIPES[name].__doc__
    )
    fields = given_fields(flags)
    if "run.max_seconds" in fields and "run.max_stretch" not in fields:
        config = replace(config, run=replace(config.run, max_stretch=1.0))  # who gives a limit means it
    for field in ("run.base_model", "data.teacher"):
        model = value_of(config, field)
        if model is not None and (path := as_path(model, "a model folder or a Hub id")).exists():
            config = replace_fields(config, {field: str(path.resolve())})
    if config.data.replay is not None:
        replay = as_path(config.data.replay, "the folder of a run").resolve()
        config = replace(config, data=replace(config.data, replay=replay))
    if config.corpus.paths != recipe.corpus.paths:
        paths = tuple(path.resolve() for path in config.corpus.paths)
        books = config.corpus.books if name == "scifi" or "corpus.books" in fields else "any"
        config = replace(config, corpus=replace(config.corpus, source="local", paths=paths, books=books))
    return name, config


@counted()
def main(arguments: list[str] | None = None) -> None:
    """The command line; a user's mistake ends it with a message and exit status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    wait_passively()  # before anything imports torch
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{__doc__}\n{USAGE}\n\n{recipe_table()}")
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--list":
        print(recipe_table())
        return
    is_planned, folder = "--plan" in arguments, None
    arguments = [word for word in arguments if word != "--plan"]
    try:
        name, config = parse(arguments)
        given = given_fields(arguments[1:])
        check_effects(config, given)
        check_minutes(config, name, kept_fields(config, RECIPES[name](), given))
        if is_planned:
            show_plan(config, name, given)
            return
        repo = config.run.push if is_first_process() else None
        if repo:
            check_account(repo)
        folder = RunFolder(config.run.dir or Path("runs") / name)
        with quick_imports():
            from train.device import leave_process_group
            from train.loop import train

        run_dir = train(config, recipe=name, given=given)
        leave_process_group()
        if repo:
            publish(run_dir, repo)
    except (ValueError, OSError, MemoryError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        if folder is not None and (saved := folder.checkpoints()):
            sys.exit(f"interrupted; {folder.path} is saved up to step {max(saved)}: --resume continues from there")
        sys.exit("interrupted before the first checkpoint; the same command begins again")


def show_plan(config: Config, name: str, given: Collection[str]) -> None:
    """Print what the run of a recipe, of which the command line has `given` some fields, will take.

    Raises:
        ValueError: for a config or a text that does not fit.
    """
    with quick_imports():
        from train.base.base_model import start_from
        from train.base.teacher import with_teacher
        from train.device import torch_errors_explained
        from train.pacing.minutes import fit
        from train.pacing.plan import make_plan

    validate(config)
    folder, kept = RunFolder(config.run.dir or Path("runs") / name), kept_fields(config, RECIPES[name](), given)
    config, _ = start_from(config, kept, folder)
    config = with_teacher(config)
    with torch_errors_explained(folder):
        config, lines = fit(config, kept, folder, lambda line: print(line, file=sys.stderr, flush=True))
        print(*lines, sep="\n", end="\n" if lines else "")
        plan = make_plan(config, folder, lambda line: print(line, file=sys.stderr, flush=True))
    print(*plan.lines(config, name), sep="\n  ")


if __name__ == "__main__":
    main()
