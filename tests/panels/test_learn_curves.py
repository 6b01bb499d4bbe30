"""The curves: their numbers are the file's, their lines stay in the box."""

import html
import json
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panels.tabs.learn.curves import (
    HEIGHT,
    LARGEST,
    MOST_POINTS,
    WIDTH,
    Axis,
    Curve,
    Plot,
    Point,
    read_points,
    render_curves,
    thin,
)

LINES: list[dict[str, Any]] = [
    {"step": 10, "tokens_seen": 100, "train_loss": 5.25, "learning_rate": 0.001, "tokens_per_second": 11091},
    {"step": 20, "tokens_seen": 200, "train_loss": 3.5, "learning_rate": 0.002, "tokens_per_second": 11400,
     "train_eval_loss": 2.5, "validation_loss": 3.0, "perplexity": 20.1, "bits_per_byte": 0.9},
    {"step": 30, "tokens_seen": 300, "train_loss": None, "learning_rate": 7.83764e-06, "tokens_per_second": 9000,
     "model_flops_utilization": 0.31, "gradient_norm": 1.75},
]  # fmt: skip

numbers = st.floats(min_value=1e-6, max_value=1e6)
values = st.lists(st.tuples(st.integers(0, 10**6), numbers), min_size=1, max_size=40, unique_by=lambda pair: pair[0])


def attribute(page: str, name: str) -> list[str]:
    return [html.unescape(value) for value in re.findall(rf'{name}="([^"]*)"', page)]


def places(path: str) -> list[tuple[float, float]]:
    return [(float(left), float(top)) for left, top in re.findall(r"[ML]\s*([\d.e-]+) ([\d.e-]+)", path)]


def test_the_pages_numbers_are_those_of_the_file() -> None:
    page = render_curves(LINES, floor_bits_per_byte=0.6)
    assert json.loads(attribute(page, "data-points")[0]) == [
        [10, 5.25, None, None, None, 0.001, None, 11091, None, 100],
        [20, 3.5, 2.5, 3.0, 0.9, 0.002, None, 11400, None, 200],
        [30, None, None, None, None, 7.83764e-06, 1.75, 9000, 0.31, 300],
    ]


def test_the_floor_is_drawn_where_its_nats_per_token_are() -> None:
    page = render_curves(LINES, floor_bits_per_byte=0.6)
    y = Axis(low=float(attribute(page, "data-low")[0]), high=float(attribute(page, "data-high")[0]))
    floor = places(attribute(re.findall(r'<path class="line floor" d="M0\.0[^>]*>', page)[0], " d")[0])
    assert floor[0][0] == 0
    assert floor[-1][0] == WIDTH
    assert all(top == pytest.approx(HEIGHT * (1 - y.place(0.6 / 0.3)), abs=0.06) for _, top in floor)
    assert "floor" not in render_curves(LINES)


def test_the_right_axis_says_the_same_in_bits_per_byte() -> None:
    page = render_curves(LINES)
    y = Axis(low=float(attribute(page, "data-low")[0]), high=float(attribute(page, "data-high")[0]))
    ticks = re.findall(
        r'<span class="tick (left|right)" style="bottom:([\d.]+)%">([\d.]+)<', page.partition("Learning")[0]
    )
    assert {side for side, _, _ in ticks} == {"left", "right"}
    for side, bottom, text in ticks:
        nats = float(text) / (0.3 if side == "right" else 1)  # 0.9 bits per byte are 3 nats per token
        assert float(bottom) == pytest.approx(100 * y.place(nats), abs=0.02)


