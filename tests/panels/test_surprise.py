"""The shades of surprise that the tabs share."""

import math

from hypothesis import given
from hypothesis import strategies as st

from panels.components.surprise import STEPS, render_legend, step_of


@given(st.floats(1e-30, 1.0))
def test_the_shade_grows_with_the_surprise(probability):
    bits = -math.log2(probability)
    assert step_of(bits) == sum(bits >= step for step in STEPS)
    assert 0 <= step_of(bits) <= len(STEPS)
    assert step_of(math.inf) == len(STEPS)


def test_the_legend_names_every_shade_once():
    legend = render_legend()
    assert [legend.count(f'class="surprise s{step}"') for step in range(len(STEPS) + 2)] == [1, 1, 1, 1, 1, 0]
    assert 'data-steps="[1.0, 3.0, 5.0, 8.0]"' in legend
