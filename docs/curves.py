"""Draw docs/curves.png: the training loss of several runs, `python docs/curves.py NAME=RUN…`."""

import argparse
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from storage.run_folder import RunFolder

HERE = Path(__file__).parent


def main() -> None:
    """Read metrics.jsonl of each run, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="a name for the legend, and a run folder")
    parser.add_argument("--steps", type=int, default=200, help="steps to draw (default: %(default)s)")
    arguments = parser.parse_args()
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for named in arguments.runs:
        name, _, folder = named.partition("=")
        lines = [
            line
            for line in RunFolder(Path(folder)).metrics()
            if line["step"] <= arguments.steps and line["train_loss"] is not None
        ]
        axes.plot([line["step"] for line in lines], [line["train_loss"] for line in lines], label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with (HERE / "curves.png").open("wb") as stream:
        FigureCanvasAgg(figure).print_png(stream)


if __name__ == "__main__":
    main()