@settings(max_examples=60)
@given(values, st.booleans())
def test_lines_run_forward_and_stay_in_the_box(pairs: list[tuple[int, float]], logarithmic: bool) -> None:
    pairs.sort()
    low, high = min(value for _, value in pairs), max(value for _, value in pairs)
    x = Axis(low=0, high=pairs[-1][0] + 1)
    y = Axis(low=low * 0.9, high=high * 1.1, logarithmic=logarithmic)
    curve = Curve("only", "", [*pairs])
    plot = Plot(name="", title="", unit="", curves=[curve], x=x, y=y)
    drawn = places(plot.path(curve))
    assert len(drawn) == len(pairs)
    assert all(0 <= left <= WIDTH and 0 <= top <= HEIGHT for left, top in drawn)
    assert [left for left, _ in drawn] == sorted(left for left, _ in drawn)
    heights = sorted(zip((value for _, value in pairs), (-top for _, top in drawn), strict=True))
    assert [height for _, height in heights] == sorted(height for _, height in heights)
    assert places(plot.path(curve, dots=True).replace("h0", "")) == drawn


@settings(max_examples=60)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"step": st.integers(-5, 10**14)},
            optional=dict.fromkeys(
                ("train_loss", "validation_loss", "bits_per_byte", "learning_rate", "gradient_norm", "tokens_seen"),
                st.one_of(st.none(), st.floats(), st.integers(), st.text(max_size=3), st.booleans()),
            ),
        ),
        max_size=30,
    ),
    st.one_of(st.none(), st.floats(0, 10)),
)
def test_whatever_a_file_holds_is_drawn_inside_the_box(lines: list[dict[str, Any]], floor: float | None) -> None:
    page = render_curves(lines, floor_bits_per_byte=floor)
    assert bool(page) == any(0 <= line["step"] <= LARGEST for line in lines)
    for path in re.findall(r'<path class="line (?!floor" d="M1 5H33)[^"]*" d="(M[^"H]*)"', page):
        assert all(0 <= left <= WIDTH and 0 <= top <= HEIGHT for left, top in places(path))
    for place in re.findall(r"(?:bottom|left):([\d.e-]+)%", page):
        assert -0.01 <= float(place) <= 100.01


@settings(max_examples=60)
@given(numbers, st.floats(min_value=1.001, max_value=1e6), st.booleans(), st.integers(3, 6))
def test_ticks_are_round_few_and_inside(low: float, ratio: float, logarithmic: bool, count: int) -> None:
    axis = Axis(low=low, high=low * ratio, logarithmic=logarithmic)
    ticks = axis.ticks(count)
    assert len(ticks) <= 2 * count + 4
    assert ticks == sorted(set(ticks))
    slack = 1e-6 * low * ratio
    assert all(low - slack <= tick <= low * ratio + slack for tick in ticks)


def test_thinning_keeps_the_ends_and_the_evaluations() -> None:
    points = [Point(step=step, validation_loss=1.0 if step % 100 == 0 else None) for step in range(5000)]
    thinned = thin(points)
    assert len(thinned) <= MOST_POINTS
    assert (thinned[0], thinned[-1]) == (points[0], points[-1])
    assert [point.step for point in thinned] == sorted({point.step for point in thinned})
    assert {point.step for point in points if point.validation_loss} <= {point.step for point in thinned}
    assert "4700 records" in render_curves([{"step": step, "train_loss": 1.0} for step in range(5000)])
    assert thin(points[:5]) == points[:5]


def test_what_is_in_the_file_decides_what_is_drawn() -> None:
    assert 'data-plot="gradient_norm"' in render_curves(LINES)
    assert "training, without dropout" in render_curves(LINES)
    assert "without dropout" not in render_curves(LINES[:1])
    assert 'data-plot="gradient_norm"' not in render_curves(LINES[:2])
    page = render_curves([{"step": 1, "train_loss": 2.0, "validation_loss": 2.0, "masked_perplexity": 7.4}])
    assert "nats per hidden token" in page
    assert "tick right" not in page
    page = render_curves([{"step": 1, "train_loss": 1.0}], run='"><img src=x onerror=alert(1)>', broken=2)
    assert "<img" not in page
    assert "2 lines of metrics.jsonl could not be read" in page
    lines = [{"step": 2, "train_loss": 9.0}, {"step": 1, "train_loss": 5.0}, {"step": 2, "train_loss": math.inf}]
    assert [(point.step, point.train_loss) for point in read_points(lines)] == [(1, 5.0), (2, None)]
