"""The curves of a run, from the lines of metrics.jsonl to the drawing.

A plot is stretched to the page's width, so its drawing holds lines only (their width does not stretch); what is to be
read stands around it as text, at the same places in percent."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from panels.tabs.learn.monitor import number, whole
from panels.templates import render

WIDTH, HEIGHT = 1000.0, 400.0
"""Of a drawing, in its own units."""
MOST_POINTS = 300
"""Points that are drawn; of more, evaluations and evenly spread others are taken."""
LATE, LATE_LEAST = 0.1, 8
"""The share of the steps that the closer view of the loss leaves out, and the points it needs to be worth it."""
MARKERS = 40
"""Points of a curve up to which each gets a mark."""
SMALLEST, LARGEST = 1e-12, 1e12
"""What a number of a run can be, 0 apart; what is not is no number."""
COLUMNS = {
    "train_loss": 2, "validation_loss": 3, "bits_per_byte": 4, "learning_rate": 5, "tokens_per_second": 6,
}  # fmt: skip
"""The numbers of a `Point`, and where they stand in what the browser gets of it."""
CROWDED = 4.0
"""How many times the least value the greatest may be before a loss is drawn on a logarithmic axis."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One line of metrics.jsonl."""

    step: int
    tokens_seen: int | None = None
    train_loss: float | None = None  # nats per token, mean since the line before
    validation_loss: float | None = None  # nats per token (of a masked model: per hidden token)
    bits_per_byte: float | None = None  # of the validation text
    learning_rate: float | None = None
    tokens_per_second: float | None = None  # mean since the run began


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A scale between two values."""

    low: float
    high: float
    logarithmic: bool = False  # only where `low` is above 0

    def place(self, value: float) -> float:
        """Where a value lies: 0 at `low`, 1 at `high`."""
        low, high, at = (map(math.log, (self.low, self.high, value))) if self.logarithmic else (
            self.low, self.high, value,
        )  # fmt: skip
        return min(1.0, max(0.0, (at - low) / (high - low)))

    def ticks(self, count: int) -> list[float]:
        """About `count` round values."""
        if self.logarithmic and self.high / self.low > CROWDED:
            return _log_ticks(self.low, self.high, count)
        return _round_ticks(self.low, self.high, count)


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One line of a plot."""

    kind: str  # its look: "training", "validation", "floor" or "only"
    label: str
    name: str  # the number of a `Point`, or "floor"
    points: list[tuple[float, float]]  # steps and values


