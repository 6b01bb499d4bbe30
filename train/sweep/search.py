"""A search in progress: trials one after the other, each a run in a folder of its own."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from storage.files import atomic_folder
from train.config import Config, as_json, validate
from train.data.prepare import prepare
from train.fields import replace_fields
from train.loop import NonFiniteLossError, train
from train.run_log import read_lines, write_json
from train.sweep.report import UNITS, write_report
from train.sweep.settings import objective_of
from train.sweep.space import Space

# Fields of `data` that leave the token shards as they are.
_BATCH_FIELDS = ("batch_size", "gradient_accumulation_steps", "windows", "mask_rate", "evaluation_windows")


@dataclass(kw_only=True, slots=True)
class Search:
    """A search in progress.

    The pruner compares medians and not, as Hyperband does, brackets of growing budgets: it needs no largest budget,
    works from a handful of trials on, and with few evaluations a run.
    """

    recipe: str
    config: Config  # what all trials share
    space: Space
    folder: Path
    study: optuna.Study
    startup_trials: int
    keep_checkpoints: bool
    precision: str  # one for all widths: the trials differ in what is searched alone
    bar: tqdm

    def run(self, trials: int) -> bool:
        """Go on until so many trials are done; False when a signal ended it before."""
        while len(self.finished()) < trials:
            if not self._trial(self._open_trial()):
                return False
            self.keep()
            self.bar.update()
        return True

    def finished(self) -> list[FrozenTrial]:
        """The trials that are done."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def best(self) -> FrozenTrial | None:
        """The trial with the lowest objective among those that came to their end."""
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return min(complete, key=lambda trial: trial.values[0], default=None)

    def run_dir(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.folder / "trials" / f"trial-{number:03d}"

    def trial_config(self, values: dict[str, Any]) -> Config:
        """The config of a trial, as `python -m train` would take it."""
        return self.space.apply(self.config, values)

    def _open_trial(self) -> optuna.Trial:
        """The trial that was not finished, or the next one.

        Each trial has a sampler of its own seed, so that a search that goes on suggests what it would have.
        """
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        number = running[0].number if running else len(self.study.get_trials(deepcopy=False))
        seed = int(np.random.SeedSequence([self.config.run.seed, number]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.startup_trials)
        return optuna.Trial(self.study, running[0]._trial_id) if running else self.study.ask()

    def _trial(self, trial: optuna.Trial) -> bool:
        """Run a trial, or what is left of it; False when a signal ended it."""
        values = self.space.suggest(trial)
        run_dir = self.run_dir(trial.number)
        config = self.trial_config(values)
        reason = trial.user_attrs.get("stopped")
        if reason is None:
            reason, interrupted = self._train(trial, config, run_dir)
            if interrupted:
                return False
        if run_dir.joinpath("run.json").is_file():
            run = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
            for key in ("step", "parameters", "seconds", "tokens_seen"):
                trial.set_user_attr(key, run[key])
        reached = best_evaluation(run_dir, self.objective)
        if reason is None and reached is None:
            reason = "no evaluation with a finite loss"
        if reason is None:
            self.study.tell(trial, reached)
        else:
            trial.set_user_attr("stopped", reason)
            self.study.tell(trial, state=TrialState.PRUNED)
        shown = ", ".join(f"{name.split('.')[1]} {_short(value)}" for name, value in values.items())
        result = "no result" if reached is None else f"{reached:.4f} {UNITS[self.objective]}"
        self.bar.write(f"trial {trial.number}: {result}{f' ({reason})' if reason else ''}; {shown}")
        return True

    def _train(self, trial: optuna.Trial, config: Config, run_dir: Path) -> tuple[str | None, bool]:
        """Train a trial; return why it was ended, if it was, and whether a signal did it."""
        try:
            validate(config)
        except ValueError as error:
            return f"no such model: {error}", False
        config = replace_fields(
            config,
            {"run.dir": run_dir, "run.resume": True, "run.output_tokens": 0, "run.precision": self.precision},
        )
        self._share(config, run_dir)
        try:
            train(config, recipe=self.recipe, quiet=True, watch=lambda *seen: self._watch(trial, *seen))
        except NonFiniteLossError:
            return "the loss is not finite", False
        except torch.OutOfMemoryError:
            return "out of memory", False
        reason = trial.user_attrs.get("stopped")
        status = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))["status"]
        return reason, reason is None and status != "finished"

    def _watch(self, trial: optuna.Trial, step: int, evaluation: dict[str, float]) -> str | None:
        """Report an evaluation; a reason ends the trial.

        A trial that goes on from its checkpoint sees evaluations again; each decision is made from what was known at
        its step, as the first time.
        """
        value = evaluation[self.objective]
        if step not in self.study.trials[trial.number].intermediate_values:
            trial.report(value, step)
        self._show(f"trial {trial.number}, step {step}: {value:.4f}")
        if step >= self.config.run.steps:
            return None
        seen = self.study.trials[trial.number]
        seen.intermediate_values = {at: value for at, value in seen.intermediate_values.items() if at <= step}
        if not self.study.pruner.prune(self.study, seen):
            return None
        reason = f"pruned at step {step}"
        trial.set_user_attr("stopped", reason)
        return reason

    def _share(self, config: Config, run_dir: Path) -> None:
        """Give a trial the tokenizer and the tokens of the trials before it that have the same."""
        tree = as_json(config)
        made_from = [
            tree["corpus"],
            tree["tokenizer"],
            {key: value for key, value in tree["data"].items() if key not in _BATCH_FIELDS},
        ]
        key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]
        shared = self.folder / "prepared" / key
        shared.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer", "tokens"):
            if not (run_dir / name).exists():
                prepare(config, shared, self.bar.write)
                with atomic_folder(run_dir / name) as temporary:
                    shutil.copytree(shared / name, temporary, copy_function=_link, dirs_exist_ok=True)

    def keep(self) -> None:
        """Write the reports anew; delete the checkpoints of trials that are not the best."""
        best = self.best()
        write_report(self.study, self.folder, objective=self.objective, space=self.space, recipe=self.recipe)
        if best is not None:
            config = self.trial_config(best.params)
            run = {"run.dir": Path("runs") / f"{self.recipe}-best", "run.resume": False}
            write_json(
                self.folder / "best.json",
                {
                    "recipe": self.recipe,
                    "config": as_json(replace_fields(config, run)),
                    "objective": self.objective,
                    "value": best.value,
                    "trial": best.number,
                },
            )
        if not self.keep_checkpoints:
            for trial in self.finished():
                if best is None or trial.number != best.number:
                    shutil.rmtree(self.run_dir(trial.number) / "checkpoints", ignore_errors=True)
        self._show()

    def _show(self, now: str | None = None) -> None:
        best = self.best()
        shown = {} if best is None else {"best": f"{best.value:.4f} (trial {best.number})"}
        self.bar.set_postfix(shown | ({"now": now} if now else {}))

    @property
    def objective(self) -> str:
        """The number of an evaluation that counts."""
        return objective_of(self.config)


def best_evaluation(run_dir: Path, objective: str) -> float | None:
    """The lowest value of a run's evaluations, or None."""
    values = [line[objective] for line in read_lines(run_dir / "metrics.jsonl") if objective in line]
    return min((value for value in values if np.isfinite(value)), default=None)


def _link(source: str, target: str) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
