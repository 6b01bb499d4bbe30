"""A search: trials one after the other, each a run in a folder of its own, and the reports on them."""

import contextlib
import csv
import math
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy.exc
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from corpus.readers import BrokenFileError
from storage.checksums import sealed
from storage.files import (
    atomic_file,
    atomic_folder,
    explain_write_errors,
    locked_folder,
    remove_folder,
    remove_leftovers,
)
from storage.records import flatten, read_json_object, write_json
from storage.run_folder import RunFolder
from storage.text import first_line
from train.base.teacher import load_teacher, with_teacher
from train.checks import validate
from train.config import Config, as_json, replace_fields
from train.data.prepare import prepare
from train.data.split import read_corpus
from train.device import choose_device, choose_precision
from train.loop import train
from train.numerics.guard import DivergedError
from train.sweep import STARTUP_TRIALS
from train.sweep.space import Space
from train.trackers import check_tracker

UNITS = {"bits_per_byte": "bits per byte", "validation_loss": "nats per hidden token"}
COSTS = {"steps": "step", "tokens_seen": "tokens_seen", "seconds": "seconds", "parameters": "parameters"}  # in run.json
# Fields of `run` that change what a trial reaches; the others may differ when a sweep is resumed.
_RUN_FIELDS = ("seed", "steps", "max_seconds", "evaluate_every", "precision")

# Values that some texts are too short for, which is known when they are read: such a trial ends alone.
FITTED_TO_TEXT = {"tokenizer.kind", "tokenizer.vocab_size", "model.max_position_embeddings"}