def read_points(lines: Iterable[dict[str, Any]]) -> list[Point]:
    """The lines of metrics.jsonl in the order of their steps; of several with the same step the last."""
    points = {
        line["step"]: Point(
            step=line["step"],
            tokens_seen=whole(line.get("tokens_seen")),
            **{name: _plausible(line.get(name)) for name in COLUMNS},
        )
        for line in lines
        if 0 <= line["step"] <= LARGEST
    }
    return [points[step] for step in sorted(points)]


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` of the points, spread evenly, the first, the last and evaluations before others."""
    evaluated = [index for index, point in enumerate(points) if point.validation_loss is not None]
    if len(points) <= most:
        return list(points)
    kept = {0, len(points) - 1, *_spread(evaluated, most // 2)}
    rest = [index for index in range(len(points)) if index not in kept]
    return [points[index] for index in sorted(kept | set(_spread(rest, most - len(kept))))]


def bits_per_byte_of_nats(points: Iterable[Point]) -> float | None:
    """What a loss in nats per token is multiplied by to have bits per byte, as the evaluations say; None: unknown."""
    for point in points:
        if point.validation_loss and point.bits_per_byte:
            return point.bits_per_byte / point.validation_loss
    return None


def render_curves(
    lines: Iterable[dict[str, Any]],
    *,
    run: str = "",
    floor_bits_per_byte: float | None = None,
    steps: int | None = None,
    broken: int = 0,
) -> str:
    """The plots of a run: loss, learning rate, tokens per second; empty text where there is nothing to draw yet.

    Args:
        lines: of metrics.jsonl.
        run: its name.
        floor_bits_per_byte: the entropy of the validation text, where it is known.
        steps: where the axis of the steps ends at least.
        broken: lines that could not be read.
    """
    lines = list(lines)
    everything = read_points(lines)
    if not everything:
        return ""
    points = thin(everything)
    masked = any("masked_perplexity" in line for line in lines)
    factor = bits_per_byte_of_nats(everything)
    floor = floor_bits_per_byte / factor if floor_bits_per_byte and factor else None
    x = Axis(low=0, high=max(1, points[-1].step, steps or 0))
    unit = f"nats per {'hidden ' if masked else ''}token"
    late = thin([point for point in everything if point.step >= LATE * everything[-1].step])
    plots = [
        _loss_plot(points, x, floor=floor, factor=factor, unit=unit),
        _single_plot(points, x, "learning_rate", "Learning rate", ""),
        _single_plot(points, x, "tokens_per_second", "Tokens per second", "mean since the beginning"),
    ]
    if len(late) >= LATE_LEAST and late[0].step < late[-1].step:
        x_late = Axis(low=late[0].step, high=x.high)
        plots.insert(1, _loss_plot(late, x_late, floor=floor, factor=factor, unit=unit) | {"name": "late"})
    return render(
        CURVES,
        run=run,
        plots=plots,
        has_late=len(plots) > 3,
        points=json.dumps([_row(point) for point in points]),
        masked=masked,
        left_out=len(everything) - len(points),
        broken=broken,
        last=len(points) - 1,
    )


def path_of(points: Iterable[tuple[float, float]], x: Axis, y: Axis) -> str:
    """The `d` of a path through points, inside WIDTH times HEIGHT."""
    places = [f"{WIDTH * x.place(step):.1f} {HEIGHT * (1 - y.place(value)):.1f}" for step, value in points]
    return f"M{' L'.join(places)}" if places else ""


def marks_of(points: Iterable[tuple[float, float]], x: Axis, y: Axis) -> str:
    """The `d` of a path with a dot at each point: strokes without a length, whose caps stretching leaves round."""
    places = ((WIDTH * x.place(step), HEIGHT * (1 - y.place(value))) for step, value in points)
    return "".join(f"M{left:.1f} {top:.1f}h0" for left, top in places)


def _loss_plot(points: list[Point], x: Axis, *, floor: float | None, factor: float | None, unit: str) -> dict[str, Any]:
    curves = [
        _curve(points, "train_loss", kind="training", label="training"),
        _curve(points, "validation_loss", kind="validation", label="validation"),
    ]
    if floor is not None:
        floor_points = [(x.low, floor), (x.high, floor)]
        curves.append(Curve(kind="floor", label="floor: no model can get below", name="floor", points=floor_points))
    values = [value for curve in curves for _, value in curve.points]
    low, high = min(values, default=0.0), max(values, default=1.0)
    logarithmic = low > 0 and high > CROWDED * low
    y = Axis(low=low / 1.08, high=high * 1.05, logarithmic=True) if logarithmic else _roomy(low, high)
    right = None
    if factor is not None:
        side = Axis(low=y.low * factor, high=y.high * factor, logarithmic=y.logarithmic)
        right = _labels(side, 5)
    return _plot("loss", "Loss", unit + (", logarithmic" if logarithmic else ""), curves, x, y, right=right)


def _single_plot(points: list[Point], x: Axis, name: str, title: str, unit: str) -> dict[str, Any]:
    curve = _curve(points, name, kind="only", label=title)
    y = Axis(low=0.0, high=max((value for _, value in curve.points), default=0.0) * 1.08 or 1.0)
    return _plot(name, title, unit, [curve], x, y)


def _plot(
    name: str, title: str, unit: str, curves: list[Curve], x: Axis, y: Axis, right: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """What the template needs of one plot."""
    curves = [curve for curve in curves if curve.points]
    return {
        "name": name,
        "title": title,
        "unit": unit,
        "axis": y,
        "x": x,
        "left": _labels(y, 5 if name == "loss" else 4),
        "right": right,
        "below": [
            {"text": _count(value), "place": round(100 * x.place(value), 2)}
            for value in x.ticks(5 if name == "loss" else 4)
        ],
        "curves": [
            {
                "kind": curve.kind,
                "label": curve.label,
                "path": path_of(curve.points, x, y),
                "marks": marks_of(curve.points, x, y) if _is_marked(curve) else "",
                "column": COLUMNS.get(curve.name),
            }
            for curve in curves
        ],
    }


def _labels(axis: Axis, count: int) -> list[dict[str, Any]]:
    """The ticks of a vertical axis: their text and their place in percent from the top."""
    ticks = axis.ticks(count)
    write = "{:g}".format if axis.logarithmic else _writer(ticks)
    return [{"text": write(value), "place": round(100 * (1 - axis.place(value)), 2)} for value in ticks]


def _row(point: Point) -> list[float | None]:
    """A point for the browser."""
    return [
        point.step,
        point.tokens_seen,
        *(None if (value := getattr(point, name)) is None else float(f"{value:.6g}") for name in COLUMNS),
    ]


def _plausible(value: object) -> float | None:
    """A number that can be drawn."""
    found = number(value)
    return found if found is not None and (found == 0 or SMALLEST <= found <= LARGEST) else None


def _curve(points: list[Point], name: str, *, kind: str, label: str) -> Curve:
    values = [(float(point.step), value) for point in points if (value := getattr(point, name)) is not None]
    return Curve(kind=kind, label=label, name=name, points=values)


def _is_marked(curve: Curve) -> bool:
    """Whether each point has a dot: evaluations, while they are few, and a point that has no line."""
    return len(curve.points) == 1 or (curve.kind == "validation" and len(curve.points) <= MARKERS)


def _roomy(low: float, high: float) -> Axis:
    """A linear axis with some room above and below."""
    room = 0.08 * (high - low) or abs(high) * 0.1 or 1.0
    return Axis(low=low - room, high=high + room)


def _round_ticks(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9)
    return [index * apart for index in range(first, last + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    """1, 1.5, 2 and so on times powers of ten; fewer of them where that is too many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= count + 3:
            break
    return ticks


def _writer(values: Sequence[float]) -> Callable[[float], str]:
    """Writes numbers of one axis with as many decimals as tell them apart."""
    if values and max(map(abs, values)) >= 1000:
        return _count
    decimals = max((len(f"{value:.6g}".partition(".")[2]) for value in values if value < 1e6), default=0)
    apart = len({f"{value:.{min(decimals, 5)}f}" for value in values}) == len(values)
    return (lambda value: f"{value:.{min(decimals, 5)}f}" if value else "0") if apart else (lambda value: f"{value:g}")


def _count(value: float) -> str:
    """A whole number, short: 1.5k."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{sign}"
    return f"{value:g}"


def _spread(indices: list[int], most: int) -> list[int]:
    """At most `most` of the indices, evenly."""
    if len(indices) <= most:
        return indices
    return [indices[round(at * (len(indices) - 1) / max(1, most - 1))] for at in range(most)]


CURVES = """
<div class="curves" data-run="{{ run }}" data-points="{{ points }}" data-masked="{{ 'yes' if masked else '' }}">
{% for plot in plots if plot.curves %}
  <figure class="plot {{ plot.name }}">
    <figcaption><b>{{ plot.title }}</b> <span class="quiet">{{ plot.unit }}</span></figcaption>
    {% if plot.name in ('loss', 'late') and has_late %}
    <label class="closer"><input type="checkbox"> without the first tenth</label>
    {% endif %}
    {% if plot.curves | length > 1 %}
    <ul class="legend">
    {% for curve in plot.curves %}
      <li><svg class="key" viewBox="0 0 34 10" aria-hidden="true"><path class="line {{ curve.kind }}" d="M1 5H33"/>
        {% if curve.kind == 'validation' %}<path class="marks {{ curve.kind }}" d="M17 5h0"/>{% endif %}
        </svg>{{ curve.label }}</li>
    {% endfor %}
    </ul>
    {% endif %}
    <div class="frame {{ 'sided' if plot.right else '' }}">
      <div class="field" tabindex="0" role="slider" aria-label="{{ plot.title }}, point by point"
          data-plot="{{ plot.name }}" aria-valuemin="0" aria-valuemax="{{ last }}" aria-valuenow="{{ last }}"
          data-from="{{ plot.x.low }}" data-to="{{ plot.x.high }}"
          data-low="{{ plot.axis.low }}" data-high="{{ plot.axis.high }}"
          data-log="{{ 'yes' if plot.axis.logarithmic else '' }}">
        <svg viewBox="0 0 1000 400" preserveAspectRatio="none" aria-hidden="true">
          {% for tick in plot.left %}
          <path class="grid" d="M0 {{ 4 * tick.place }}H1000"/>
          {% endfor %}
          {% for curve in plot.curves %}
          <path class="line {{ curve.kind }}" d="{{ curve.path }}"/>
          {% if curve.marks %}<path class="marks {{ curve.kind }}" d="{{ curve.marks }}"/>{% endif %}
          {% endfor %}
        </svg>
        <i class="cursor" hidden></i>
        {% for curve in plot.curves if curve.column %}
        <i class="spot {{ curve.kind }}" data-column="{{ curve.column }}" hidden></i>
        {% endfor %}
      </div>
      {% for tick in plot.left %}
      <span class="tick left" style="top:{{ tick.place }}%">{{ tick.text }}</span>
      {% endfor %}
      {% for tick in plot.right or () %}
      <span class="tick right" style="top:{{ tick.place }}%">{{ tick.text }}</span>
      {% endfor %}
      {% if plot.right %}<span class="side">bits per byte</span>{% endif %}
      <div class="below" aria-hidden="true">{% for tick in plot.below %}
        <span class="{{ 'end' if tick.place > 96 else '' }}" style="left:{{ tick.place }}%">{{ tick.text }}</span>
      {% endfor %}<em>step</em></div>
    </div>
    {% if plot.name in ('loss', 'late') %}<p class="readout"></p>{% endif %}
  </figure>
{% endfor %}
  <details class="numbers"><summary>The numbers as a table</summary><div class="table"></div></details>
  {% if left_out %}<p class="quiet">{{ left_out }} lines between these points are not drawn.</p>{% endif %}
  {% if broken %}<p class="quiet">{{ broken }} line{{ '' if broken == 1 else 's' }} of metrics.jsonl could not be read
    and {{ 'is' if broken == 1 else 'are' }} left out.</p>{% endif %}
</div>
"""
