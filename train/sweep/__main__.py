"""`python -m train.sweep RECIPE --trials N [--space FIELD=VALUES …] [--resume] [--section.field value]`.

Hyperparameter search: each trial is a run with other values of the searched fields, suggested by TPE from the trials
before it, and ended at an evaluation that is worse than the median of the finished trials at that step. The best
validation bits per byte (masked models: validation loss) of a run is what counts. `best.json` in the sweep's folder is
a recipe that `python -m train` takes.

Flags of `python -m train RECIPE` fix fields for all trials. All trials have the same number of steps: a larger batch or
model sees or computes more in them; `--run.max-seconds` gives each the same time instead.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from modeling import wait_passively
from train.__main__ import parse as parse_run
from train.checks import check_not_empty, given_fields
from train.recipes import RECIPES
from train.sweep import STARTUP_TRIALS

if TYPE_CHECKING:
    from train.sweep.search import Search

USAGE = f"usage: python -m train.sweep RECIPE --trials N [options]   (RECIPE: {', '.join(RECIPES)} or a recipe file)"


def parse(arguments: list[str]) -> "tuple[Search, int, bool]":
    """The search of a command line, the number of trials, and whether to resume."""
    name, *flags = arguments
    parser = argparse.ArgumentParser(
        prog=f"python -m train.sweep {name}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Fields that all trials share: the flags of `python -m train {name} --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--trials", type=int, required=True, help="trials in all, earlier ones of a --resume included")
    parser.add_argument("--sweep-dir", type=Path, help="the sweep's folder (default: runs/sweep-RECIPE)")
    parser.add_argument(
        "--space", nargs="+", action="extend", default=[], metavar="FIELD=VALUES",
        help="fields to search, in place of width, depth, learning rate and batch size around the recipe's; VALUES are "
        "LOW..HIGH, LOW..HIGH:log, LOW..HIGH:STEP or A,B,C",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="resume the search of the folder")
    parser.add_argument(
        "--startup-trials", type=int, default=STARTUP_TRIALS,
        help="random trials, before which nothing is pruned either (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--keep-checkpoints", action="store_true", help="of every trial, not only of the best")
    check_not_empty(flags)
    given, rest = parser.parse_known_args(flags)

    from train.sweep.search import Search  # after the parsing: --help and a wrong flag need no torch
    from train.sweep.space import build_space

    recipe, config = parse_run([name, *rest])
    if config.run.dir is not None and any(flag.startswith(("--run-dir", "--run.dir")) for flag in rest):
        raise ValueError("--run-dir: each trial has a run folder of its own; choose the sweep's with --sweep-dir")
    if config.data.objective == "chat":
        raise ValueError(
            "--data.objective: expected causal or masked in a search, got chat, which goes on from a model and keeps "
            "its sizes; search its base model, or compare runs of `python -m train chat` by hand"
        )
    run = config.run
    for flag, value in (("--from", run.base_model), ("--minutes", run.minutes), ("--push", run.push)):
        if value:
            raise ValueError(
                f"{flag}: expected none in a search, whose trials have sizes, steps and a tokenizer of its own, got "
                f"{value}; leave it out (of a recipe file too), limit the trials with --steps or --run.max-seconds, "
                f"and train best.json with {flag} then"
            )
    search = Search(
        recipe=recipe,
        config=config,
        space=build_space(config, given.space, given_fields(rest)),
        folder=given.sweep_dir or Path("runs") / f"sweep-{recipe}",
        startup_trials=given.startup_trials,
        keep_checkpoints=given.keep_checkpoints,
    )
    return search, given.trials, given.resume


def main(arguments: list[str] | None = None) -> None:
    """The command line; a user's mistake ends it with a message and exit status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    wait_passively()  # before anything imports torch
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{__doc__}\n{USAGE}")
        sys.exit(0 if arguments else 2)
    try:
        search, trials, resume = parse(arguments)
        completed = search.run(trials, resume=resume)
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        sys.exit(
            "error: python -m train.sweep: expected the package optuna, got none installed; "
            "install it with `pip install optuna`"
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        completed = False
    if not completed:
        again = shlex.join([*arguments, *([] if "--resume" in arguments else ["--resume"])])
        print(f"stopped; everything is saved, resume with\n  python -m train.sweep {again}")


if __name__ == "__main__":
    main()
