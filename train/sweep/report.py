"""What a sweep tells: the table on the console, sweep.md, trials.csv, sweep.png."""

import csv
import math
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from storage.files import atomic_file
from train.sweep.space import Space

UNITS = {"bits_per_byte": "bits per byte", "validation_loss": "nats per hidden token"}


def value_of_trial(trial: FrozenTrial) -> float | None:
    """The objective of a trial; of one that was ended before, the lowest that it had."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    return min((value for value in trial.intermediate_values.values() if math.isfinite(value)), default=None)


def rows(study: optuna.Study, *, objective: str) -> list[dict[str, Any]]:
    """A row for each trial that has begun, in order: its number, how it ended, objective, cost and parameters."""
    found = []
    for trial in study.get_trials(deepcopy=False):
        attributes = trial.user_attrs
        ended = {TrialState.COMPLETE: "complete", TrialState.RUNNING: "not finished"}
        found.append(
            {
                "trial": trial.number,
                "state": ended.get(trial.state) or attributes.get("stopped", "ended"),
                objective: value_of_trial(trial),
                "steps": attributes.get("step"),
                "tokens_seen": attributes.get("tokens_seen"),
                "seconds": attributes.get("seconds"),
                "parameters": attributes.get("parameters"),
                **trial.params,
            }
        )
    return found


def table(study: optuna.Study, *, objective: str) -> str:
    """A Markdown table of the trials: those that came to their end by their objective, then the others."""
    found = rows(study, objective=objective)
    found.sort(key=lambda row: (row["state"] != "complete", math.inf if row[objective] is None else row[objective]))
    names = list(dict.fromkeys(name for row in found for name in row))
    cells = [[name.split(".")[-1].replace("_", " ") for name in names]]
    cells += [[_cell(row.get(name)) for name in names] for row in found]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    lines = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)


def write_report(study: optuna.Study, folder: Path, *, objective: str, space: Space, recipe: str) -> None:
    """Write sweep.md and trials.csv anew."""
    found = rows(study, objective=objective)
    names = list(dict.fromkeys(name for row in found for name in row))
    with atomic_file(folder / "trials.csv") as stream:
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    complete = [row for row in found if row["state"] == "complete"]
    best = min(complete, key=lambda row: row[objective], default=None)
    said = (
        "No trial has come to its end."
        if best is None
        else (
            f"Best: trial {best['trial']} with {best[objective]:.4f} {UNITS[objective]}; `best.json` is its recipe "
            "(`python -m train PATH/best.json`)."
        )
    )
    searched = "\n".join(f"- `{name}`: {values}" for name, values in space.as_json().items())
    with atomic_file(folder / "sweep.md") as stream:
        stream.write(
            f"# Search over {recipe}\n\n"
            f"{len(found)} trials, {len(complete)} of them to their end. A trial counts with its lowest "
            f"{UNITS[objective]} on the validation text. {said}\n\n"
            f"Searched:\n\n{searched}\n\n"
            f"{table(study, objective=objective)}\n\n"
            "![Objective by trial and by each field](sweep.png)\n\n"
            "Steps are the same for all trials, text and computation are not: see the tokens and seconds. Every "
            "trial's run folder is in `trials/`.\n"
        )


def write_picture(study: optuna.Study, path: Path, *, objective: str, space: Space) -> None:
    """The objective by trial, and by each searched field; trials that were ended before are crosses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    trials = [
        (trial, value)
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and (value := value_of_trial(trial)) is not None
    ]
    panels = 1 + len(space.distributions)
    columns = min(3, panels)
    lines = math.ceil(panels / columns)
    figure = Figure(figsize=(4 * columns, 3.2 * lines), dpi=120, layout="constrained")
    grid = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in grid[panels:]:
        axes.remove()
    groups = (
        (TrialState.COMPLETE, "to the end", {"marker": "o", "color": "#1f4e9c"}),
        (TrialState.PRUNED, "ended before", {"marker": "x", "color": "#b3541e"}),
    )
    best = [value for trial, value in trials if trial.state == TrialState.COMPLETE]
    for axes, name in zip(grid, [None, *space.distributions], strict=False):
        for state, label, style in groups:
            group = [(trial, value) for trial, value in trials if trial.state == state]
            if group:
                places = [trial.number if name is None else _place(space, name, trial) for trial, _ in group]
                axes.scatter(places, [value for _, value in group], label=label, s=24, **style)
        if best:
            axes.axhline(min(best), color="#9db4d6", linewidth=1, linestyle="--")
        axes.set_xlabel("trial" if name is None else name)
        axes.grid(alpha=0.3)
        distribution = None if name is None else space.distributions[name]
        if isinstance(distribution, CategoricalDistribution):
            axes.set_xticks(range(len(distribution.choices)), [str(choice) for choice in distribution.choices])
            axes.set_xlim(-0.5, len(distribution.choices) - 0.5)
        elif isinstance(distribution, IntDistribution | FloatDistribution) and distribution.log:
            axes.set_xscale("log")
            axes.set_xlim(distribution.low / 1.2, distribution.high * 1.2)
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.get_major_locator().set_params(integer=not isinstance(distribution, FloatDistribution))
    for axes in grid[:panels:columns]:
        axes.set_ylabel(UNITS[objective])
    if trials:
        grid[0].legend(frameon=False, fontsize="small")
    with atomic_file(path, "wb") as stream:
        FigureCanvasAgg(figure).print_png(stream)


def _place(space: Space, name: str, trial: FrozenTrial) -> float:
    """Where a trial stands on the axis of a field: its value, or the place of its choice."""
    distribution = space.distributions[name]
    value = trial.params[name]
    return distribution.choices.index(value) if isinstance(distribution, CategoricalDistribution) else value


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 0.1 else f"{value:.4f}".rstrip("0").rstrip(".")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)