@dataclass(kw_only=True)
class Search:
    """A search in a folder.

    Its pruner compares medians; Hyperband's brackets of growing budgets would need a largest budget, many trials and
    many evaluations a run.
    """

    recipe: str
    config: Config  # what all trials share; its seed is the search's too
    space: Space
    folder: Path
    startup_trials: int = STARTUP_TRIALS  # random ones at the start, before which nothing is pruned either
    keep_checkpoints: bool = False  # of every trial, not only of the best
    study: optuna.Study = field(init=False)
    bar: tqdm = field(init=False)

    def __post_init__(self) -> None:
        # Bits per byte can be compared across vocabularies; masked models have none.
        self.objective = "bits_per_byte" if self.config.data.objective == "causal" else "validation_loss"
        # One precision for all widths, so that trials differ only in what is searched.
        self.precision = choose_precision(self.config, choose_device(self.config.run.device))

    def run(self, trials: int, *, resume: bool = False) -> bool:
        """Search until `trials` trials are finished, those of earlier calls included; False when a signal ended it.

        Raises:
            ValueError: settings that do not fit each other or the folder.
        """
        if trials < 1:
            raise ValueError(f"--trials: expected at least 1, got {trials}")
        if self.startup_trials < 1:
            raise ValueError(f"--startup-trials: expected at least 1, got {self.startup_trials}")
        check_tracker(self.config.run.tracker)
        load_teacher(with_teacher(self.config))  # one that is not there is no trial's fault, nor is a text
        if self.space.distributions.keys() & FITTED_TO_TEXT:
            next(iter(read_corpus(self.config.corpus)), None)
        self._check_folder(resume)
        if self.config.run.tracker == "trackio":
            os.environ.setdefault("TRACKIO_DIR", str(self.folder.resolve() / "tracking"))  # all trials side by side
        busy = "expected a sweep folder that is free, got one that another process searches in; "
        with (
            locked_folder(self.folder, f"{busy}wait for it, stop it, or choose another --sweep-dir"),
            _explained(self.folder / "study.db"),
            _study(self.folder, self.recipe) as self.study,
            tqdm(total=trials, unit="trial", dynamic_ncols=True) as self.bar,
        ):
            remove_leftovers(self.folder)
            write_json(self.folder / "sweep.json", self._settings())
            self.study.pruner = optuna.pruners.MedianPruner(self.startup_trials, self.config.schedule.warmup_steps)
            self.bar.update(len(self._finished()))
            if self._finished():
                self._save()
            completed = True
            while completed and len(self._finished()) < trials:
                completed = self._run_trial(self._next_trial())
                self.bar.update(completed)
                self._save()
            if completed:
                self._print_result()
        return completed

    def best(self) -> FrozenTrial | None:
        """The complete trial with the lowest objective."""
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return min(complete, key=lambda trial: trial.values[0], default=None)

    def _print_result(self) -> None:
        print(table(_rows(self.study, self.objective)))
        best = self.best()
        if best is None:
            raise ValueError(
                f"no trial is complete (reasons: {self.folder / 'sweep.md'}); search other ranges with --space and "
                "another --sweep-dir, or continue with --resume and more --trials"
            )
        print(
            f"best: trial {best.number}, {best.value:.4f} {UNITS[self.objective]}; train it with\n"
            f"  python -m train {shlex.quote(str(self.folder / 'best.json'))}"
        )

    def _settings(self) -> dict[str, Any]:
        """What another search would have differently, as sweep.json has it."""
        config = as_json(self.config)
        config["run"] = {key: config["run"][key] for key in _RUN_FIELDS}
        settings = {"recipe": self.recipe, "objective": self.objective, "startup_trials": self.startup_trials}
        return settings | {"space": self.space.as_json(), "config": config}

    def _check_folder(self, resume: bool) -> None:
        """Refuse a folder that has a search already, or a different one than the one to resume."""
        path = self.folder / "sweep.json"
        if not path.is_file():
            return
        if not resume:
            raise ValueError(
                f"{self.folder}: expected a new sweep folder, got one with a search; resume it with --resume, or "
                "choose another --sweep-dir"
            )
        there, here = flatten(read_json_object(path)), flatten(self._settings())
        different = [
            f"{name.removeprefix('config.')}: the sweep has {there.get(name, 'nothing')}, "
            f"asked for {here.get(name, 'nothing')}"
            for name in sorted(there.keys() | here.keys())
            if there.get(name) != here.get(name)
        ]
        if different:
            raise ValueError(
                f"{self.folder}: expected the folder of a sweep with these settings, got one of another "
                f"({'; '.join(different)}); give the same settings, or choose another --sweep-dir"
            )

    def _finished(self) -> list[FrozenTrial]:
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def _run_folder(self, trial: FrozenTrial | optuna.Trial) -> RunFolder:
        return RunFolder(self.folder / "trials" / f"trial-{trial.number:03d}")

    def _next_trial(self) -> optuna.Trial:
        """The unfinished trial, or a new one. Each has a sampler with a seed of its own, so that a resumed search
        suggests what an uninterrupted one would.
        """
        trials = self.study.get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        number = running[0].number if running else len(trials)
        seed = int(np.random.SeedSequence([self.config.run.seed, number]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.startup_trials)
        return optuna.Trial(self.study, running[0]._trial_id) if running else self.study.ask()

    def _run_trial(self, trial: optuna.Trial) -> bool:
        """Run a trial, or the rest of it; False when a signal ended it."""
        values = self.space.suggest(trial)
        run = self._run_folder(trial)
        reason = trial.user_attrs.get("stopped") or self._train(trial, values, run)
        state = run.peek_state()
        if reason is None and state.get("status") != "finished":
            return False
        for key in state.keys() & COSTS.values():
            trial.set_user_attr(key, state[key])
        reached = [record.get(self.objective, math.inf) for record in run.metrics()]
        value = min(filter(math.isfinite, reached), default=None)
        if value is None and reason is None:
            reason = "no evaluation with a finite loss"
        if reason is None:
            self.study.tell(trial, value)
        else:
            trial.set_user_attr("stopped", reason)
            self.study.tell(trial, state=TrialState.PRUNED)
        result = "no result" if value is None else f"{value:.4f} {UNITS[self.objective]}"
        shown = ", ".join(f"{name.split('.')[1]} {_cell(value)}" for name, value in values.items())
        self.bar.write(f"trial {trial.number}: {result}{f' ({reason})' if reason else ''}; {shown}")
        return True

    def _train(self, trial: optuna.Trial, values: dict[str, Any], run: RunFolder) -> str | None:
        """Train a trial; why it ended early, or None when it was finished or a signal ended it."""

        def watch(step: int, evaluation: dict[str, float]) -> str | None:
            value = evaluation[self.objective]
            self._show(f"trial {trial.number}, step {step}: {value:.4f}")
            if not should_prune(self.study, trial, step, value) or step >= self.config.run.steps:
                return None
            trial.set_user_attr("stopped", f"pruned at step {step}")
            return f"pruned at step {step}"

        config = self.space.apply(self.config, values)
        try:
            validate(config)
            config = with_teacher(config)  # whose tokenizer the shared tokens are of
            load_teacher(config)
        except ValueError as error:
            return f"no such model: {error}"
        changed = {"run.dir": run.path, "run.resume": True, "run.output_tokens": 0, "run.precision": self.precision}
        try:
            self._share_tokens(config, run)
            train(replace_fields(config, changed), recipe=self.recipe, quiet=True, watch=watch)
        except DivergedError as error:
            return error.reason
        except ValueError as error:
            if isinstance(error, BrokenFileError) or not values.keys() & FITTED_TO_TEXT:
                raise
            return f"no such model: {error}"
        except MemoryError:
            return "out of memory"
        return trial.user_attrs.get("stopped")

    def _share_tokens(self, config: Config, run: RunFolder) -> None:
        """Link the tokenizer and the tokens of earlier trials with the same vocabulary into a run folder."""
        shared = RunFolder(self.folder / "prepared" / f"{config.tokenizer.kind}-{config.tokenizer.vocab_size}")
        with explain_write_errors(shared.path):
            shared.path.mkdir(parents=True, exist_ok=True)
        for source, target in ((shared.tokenizer, run.tokenizer), (shared.tokens, run.tokens)):
            if not target.exists():
                prepare(config, shared, self.bar.write)
                with atomic_folder(target) as temporary:
                    shutil.copytree(source, temporary, copy_function=_link, dirs_exist_ok=True)

    def _save(self) -> None:
        """Write the reports and best.json; delete the checkpoints of trials that are not the best."""
        write_report(self.study, self.folder, self.objective, self.space, self.recipe)
        draw(self.study, self.folder / "sweep.png", self.objective, self.space)
        best = self.best()
        if best is not None:
            run = {"run.dir": Path("runs") / f"{self.recipe}-best", "run.resume": False}
            config = as_json(replace_fields(self.space.apply(self.config, best.params), run))
            result = {"objective": self.objective, "value": best.value, "trial": best.number}
            write_json(self.folder / "best.json", sealed({"recipe": self.recipe, "config": config, **result}))
        for trial in self._finished():
            if not self.keep_checkpoints and (best is None or trial.number != best.number):
                with contextlib.suppress(OSError):
                    remove_folder(self._run_folder(trial).path / "checkpoints")
        self._show()

    def _show(self, now: str | None = None) -> None:
        best = self.best()
        shown = {} if best is None else {"best": f"{best.value:.4f} (trial {best.number})"}
        self.bar.set_postfix(shown | ({"now": now} if now else {}))


@contextlib.contextmanager
def _explained(database: Path) -> Iterator[None]:
    """What optuna raises where the database of the search cannot be written becomes an OSError with a message; SQLite
    calls a full disk "database or disk is full" or "disk I/O error"."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        reason = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or first_line(error)
        raise OSError(
            f"{database}: cannot be written ({reason}); the trials that are finished are kept. Most likely the disk "
            "has no room for it: free some space, then run the same command again, with --resume."
        ) from error


def should_prune(study: optuna.Study, trial: optuna.Trial, step: int, value: float) -> bool:
    """Report the evaluation of a step; whether the trial's best by then is worse than the median at that step.

    A trial that was killed and resumed from its checkpoint repeats evaluations; each decision is made from what was
    known at its step, as the first time.
    """
    if step not in study.trials[trial.number].intermediate_values:
        trial.report(value, step)
    known = study.trials[trial.number]
    known.intermediate_values = {at: value for at, value in known.intermediate_values.items() if at <= step}
    return study.pruner.prune(study, known)


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of rows with the same first columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [[name.split(".")[-1].replace("_", " "), *(_cell(row.get(name)) for row in rows)] for name in names]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        f"| {' | '.join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in zip(*columns, strict=True)
    ]
    rule = f"|{'|'.join('-' * (width + 1) + ':' for width in widths)}|"
    return "\n".join([lines[0], rule, *lines[1:]])


def write_report(study: optuna.Study, folder: Path, objective: str, space: Space, recipe: str) -> None:
    """Write trials.csv, by number, and sweep.md, the best trial first."""
    rows = _rows(study, objective)
    with atomic_file(folder / "trials.csv") as stream:
        names = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(stream, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["trial"]))
    complete = sum(row["state"] == "complete" for row in rows)
    searched = "\n".join(f"- `{name}`: {values}" for name, values in space.as_json().items())
    with atomic_file(folder / "sweep.md") as stream:
        stream.write(
            f"# Search over {recipe}\n\n"
            f"{len(rows)} trials, {complete} of them complete. A trial counts with its lowest {UNITS[objective]} on "
            "the validation text. `best.json` is the recipe of the best one (`python -m train PATH/best.json`).\n\n"
            f"Searched:\n\n{searched}\n\n"
            f"{table(rows)}\n\n"
            "![Objective by trial and by each field](sweep.png)\n\n"
            "Steps are the same for all trials, text and computation are not: see the tokens and seconds. Every "
            "trial's run folder is in `trials/`.\n"
        )


def draw(study: optuna.Study, path: Path, objective: str, space: Space) -> None:
    """Write sweep.png: the objective by trial and by each searched field; pruned trials are crosses."""
    rows = [row for row in _rows(study, objective) if row[objective] is not None and row["state"] != "not finished"]
    names = ["trial", *space.distributions]
    figure = Figure(figsize=(3 * len(names) + 1, 3.2), dpi=120, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False).flat, names, strict=True):
        distribution = space.distributions.get(name)
        chosen = isinstance(distribution, CategoricalDistribution)
        if isinstance(distribution, CategoricalDistribution):
            axes.xaxis.update_units([str(choice) for choice in distribution.choices])  # in the space's order
        elif isinstance(distribution, IntDistribution | FloatDistribution) and distribution.log:
            axes.set(xscale="log", xlim=(distribution.low / 1.2, distribution.high * 1.2))
        for label, marker in (("complete", "o"), ("pruned", "x")):
            points = [(row[name], row[objective]) for row in rows if (row["state"] == "complete") == (marker == "o")]
            axes.plot([str(x) if chosen else x for x, _ in points], [y for _, y in points], marker, label=label)
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel(UNITS[objective])
    figure.axes[0].legend(frameon=False)
    with atomic_file(path, "wb") as stream:
        figure.savefig(stream, format="png")


def _rows(study: optuna.Study, objective: str) -> list[dict[str, Any]]:
    """A row for each trial: the complete ones by their objective, then the others by the lowest they reached."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        attributes = trial.user_attrs
        ended = {TrialState.COMPLETE: "complete", TrialState.RUNNING: "not finished"}
        lowest = min(filter(math.isfinite, trial.intermediate_values.values()), default=None)
        row = {"trial": trial.number, "state": ended.get(trial.state) or attributes.get("stopped", "ended")}
        row[objective] = trial.value if trial.state == TrialState.COMPLETE else lowest
        row |= {name: attributes.get(attribute) for name, attribute in COSTS.items()}
        rows.append(row | trial.params)
    return sorted(rows, key=lambda row: (row["state"] != "complete", row[objective] is None, row[objective] or 0))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if not 0.1 <= abs(value) < 1e6 else f"{value:.4f}".rstrip("0").rstrip(".")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


@contextlib.contextmanager
def _study(folder: Path, name: str) -> Iterator[optuna.Study]:
    """The study in study.db, which is made where it is missing."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / 'study.db').resolve()}")
    try:
        yield optuna.create_study(storage=storage, study_name=name, load_if_exists=True, direction="minimize")
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _link(source: str, target: str) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
