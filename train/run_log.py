"""What a run tells: the bar, train.log, metrics.jsonl, samples.jsonl, loss.png, run.json."""

import json
import math
import time
from collections.abc import Callable
from functools import partial
from operator import mul
from pathlib import Path
from typing import Any

from tqdm import tqdm

from storage.files import atomic_file

PICTURE_PAUSE = 5.0  # seconds from one drawing of loss.png to the next while a run goes on: it may cost more than steps


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_file(path) as stream:
        json.dump(value, stream, indent=1, ensure_ascii=False)
        stream.write("\n")


def writable(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate, which no file can hold."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file; an unfinished last line is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


class Report:
    """The files of a run folder that tell how it goes; a silent one (on another process than the first) writes none.

    Args:
        run_dir: the run folder.
        silent: nothing is written or shown.
        quiet: nothing is shown.
    """

    def __init__(self, run_dir: Path, *, silent: bool = False, quiet: bool = False):
        self.run_dir, self.silent, self.quiet = run_dir, silent, silent or quiet
        self.bar: tqdm | None = None
        self.track: Callable[[dict[str, Any]], None] | None = None  # told every line of metrics.jsonl
        self._pictured = time.monotonic()
        self._owed: Callable[[], None] | None = None  # draws the picture that was put off

    def start_bar(self, *, step: int, steps: int) -> None:
        """Show the progress bar: rate, time left, and what `show` sets."""
        self.bar = tqdm(initial=step, total=steps, unit="step", dynamic_ncols=True, disable=self.quiet, smoothing=0.1)

    def show(self, **values: str) -> None:
        """One step done; values beside the bar."""
        assert self.bar is not None
        self.bar.set_postfix(values, refresh=False)
        self.bar.update()

    def plan(self, steps: int) -> None:
        """The run ends after another number of steps than the bar was begun with."""
        assert self.bar is not None
        self.bar.total = steps

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()

    def say(self, message: str) -> None:
        """A line for the reader, shown and kept in train.log."""
        if self.silent:
            return
        if not self.quiet:
            tqdm.write(message)
        with (self.run_dir / "train.log").open("a", encoding="utf-8") as stream:
            stream.write(message + "\n")

    def metrics(self, **values: float | None) -> None:
        """A line of metrics.jsonl."""
        self._append("metrics.jsonl", values)
        if self.track is not None:
            self.track(values)

    def sample(self, **values: Any) -> None:
        """A line of samples.jsonl."""
        self._append("samples.jsonl", values)

    def run(self, **values: Any) -> None:
        """run.json, anew; when the run has ended, the picture too."""
        if not self.silent:
            write_json(self.run_dir / "run.json", values)
        if values.get("status") != "running" and self._owed is not None:
            self._owed()

    def rewind(self, step: int) -> None:
        """Forget the lines after `step`: a resumed run writes them again."""
        if self.silent:
            return
        for name in ("metrics.jsonl", "samples.jsonl"):
            lines = [line for line in read_lines(self.run_dir / name) if line["step"] <= step]
            with atomic_file(self.run_dir / name) as stream:
                stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)

    def picture(
        self, *, floor: float | None, nats_to_bits_per_byte: float, label: str = "loss (nats per token)"
    ) -> None:
        """loss.png: training and validation loss, and the floor when it is known.

        It is drawn at once when the last one is older than `PICTURE_PAUSE`, else at the end of the run.

        Args:
            floor: entropy of the validation text, in nats per token.
            nats_to_bits_per_byte: what a loss in nats per token is multiplied by; 0: that makes no sense here.
            label: what the loss is.
        """
        if self.silent:
            return
        self._owed = partial(self._draw, floor=floor, nats_to_bits_per_byte=nats_to_bits_per_byte, label=label)
        if time.monotonic() - self._pictured >= PICTURE_PAUSE:
            self._owed()

    def _draw(self, **given: Any) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure = draw_losses(read_lines(self.run_dir / "metrics.jsonl"), **given)
        with atomic_file(self.run_dir / "loss.png", "wb") as stream:
            FigureCanvasAgg(figure).print_png(stream)
        self._pictured, self._owed = time.monotonic(), None

    def _append(self, name: str, values: dict[str, Any]) -> None:
        if self.silent:
            return
        line = json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"
        with (self.run_dir / name).open("a", encoding="utf-8") as stream:
            stream.write(line)


def draw_losses(lines: list[dict[str, Any]], *, floor: float | None, nats_to_bits_per_byte: float, label: str) -> Any:
    """The figure of loss.png, from the lines of metrics.jsonl; the other arguments are those of `Report.picture`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for key, name, style in (
        ("train_loss", "training", {"color": "#9db4d6", "linewidth": 1.2}),
        ("validation_loss", "validation", {"color": "#1f4e9c", "marker": "o", "markersize": 3}),
    ):
        points = [(line["tokens_seen"] / 1e6, line[key]) for line in lines if line.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=name, **style)
    if floor is not None:
        axes.axhline(floor, color="#b3541e", linestyle="--", linewidth=1.2, label="floor: the text's own entropy")
    values = [line[key] for line in lines for key in ("train_loss", "validation_loss") if line.get(key) is not None]
    logarithmic = floor is not None and bool(values) and max(values) > 2 * floor
    if logarithmic:
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
    axes.set_xlabel("tokens seen (millions)")
    axes.set_ylabel(label)
    if nats_to_bits_per_byte:
        there_and_back: Any = (partial(mul, nats_to_bits_per_byte), partial(mul, 1 / nats_to_bits_per_byte))
        side = axes.secondary_yaxis("right", functions=there_and_back)
        side.set_ylabel("bits per byte")
        if logarithmic:
            _plain_ticks(side.yaxis)
    axes.grid(alpha=0.3, which="both")
    if axes.lines:
        axes.legend(frameon=False)
    return figure


def _plain_ticks(axis: Any) -> None:
    """Numbers such as 0.4 instead of powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 4, 6)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def summary(evaluation: dict[str, float], floor_bits_per_byte: float | None) -> str:
    """One sentence on an evaluation, with the distance to the floor when it is known."""
    text = (
        f"validation loss {evaluation['validation_loss']:.4f} nats per token, "
        f"perplexity {evaluation['perplexity']:.2f}, {evaluation['bits_per_byte']:.4f} bits per byte"
    )
    if floor_bits_per_byte is None:
        return text
    above = evaluation["bits_per_byte"] / floor_bits_per_byte - 1
    return f"{text}; the floor is {floor_bits_per_byte:.4f}: {above:.1%} above it"


def perplexity(loss: float) -> float:
    """exp(loss), at most the largest float that JSON readers take."""
    return math.exp(min(loss, 700.0))
