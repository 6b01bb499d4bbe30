"""What the Inside tab shows of a text, as HTML: its surprisal, a logit lens, its attention.

`tab.js` makes it answer to the mouse and the keyboard, and draws the attention.
"""

from __future__ import annotations

import dataclasses
import math

from panels.components.surprise import render_legend, step_of
from panels.formats import percent
from panels.tabs.inside.analysis import Heads, Lens, ScoredText
from panels.templates import render

SURPRISAL = """
<section class="surprisal" aria-label="Surprise">
  <dl>
  {% for name, value in figures %}<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>{% endfor %}
  </dl>
  <div class="legend">
    {{ legend | safe }}
    <label><input type="checkbox" class="all-numbers"> Number on every token</label>
  </div>
  <p class="scale">The surprise of a token is −log₂ of the probability that the model gave it. 0 bits: the model was
    certain of it. 1 bit: probability 50 %, as in the toss of a coin. {{ "%.1f" | format(uniform) }} bits: all {{
    "{:,}".format(vocabulary) }} tokens equally likely.</p>
  <p class="detail" role="status">Point at a token, or go there with the Tab and arrow keys.</p>
  <div class="tokens roving" role="listbox" aria-label="Tokens with their surprise" dir="auto">
  {%- for token in tokens -%}
    <span class="token surprise s{{ token.step }}" role="option" aria-selected="false"
      tabindex="{{ 0 if loop.first else -1 }}"
     {%- if token.bits is not none %} data-bits="{{ "%.2f" | format(token.bits) }}"
      data-probability="{{ token.probability }}" data-rank="{{ "{:,}".format(token.rank) }}"
      data-expected="{{ token.expected }}" data-share="{{ token.expected_probability }}"
      aria-label="{{ token.label }}, {{ "%.2f" | format(token.bits) }} bits"
     {%- else %} aria-label="{{ token.label }}, not scored"{% endif %}>{{ token.label }}</span>
    {%- if token.ends_line %}<br>{% endif %}
  {%- endfor -%}
  </div>
</section>
"""
LENS = """
<section class="lens" aria-label="Logit lens">
  <p>The logit lens: what the model would predict as the next token if it stopped after a layer. Each column is a token
    of the text; read it upwards, from the embedding to the output. A <b class="correct">framed</b> prediction is the
    token that came next in the text.{% if left_out %} Only the last
    {{ tokens | length }} tokens are shown; the model has read the {{ left_out }} before them too, as far as its
    context reaches.{% endif %}</p>
  <div class="scroll">
  <table class="roving" role="grid" aria-label="Layer by position">
    <thead><tr><th scope="row">next token</th>
      {% for token in following %}<td>{{ "?" if token is none else token }}</td>{% endfor %}</tr></thead>
    <tbody>
    {% for layer in layers %}
      <tr><th scope="row">{{ layer.name }}</th>
      {% for cell in layer.cells %}<td role="gridcell" tabindex="{{ 0 if loop.last and layer.first else -1 }}"
        class="cell{{ " correct" if cell.is_correct }}" style="--share:{{ cell.share }}" data-layer="{{ layer.name }}"
        data-token="{{ tokens[loop.index0] }}" data-top="{{ cell.top }}"><span>{{ cell.label }}</span><small>{{
        cell.percent }}</small></td>{% endfor %}</tr>
    {% endfor %}
    </tbody>
    <tfoot><tr><th scope="row">token</th>
      {% for token in tokens %}<th scope="col">{{ token }}</th>{% endfor %}</tr></tfoot>
  </table>
  </div>
  <div class="detail" role="status"></div>
</section>
"""
HEADS = """
<section class="attention" aria-label="Attention" data-layers="{{ layers }}" data-heads="{{ heads }}"
    data-causal="{{ causal | int }}" data-weights="{{ weights }}">
  <p>Attention weights, head by head: how much each token (a row) takes from each token that it may attend to (a
    column). A row adds up to 100 %.
    {%- if left_out %} For this the model was given only the {{ tokens | length }} tokens below; {{ left_out }} more of
    the text are left out.{% endif %}</p>
  <div class="scroll heads roving" role="listbox" aria-label="Heads, a row for each layer">
  {% for layer in range(1, layers + 1) %}
    <div class="layer" role="group" aria-label="Layer {{ layer }}"><span>Layer {{ layer }}</span>
    {% for head in range(1, heads + 1) %}<span class="head" role="option" aria-selected="false" tabindex="-1"
      aria-label="Layer {{ layer }}, head {{ head }}" title="Head {{ head }}"><canvas></canvas></span>{% endfor %}
    </div>
  {% endfor %}
  </div>
  <div class="chosen">
    <figure>
      <div class="matrix"><span class="axes" aria-hidden="true">from ↓ to →</span><div class="keys"
        aria-hidden="true"></div><div class="queries" aria-hidden="true"></div>
        <div class="map"><canvas role="img"></canvas><i></i></div></div>
      <figcaption></figcaption>
    </figure>
    <div>
      <p class="choose">Choose a token, to see where it attends to:</p>
      <div class="tokens roving" role="listbox" aria-label="Token that attends" dir="auto">
      {%- for token_id, label in tokens -%}
        <span class="token" role="option" aria-selected="false" tabindex="-1" data-id="{{ token_id }}">{{
          label }}</span>
      {%- endfor -%}
      </div>
      <div class="detail" role="status"></div>
    </div>
  </div>
</section>
"""


