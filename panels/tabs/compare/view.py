"""A comparison for the eye: both texts side by side, the place where they part, and what each model thought there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from panels.sampling import CONTROLS
from panels.tabs.compare.comparison import Chance, Comparison, Fork, Page, Parting
from panels.templates import render

LETTERS = "AB"
PROMPT_SHOWN = 240
"""Characters of the beginning, its last ones, that stand in front of each text."""
ENDINGS = {
    None: "writing …",
    "length": "as long as asked for",
    "stop_token": "the end, says the model",
    "stopped": "stopped",
    "deadline": "time is up",
}

COMPARISON = """
{% macro bar(share, kind) -%}
<i class="bar {{ kind }}" aria-hidden="true"><i style="width:{{ share }}%"></i></i>
{%- endmacro %}
<div class="comparison">
{% if sentence %}
<section class="parting {{ 'found' if rows else '' }}" aria-label="Where they part">
  <p class="sentence">
    {%- for part, is_token in sentence %}
    {%- if is_token %}<code>{{ part }}</code>{% else %}{{ part }}{% endif %}
    {%- endfor %}</p>
  {% if rows %}
  <table>
    <caption>{{ caption }}</caption>
    <thead><tr><th scope="col">token</th>
    {% for letter in 'AB' %}
      <th scope="col"><span>model </span><b class="letter {{ letter | lower }}">{{ letter }}</b></th>
    {% endfor %}</tr></thead>
    <tbody>
    {% for row in rows %}
      <tr><th scope="row"><code>{{ row.label }}</code> <span>{{ row.letter }} wrote it</span></th>
      {% for cell in row.cells %}
        <td>{% if cell %}{{ bar(cell.share, cell.kind) }}<b>{{ cell.percent }}</b> <span>{{ cell.drawn }}</span>
          {%- else %}<span>not comparable</span>{% endif %}</td>
      {% endfor %}</tr>
    {% endfor %}
    </tbody>
  </table>
  {% endif %}
</section>
{% endif %}
<div class="pages">
{% for page in pages %}
  <article class="page {{ page.letter | lower }}" aria-label="Text {{ page.letter }}">
    <h3><b class="letter {{ page.letter | lower }}">{{ page.letter }}</b> {{ page.name }}
      {% if page.settings %}<span>{{ page.settings }}</span>{% endif %}</h3>
    <p class="text" dir="auto"><span class="prompt">{{ page.prompt }}</span><span class="same">{{ page.same }}</span>
    {%- if page.forked %}<mark title="Here they part"><b aria-hidden="true">{{ page.letter }}</b>
    {%- if page.ended %}<em>the end</em>{% else %}{{ page.token }}{% endif %}</mark>{% endif %}{{ page.rest }}
    {%- if page.writing %}<i class="pen" aria-hidden="true"></i>{% endif %}</p>
    <p class="facts"><span>{{ page.tokens }}</span>
      {% if page.bits %}<span title="How well this text was foreseen by the model that wrote it">{{ page.bits }}</span>
      {% endif %}<span>{{ page.ending }}</span></p>
  </article>
{% endfor %}
</div>
</div>
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Title:
    """What stands above one text."""

    name: str  # of its model
    settings: Mapping[str, float]  # of its sampler


def render_comparison(comparison: Comparison, titles: tuple[Title, Title]) -> str:
    """The comparison as HTML."""
    parting = comparison.parting
    differing = [control for control in CONTROLS if len({title.settings.get(control.name) for title in titles}) > 1]
    pages = []
    for number, (page, title) in enumerate(zip(comparison.pages, titles, strict=True)):
        values = [f"{control.label.lower()} {title.settings[control.name]:g}" for control in differing]
        pages.append(
            {
                "letter": LETTERS[number],
                "name": title.name,
                "settings": ", ".join(values),
                "prompt": cut(comparison.prompt),
                "writing": page.ending is None,
                "tokens": f"{page.tokens} token{'' if page.tokens == 1 else 's'}",
                "bits": _bits(page),
                "ending": ENDINGS.get(page.ending, "done"),
                **_pieces(page, parting.forks[number] if parting else None),
            }
        )
    return render(
        COMPARISON,
        pages=pages,
        sentence=sentence(comparison),
        rows=_rows(parting) if parting else [],
        caption="How likely each model held these tokens there, and what its sampler made of it."
        if comparison.shares_tokens
        else "The models split text in different ways, so their probabilities per token cannot be put side by side: "
        "here is each side's own.",
    )


