"""`python -m train.sweep RECIPE --trials N [--space FIELD=VALUES …] [--resume] [--section.field value]`.

Hyperparameter search: each trial is a run with other values of the searched fields, suggested by TPE from the trials
before it, and ended at an evaluation that is worse than the median of the finished trials at that step. The best
validation bits per byte (masked models: validation loss) of a run is what counts. `best.json` in the sweep's folder is
a recipe that `python -m train` takes.

Flags of `python -m train RECIPE` fix fields for all trials. All trials have the same number of steps: a larger batch or
model sees or computes more in them; `--run.max-seconds` gives each the same time instead.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from tqdm import tqdm

from train.__main__ import parse as parse_run
from train.config import Config
from train.device import choose_device, choose_precision
from train.recipes import RECIPES
from train.run_log import write_json
from train.sweep.report import UNITS, table, write_picture
from train.sweep.search import Search
from train.sweep.settings import check_same_sweep, settings
from train.sweep.space import Space, build_space, given_fields
from train.trackers import check_tracker

STARTUP_TRIALS = 5
USAGE = f"usage: python -m train.sweep RECIPE --trials N [options]   (RECIPE: {', '.join(RECIPES)} or a recipe file)"


def sweep(
    config: Config,
    *,
    recipe: str,
    space: Space,
    trials: int,
    folder: Path,
    resume: bool = False,
    startup_trials: int = STARTUP_TRIALS,
    keep_checkpoints: bool = False,
) -> bool:
    """Search until `trials` trials are done, counting those of before; write the reports and best.json.

    Args:
        config: what all trials share; its seed is that of the search too.
        recipe: name of the recipe, for the record.
        folder: the sweep's folder.
        resume: go on with the search of the folder.
        startup_trials: trials at random places, before which nothing is pruned either.
        keep_checkpoints: keep those of every trial, not of the best alone.

    Returns:
        False when a signal ended it; the same call with `resume` goes on.

    Raises:
        ValueError: for settings that do not fit each other or the folder, or when no trial came to its end.
    """
    if trials < 1:
        raise ValueError(f"--trials: expected at least 1, got {trials}")
    if startup_trials < 1:
        raise ValueError(f"--startup-trials: expected at least 1, got {startup_trials}")
    check_tracker(config.run.tracker)
    check_same_sweep(config, recipe, space, startup_trials, folder, resume)
    folder.mkdir(parents=True, exist_ok=True)
    if config.run.tracker == "trackio":
        os.environ.setdefault("TRACKIO_DIR", str(folder.resolve() / "tracking"))  # all trials side by side
    try:
        with FileLock(folder / ".lock", timeout=0):
            return _sweep_locked(config, recipe, space, trials, folder, startup_trials, keep_checkpoints)
    except Timeout:
        raise ValueError(
            f"{folder}: expected a sweep folder that is free, got one that another process searches in; "
            "wait for it, stop it, or choose another --sweep-dir"
        ) from None


def _sweep_locked(
    config: Config,
    recipe: str,
    space: Space,
    trials: int,
    folder: Path,
    startup_trials: int,
    keep_checkpoints: bool,
) -> bool:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / 'study.db').resolve()}")
    write_json(folder / "sweep.json", settings(config, recipe, space, startup_trials))
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=recipe,
            load_if_exists=True,
            direction="minimize",
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=startup_trials, n_warmup_steps=config.schedule.warmup_steps
            ),
        )
        with tqdm(total=trials, unit="trial", dynamic_ncols=True) as bar:
            search = Search(
                recipe=recipe,
                config=config,
                space=space,
                folder=folder,
                study=study,
                startup_trials=startup_trials,
                keep_checkpoints=keep_checkpoints,
                precision=choose_precision(config, choose_device(config.run.device)),
                bar=bar,
            )
            bar.update(len(search.finished()))
            done = search.run(trials)
            search.keep()
            write_picture(study, folder / "sweep.png", objective=search.objective, space=space)
        if not done:
            return False
        print(table(study, objective=search.objective))
        best = search.best()
        if best is None:
            raise ValueError(
                f"no trial of {trials} came to its end (reasons: {folder / 'sweep.md'}); search other ranges with "
                "--space and another --sweep-dir, or go on with --resume and more --trials"
            )
        print(
            f"best: trial {best.number}, {best.value:.4f} {UNITS[search.objective]}; train it with\n"
            f"  python -m train {shlex.quote(str(folder / 'best.json'))}"
        )
        return True
    finally:
        storage.remove_session()
        storage.engine.dispose()


def parse(arguments: list[str]) -> dict[str, Any]:
    """The arguments of `sweep` that a command line means.

    Raises:
        ValueError: for what is unknown or missing.
        SystemExit: for flags that argparse or tyro refuses, and after --help.
    """
    name, *flags = arguments
    parser = argparse.ArgumentParser(
        prog=f"python -m train.sweep {name}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Fields that all trials share: the flags of `python -m train {name} --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("--trials", type=int, required=True, help="trials in all, those of before a --resume too")
    parser.add_argument("--sweep-dir", type=Path, help="the sweep's folder (default: runs/sweep-RECIPE)")
    parser.add_argument(
        "--space",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUES",
        help="fields to search, in place of width, depth, learning rate and batch size around the recipe's; VALUES are "
        "LOW..HIGH, LOW..HIGH:log, LOW..HIGH:STEP or A,B,C",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the search of the folder")
    parser.add_argument(
        "--startup-trials",
        type=int,
        default=STARTUP_TRIALS,
        help="trials at random places, before which nothing is pruned either (default: %(default)s)",
    )
    parser.add_argument(
        "--keep-checkpoints", action="store_true", help="keep those of every trial, not of the best alone"
    )
    given, rest = parser.parse_known_args(flags)
    recipe, config = parse_run([name, *rest])
    if config.run.dir is not None and any(flag.startswith(("--run-dir", "--run.dir")) for flag in rest):
        raise ValueError("--run-dir: each trial has a run folder of its own; choose the sweep's with --sweep-dir")
    return dict(
        config=config,
        recipe=recipe,
        space=build_space(config, given.space, given_fields(rest)),
        trials=given.trials,
        folder=given.sweep_dir or Path("runs") / f"sweep-{recipe}",
        resume=given.resume,
        startup_trials=given.startup_trials,
        keep_checkpoints=given.keep_checkpoints,
    )


def main(arguments: list[str] | None = None) -> None:
    """The command line; a user's mistake ends it with a message and exit status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{__doc__}\n{USAGE}")
        sys.exit(0 if arguments else 2)
    try:
        done = sweep(**parse(arguments))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        done = False
    if not done:
        again = shlex.join([*arguments, *([] if "--resume" in arguments else ["--resume"])])
        print(f"stopped; everything is saved, go on with\n  python -m train.sweep {again}")


if __name__ == "__main__":
    main()
