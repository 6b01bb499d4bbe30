"""The curves of a run, from the records of metrics.jsonl to HTML.

A plot's SVG is stretched to the page's width, so it holds lines only, whose strokes do not stretch; texts stand around
it, placed in percent. Why no plotting library: docs/decisions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from panels.templates import render
from panels.training.monitor import integer, number

T = TypeVar("T")

WIDTH, HEIGHT = 1000.0, 400.0
"""Of a plot, in SVG units."""
MOST_POINTS = 300
"""Points that are drawn; of more, evaluations and evenly spread others are taken."""
LATE, LATE_POINTS = 0.1, 8
"""The share of the steps that the closer view of the loss leaves out, and the fewest points for which there is one."""
EVALUATIONS, MOST_DOTS = ("evaluation", "validation"), 40
"""The curves whose points are evaluations, and up to how many of these each has a dot."""
SMALLEST, LARGEST = 1e-12, 1e12
"""Magnitudes that are drawn; others than these and 0 are treated as missing."""
LOG_RATIO = 4.0
"""Ratio of the largest value to the smallest from which on an axis is logarithmic."""


class Point(NamedTuple):
    """One record of metrics.jsonl. The browser gets the numbers in this order (COLUMNS in tab.js)."""

    step: int
    train_loss: float | None = None  # nats per token, mean since the record before, with dropout
    train_eval_loss: float | None = None  # of the same training windows each time, in evaluation mode; old runs: none
    validation_loss: float | None = None  # nats per token (of a masked model: per hidden token)
    bits_per_byte: float | None = None  # of the validation text
    learning_rate: float | None = None
    gradient_norm: float | None = None  # before clipping
    tokens_per_second: float | None = None  # mean since the run began
    model_flops_utilization: float | None = None  # 0 to 1
    tokens_seen: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A scale between two values."""

    low: float
    high: float
    logarithmic: bool = False  # only where `low` is above 0

    @classmethod
    def around(cls, values: Sequence[float], *, may_be_log: bool = True, from_zero: bool = False) -> Axis:
        """An axis with some room around the values; where they lie far apart, a logarithmic one if it `may_be_log`."""
        low, high = min(values, default=0.0), max(values, default=0.0)
        if may_be_log and low > 0 and high > LOG_RATIO * low:
            return cls(low=low / 1.08, high=high * 1.05, logarithmic=True)
        if from_zero:
            return cls(low=0.0, high=high * 1.08 if high > 0 else 1.0)
        room = 0.08 * (high - low) or abs(high) * 0.1 or 1.0
        return cls(low=low - room, high=high + room)

    def place(self, value: float) -> float:
        """Where a value lies: 0 at `low`, 1 at `high`."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return min(1.0, max(0.0, (at - low) / (high - low)))

    def ticks(self, count: int) -> list[float]:
        """About `count` round values; on a logarithmic axis 1, 1.5, 2 … times powers of ten, or fewer."""
        if not self.logarithmic or self.high / self.low <= LOG_RATIO:
            rough = (self.high - self.low) / count
            power = 10.0 ** math.floor(math.log10(rough))
            spacing = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
            first, last = math.ceil(self.low / spacing - 1e-9), math.floor(self.high / spacing + 1e-9)
            return [index * spacing for index in range(first, last + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,)):
            ticks = [factor * 10.0**decade for decade in decades for factor in factors]
            ticks = [tick for tick in ticks if self.low <= tick <= self.high]
            if len(ticks) <= count + 3:
                break
        return ticks

    def labels(self, count: int) -> list[tuple[str, float]]:
        """Ticks as texts, and their places in percent from `low`."""
        ticks = self.ticks(count)
        decimals = 0
        if len(ticks) > 1 and not self.logarithmic:
            decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
        return [(_tick_text(tick, decimals), round(100 * self.place(tick), 2)) for tick in ticks]


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot."""

    kind: str  # its look: "training", "evaluation", "validation", "floor" or "only"
    label: str
    points: list[tuple[float, float]]  # steps and values
    column: int | None = None  # of `Point`

    @classmethod
    def of(cls, points: list[Point], name: str, kind: str, label: str) -> Curve:
        """The curve of one number of the points that have it."""
        values = [(float(point.step), getattr(point, name)) for point in points]
        return cls(kind, label, [pair for pair in values if pair[1] is not None], Point._fields.index(name))

    @property
    def has_dots(self) -> bool:
        """Whether each point has a dot: evaluations, while they are few, and a point without a line."""
        return len(self.points) == 1 or (self.kind in EVALUATIONS and len(self.points) <= MOST_DOTS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """Curves over the steps, with what the template needs of them."""

    name: str
    title: str
    unit: str
    curves: list[Curve]
    x: Axis
    y: Axis
    bits_per_nat: float | None = None  # where there is one, the axis on the right is in bits per byte

    @property
    def ticks(self) -> dict[str, list[tuple[str, float]]]:
        """The labels of each axis."""
        count, ratio = 5 if self.title == "Loss" else 4, self.bits_per_nat or 0.0
        bits = Axis(low=self.y.low * ratio, high=self.y.high * ratio, logarithmic=self.y.logarithmic)
        return {
            "left": self.y.labels(count), "right": bits.labels(count) if ratio else [], "below": self.x.labels(count)
        }  # fmt: skip

    def path(self, curve: Curve, *, dots: bool = False) -> str:
        """The `d` of an SVG path through a curve's points, inside WIDTH times HEIGHT; or of `dots` at them, which are
        strokes of no length, whose caps stay round when the plot is stretched."""
        places = [(WIDTH * self.x.place(step), HEIGHT * (1 - self.y.place(value))) for step, value in curve.points]
        if dots:
            return "".join(f"M{left:.1f} {top:.1f}h0" for left, top in places)
        return "M" + " L".join(f"{left:.1f} {top:.1f}" for left, top in places)


def read_points(records: Iterable[dict[str, Any]]) -> list[Point]:
    """The records of metrics.jsonl in the order of their steps; of several with the same step the last."""
    points = {
        record["step"]: Point(
            record["step"],
            *(_plausible(record.get(name)) for name in Point._fields[1:-1]),
            tokens_seen=integer(record.get("tokens_seen")),
        )
        for record in records
        if 0 <= record["step"] <= LARGEST
    }
    return [points[step] for step in sorted(points)]


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` of the points, spread evenly, the first, the last and evaluations before others."""
    if len(points) <= most:
        return list(points)
    evaluated = [index for index, point in enumerate(points) if point.validation_loss is not None]
    kept = {0, len(points) - 1, *spread(evaluated, most // 2)}
    others = [index for index in range(len(points)) if index not in kept]
    return [points[index] for index in sorted(kept | set(spread(others, most - len(kept))))]


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spread from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(at * (len(items) - 1) / max(1, most - 1))] for at in range(most)]


def render_curves(
    records: Iterable[dict[str, Any]],
    *,
    run: str = "",
    floor_bits_per_byte: float | None = None,
    steps: int | None = None,
    broken: int = 0,
) -> str:
    """The plots of a run: loss, learning rate, tokens per second, gradient norm; "" where there is nothing to draw yet.

    The loss has a line at `floor_bits_per_byte`; the axis of the steps ends at `steps` or later; `broken` lines of
    metrics.jsonl could not be read.
    """
    records = list(records)
    everything = read_points(records)
    if not everything:
        return ""
    points = thin(everything)
    x = Axis(low=0, high=max(1, points[-1].step, steps or 0))
    per_token = f"nats per {'hidden ' if any('masked_perplexity' in record for record in records) else ''}token"
    both = ((point.bits_per_byte, point.validation_loss) for point in everything)
    bits_per_nat = next((bits / nats for bits, nats in both if bits and nats), None)
    floor = floor_bits_per_byte / bits_per_nat if floor_bits_per_byte and bits_per_nat else None

    def loss_plot(name: str, points: list[Point], x: Axis) -> Plot:
        curves = [
            Curve.of(points, "train_loss", "training", "training"),
            Curve.of(points, "train_eval_loss", "evaluation", "training, without dropout"),
            Curve.of(points, "validation_loss", "validation", "validation"),
        ]
        if floor is not None:
            curves.append(
                Curve("floor", "floor: lowest possible loss (the text's entropy)", [(x.low, floor), (x.high, floor)])
            )
        curves = [curve for curve in curves if curve.points]
        y = Axis.around([value for curve in curves for _, value in curve.points])
        unit = f"{per_token}{', logarithmic' if y.logarithmic else ''}"
        return Plot(name=name, title="Loss", unit=unit, curves=curves, x=x, y=y, bits_per_nat=bits_per_nat)

    def single_plot(name: str, title: str, unit: str = "", *, may_be_log: bool = False) -> Plot:
        curve = Curve.of(points, name, "only", title)
        y = Axis.around([value for _, value in curve.points], may_be_log=may_be_log, from_zero=True)
        return Plot(name=name, title=title, unit=unit, curves=[curve] if curve.points else [], x=x, y=y)

    plots = [loss_plot("loss", points, x)]
    late = thin([point for point in everything if point.step >= LATE * everything[-1].step])
    if len(late) >= LATE_POINTS and late[0].step < late[-1].step:
        plots.append(loss_plot("zoomed", late, Axis(low=late[0].step, high=x.high)))
    has_zoom = len(plots) > 1
    plots += [
        single_plot("learning_rate", "Learning rate"),
        single_plot("tokens_per_second", "Tokens per second", "mean since the beginning"),
        single_plot("gradient_norm", "Gradient norm", "before clipping", may_be_log=True),
    ]
    rows = [[float(f"{value:.6g}") if isinstance(value, float) else value for value in point] for point in points]
    return render(
        CURVES,
        run=run,
        plots=[plot for plot in plots if plot.curves],
        evaluations=EVALUATIONS,
        has_zoom=has_zoom,
        points=json.dumps(rows),
        left_out=len(everything) - len(points),
        broken=broken,
    )


def _plausible(value: object) -> float | None:
    """A number that can be drawn."""
    found = number(value)
    return found if found is not None and (found == 0 or SMALLEST <= found <= LARGEST) else None


def _tick_text(value: float, decimals: int) -> str:
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{sign}"
    return f"{value:.{decimals}f}" if 0 < decimals < 6 and value else f"{value:g}"


CURVES = """
<div class="curves" data-run="{{ run }}" data-points="{{ points }}">
{% for plot in plots %}
  {% set ticks = plot.ticks %}
  <figure class="plot {{ plot.name }}">
    <figcaption><b>{{ plot.title }}</b> <span class="quiet">{{ plot.unit }}</span></figcaption>
    {% if plot.title == 'Loss' and has_zoom %}
    <label class="zoom-choice"><input type="checkbox"> hide the first tenth of the steps</label>
    {% endif %}
    {% if plot.curves | length > 1 %}
    <ul class="legend">
    {% for curve in plot.curves %}
      <li><svg class="key" viewBox="0 0 34 10" aria-hidden="true"><path class="line {{ curve.kind }}" d="M1 5H33"/>
        {% if curve.kind in evaluations %}<path class="dots {{ curve.kind }}" d="M17 5h0"/>{% endif %}
        </svg>{{ curve.label }}</li>
    {% endfor %}
    </ul>
    {% endif %}
    <div class="axes {{ 'two' if ticks.right else '' }}">
      <div class="plot-area" tabindex="0" role="slider" aria-label="{{ plot.title }}, point by point"
          data-plot="{{ plot.name }}" aria-valuemin="0" aria-valuemax="0" aria-valuenow="0"
          data-from="{{ plot.x.low }}" data-to="{{ plot.x.high }}" data-low="{{ plot.y.low }}"
          data-high="{{ plot.y.high }}" data-log="{{ 'yes' if plot.y.logarithmic else '' }}">
        <svg viewBox="0 0 1000 400" preserveAspectRatio="none" aria-hidden="true">
          {% for _, place in ticks.left %}<path class="grid" d="M0 {{ 400 - 4 * place }}H1000"/>{% endfor %}
          {% for curve in plot.curves %}
          <path class="line {{ curve.kind }}" d="{{ plot.path(curve) }}"/>
          {% if curve.has_dots %}<path class="dots {{ curve.kind }}" d="{{ plot.path(curve, dots=True) }}"/>{% endif %}
          {% endfor %}
        </svg>
        <i class="cursor" hidden></i>
        {% for curve in plot.curves if curve.column %}
        <i class="marker {{ curve.kind }}" data-column="{{ curve.column }}" hidden></i>
        {% endfor %}
      </div>
      {% for side in ('left', 'right') %}{% for text, place in ticks[side] %}
      <span class="tick {{ side }}" style="bottom:{{ place }}%">{{ text }}</span>
      {% endfor %}{% endfor %}
      {% if ticks.right %}<span class="right-unit">bits per byte</span>{% endif %}
      <div class="steps" aria-hidden="true">{% for text, place in ticks.below %}
        <span class="{{ 'end' if place > 96 else '' }}" style="left:{{ place }}%">{{ text }}</span>
      {% endfor %}<em>step</em></div>
    </div>
    {% if plot.title == 'Loss' %}<p class="readout"></p>{% endif %}
  </figure>
{% endfor %}
  <details class="numbers"><summary>The numbers as a table</summary>
    <div class="table" tabindex="0" role="region" aria-label="The numbers of the curves"></div></details>
  {% if left_out %}<p class="quiet">{{ left_out }} records between these points are not drawn.</p>{% endif %}
  {% if broken %}<p class="quiet">{{ broken }} line{{ '' if broken == 1 else 's' }} of metrics.jsonl could not be read
    and {{ 'is' if broken == 1 else 'are' }} left out.</p>{% endif %}
</div>
"""
