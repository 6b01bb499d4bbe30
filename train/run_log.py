"""The run logger: the progress bar, train.log, metrics.jsonl, samples.jsonl, run.json and loss.png of a run."""

import time
from collections.abc import Callable
from functools import partial
from operator import mul
from typing import Any, Protocol

from tqdm import tqdm

from storage.files import atomic_file
from storage.run_folder import RunFolder


class LossScale(Protocol):
    """What the picture has to know of a loss."""

    loss_label: str
    """Label of the axis."""
    floor: float | None
    """Entropy of the validation text in nats per token, which no model can beat; None where it is unknown."""
    bits_per_byte: float
    """Factor from nats per token to bits per byte of the validation text; 0 for a loss that has none."""


class _Bar(tqdm):
    """A bar whose time left is given: what is to come takes time that its rate does not know of."""

    seconds_left: float | None = None

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the bar's format can show."""
        left = "?" if self.seconds_left is None else tqdm.format_interval(self.seconds_left)
        return {**super().format_dict, "left": left}


class RunLog:
    """Writes the records of a run folder, and shows what a reader of the console wants to know.

    Args:
        folder: the run folder.
        silent: write and show nothing, as every process but the main one does.
        quiet: show nothing.
        picture_pause: seconds from one drawing of loss.png to the next; it may cost more than many steps.
    """

    def __init__(
        self, folder: RunFolder, *, silent: bool = False, quiet: bool = False, picture_pause: float = 5.0
    ) -> None:
        self.folder, self.silent, self.quiet, self.picture_pause = folder, silent, silent or quiet, picture_pause
        self.bar: _Bar | None = None
        self.track: Callable[[dict[str, Any]], None] | None = None  # called with every line of metrics.jsonl
        self._drawn_at = time.monotonic()
        self._pending_picture: Callable[[], None] | None = None
        self._has_no_picture = False  # matplotlib cannot draw here

    def start_bar(self, *, step: int, steps: int) -> None:
        """Show the progress bar: rate, time left, and the values of `advance`."""
        self.bar = _Bar(
            initial=step, total=steps, unit="step", dynamic_ncols=True, disable=self.quiet, smoothing=0.1,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{left}, {rate_fmt}{postfix}]",
        )  # fmt: skip

    def advance(self, seconds_left: float | None, **values: str) -> None:
        """Move the bar by one step; show the time left, as far as it is known, and values beside it."""
        assert self.bar is not None
        self.bar.seconds_left = seconds_left
        self.bar.set_postfix(values, refresh=False)
        self.bar.update()

    def set_steps(self, steps: int) -> None:
        """Change the number of steps at which the bar ends."""
        assert self.bar is not None
        self.bar.total = steps

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()

    def info(self, message: str) -> None:
        """Print a line and append it to train.log."""
        if self.silent:
            return
        if not self.quiet:
            tqdm.write(message)
        self.folder.append_log(message)

    def metrics(self, **values: float | None) -> None:
        """Append a line to metrics.jsonl and send it to the tracker."""
        if not self.silent:
            self.folder.append_metrics(values)
        if self.track is not None:
            self.track(values)

    def sample(self, **values: Any) -> None:
        """Append a line to samples.jsonl."""
        if not self.silent:
            self.folder.append_sample(values)

    def state(self, **values: Any) -> None:
        """Write run.json; when the run has ended, draw a picture that is still pending."""
        if not self.silent:
            self.folder.write_state(values)
        if values["status"] != "running" and self._pending_picture is not None:
            self._pending_picture()

    def picture(self, loss: LossScale) -> None:
        """Draw loss.png, or put it off until the end of the run when the last drawing was less than a pause ago."""
        if self.silent:
            return
        self._pending_picture = partial(self._draw, loss)
        if time.monotonic() - self._drawn_at >= self.picture_pause:
            self._pending_picture()

    def _draw(self, loss: LossScale) -> None:
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
        except OSError as error:  # it wants a folder for its cache, and a run does not fail for a picture
            if not self._has_no_picture:
                self.info(f"no loss.png: matplotlib has no folder for its cache ({error}); set MPLCONFIGDIR to one")
            self._has_no_picture, self._pending_picture = True, None
            return
        figure = draw_losses(self.folder.metrics(), loss)
        with atomic_file(self.folder.picture, "wb") as stream:
            FigureCanvasAgg(figure).print_png(stream)
        self._drawn_at, self._pending_picture = time.monotonic(), None


def draw_losses(records: list[dict[str, Any]], loss: LossScale) -> Any:
    """The figure of loss.png: training and validation loss by tokens seen, from the lines of metrics.jsonl."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    losses: list[float] = []
    lines: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("train_loss", "training", {"color": "#9db4d6", "linewidth": 1.2}),
        ("train_eval_loss", "training, in evaluation mode", {"color": "#5f7fb3", "marker": ".", "linestyle": ":"}),
        ("validation_loss", "validation", {"color": "#1f4e9c", "marker": "o", "markersize": 3}),
    )
    for key, name, style in lines:
        points = [(record["tokens_seen"] / 1e6, record[key]) for record in records if record.get(key) is not None]
        losses += [loss for _, loss in points]
        if points:
            tokens, values = zip(*points, strict=True)
            axes.plot(tokens, values, label=name, **style)
    # A loss of several times the floor leaves no room to see the distance to it, unless the scale is logarithmic.
    logarithmic = loss.floor is not None and max(losses, default=0.0) > 2 * loss.floor
    if loss.floor is not None:
        axes.axhline(loss.floor, color="#b3541e", linestyle="--", linewidth=1.2, label="floor: the text's own entropy")
    if logarithmic:
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
    axes.set_xlabel("tokens seen (millions)")
    axes.set_ylabel(loss.loss_label)
    if loss.bits_per_byte:
        there_and_back: Any = (partial(mul, loss.bits_per_byte), partial(mul, 1 / loss.bits_per_byte))
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
