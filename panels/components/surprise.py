"""The shades of surprise, and their legend: one for every tab that colours tokens by their surprisal.

A token gets the classes `surprise` and `s0` to `s4`; `surprise.css` colours and underlines them without changing the
width of the text, and `surprise.js` finds the step in the browser.
"""

from __future__ import annotations

from itertools import pairwise

from panels.templates import render

STEPS = (1.0, 3.0, 5.0, 8.0)
"""Bits of surprisal from which a token is shaded darker."""

LEGEND = """
<p class="surprise-legend" data-steps="{{ steps | tojson | forceescape }}"><span>Surprise in bits</span>
{% for bounds in labels %}<span class="surprise s{{ loop.index0 }}">{{ bounds }}</span>{% endfor %}</p>
"""


def step_of(bits: float) -> int:
    """How darkly a token of that surprisal is shaded, 0 to 4."""
    return sum(bits >= step for step in STEPS)


def render_legend() -> str:
    """The legend: which shade stands for how many bits."""
    between = [f"{low:g}\u2013{high:g}" for low, high in pairwise(STEPS)]
    return render(LEGEND, steps=STEPS, labels=[f"under {STEPS[0]:g}", *between, f"{STEPS[-1]:g} and more"])