def render_surprisal(text: ScoredText, held_out: float | None = None) -> str:
    """A text with its surprisal; `held_out` is the model's bits per byte on text that it was not trained on."""
    known = "" if held_out is None else f" (validation text: {held_out:.3f})"
    per_byte = "–" if text.bits_per_byte is None else f"{text.bits_per_byte:.3f}{known}"
    return render(
        SURPRISAL,
        figures=[
            ("Tokens", f"{len(text.tokens):,}"),
            ("Surprise", f"{text.bits:,.1f} bits"),
            ("Bytes", f"{text.bytes:,}"),
            ("Bits per byte", per_byte),
            ("Perplexity", "–" if text.perplexity is None else _short(text.perplexity)),
        ],
        legend=render_legend(),
        uniform=math.log2(text.vocabulary),
        vocabulary=text.vocabulary,
        tokens=[
            {
                "label": piece.label,
                "bits": found.bits,
                "step": step_of(found.bits or 0.0),
                "probability": percent(2.0 ** -(found.bits or 0.0)),
                "rank": found.rank,
                "expected": expected,
                "expected_probability": percent(found.likeliest.probability if found.likeliest else 0.0),
                "ends_line": piece.label.endswith("\u21b5"),
            }
            for piece, found, expected in text.tokens
        ],
    )


def render_lens(view: Lens) -> str:
    """The layers as a table, the output on top."""
    last = len(view.rows) - 1
    return render(
        LENS,
        tokens=view.tokens,
        following=view.following,
        left_out=view.left_out,
        layers=[
            {
                "name": "output" if index == last else "embedding" if index == 0 else f"layer {index}",
                "first": index == last,
                "cells": [
                    {
                        "label": cell.guesses[0][0],
                        "percent": percent(cell.guesses[0][1]),
                        "share": f"{cell.guesses[0][1]:.2f}",
                        "is_correct": cell.is_correct,
                        "top": "\n".join(f"{label}\t{percent(share)}\t{share:.3f}" for label, share in cell.guesses),
                    }
                    for cell in view.rows[index]
                ],
            }
            for index in range(last, -1, -1)
        ],
    )


def render_heads(view: Heads) -> str:
    """The heads, whose weights the browser draws."""
    return render(HEADS, **dataclasses.asdict(view))


def _short(number: float) -> str:
    """A number in three digits."""
    return f"{number:.3g}" if number < 100 or number >= 1e6 else f"{number:,.0f}"