def sentence(comparison: Comparison) -> list[tuple[str, bool]]:
    """Where the texts part, as pieces of text, each with whether it is a token."""
    parting, pages = comparison.parting, comparison.pages
    if parting is None:
        if not comparison.is_over:
            return [("The same so far.", False)] if pages[0].tokens else []
        if not any(page.tokens for page in pages):
            return [("Neither wrote anything.", False)]
        if pages[0].text == pages[1].text and pages[0].ending == pages[1].ending:
            return [(f"They never part: {pages[0].tokens} tokens, word for word the same.", False)]
        return [("As far as the shorter text goes, they are the same.", False)]
    found: list[tuple[str, bool]]
    if parting.tokens is None:
        found = [(f"They part at character {parting.characters + 1:,}: ", False)]
    else:
        found = [(f"They part at token {parting.tokens + 1:,}: ", False)]
    for number, fork in enumerate(parting.forks):
        own = fork.chances[number]
        share = f" ({percent(own.model)})" if own else ""
        if fork.label is None:
            found.append((f"{LETTERS[number]} ended the text{share}", False))
        else:
            found += [(f"{LETTERS[number]} wrote ", False), (fork.label, True), (share, False)]
        found.append((", " if number == 0 else ".", False))
    return found


def percent(probability: float) -> str:
    """A probability in two or three digits; what is not 0 never looks like it."""
    if 0 < probability < 0.0001:
        return "under 0.01\u00a0%"
    if 0.9995 <= probability < 1:
        return "over 99.9\u00a0%"
    value = 100 * probability
    return f"{value:.{0 if value in (0, 100) else 1 if value >= 1 else 2}f}\u00a0%"


def cut(prompt: str) -> str:
    """The end of a long prompt, from a word on."""
    if len(prompt) <= PROMPT_SHOWN:
        return prompt
    end = prompt[-PROMPT_SHOWN:]
    return "… " + (end.partition(" ")[2] or end)


def _pieces(page: Page, fork: Fork | None) -> dict[str, object]:
    """A text cut at its fork: what is the same, the token, the rest."""
    if fork is None:
        return {"same": page.text, "token": "", "rest": "", "forked": False, "ended": False}
    return {
        "same": page.text[: fork.start],
        "token": page.text[fork.start : fork.end],
        "rest": page.text[fork.end :],
        "forked": True,
        "ended": fork.label is None,
    }


def _rows(parting: Parting) -> list[dict[str, object]]:
    longest = max(chance.model for fork in parting.forks for chance in fork.chances if chance) or 1.0
    return [
        {
            "label": "the end" if fork.label is None else fork.label,
            "letter": LETTERS[number],
            "cells": [_cell(chance, LETTERS[side].lower(), longest) for side, chance in enumerate(fork.chances)],
        }
        for number, fork in enumerate(parting.forks)
    ]


def _cell(chance: Chance | None, kind: str, longest: float) -> dict[str, object] | None:
    """One probability; its bar is as long as its share of the largest one."""
    if chance is None:
        return None
    return {
        "share": round(100 * chance.model / longest, 2),
        "kind": kind,
        "percent": percent(chance.model),
        "drawn": f"sampler: {percent(chance.drawn)}" if chance.drawn else "sampler: cut",
    }


def _bits(page: Page) -> str:
    if page.ending is None or page.bits_per_byte is None:
        return ""
    return f"{page.bits_per_byte:.2f} bits per byte"
