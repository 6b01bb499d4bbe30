"""HTML of a comparison: both texts side by side, the place where they diverge, and the probabilities there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from panels.formats import percent
from panels.sampling import CONTROLS
from panels.tabs.compare.comparison import Branch, Comparison, Divergence, Probability, Text
from panels.templates import render

LETTERS = "AB"
PROMPT_SHOWN = 240
"""Characters of the beginning, its last ones, that stand in front of each text."""
ENDINGS = {
    None: "writing …",
    "length": "maximum length",
    "stop_token": "end of text",
    "stopped": "stopped",
    "deadline": "time is up",
}

COMPARISON = """
{% macro bar(share, kind) -%}
<i class="bar {{ kind }}" aria-hidden="true"><i style="width:{{ share }}%"></i></i>
{%- endmacro %}
<div class="comparison">
{% if sentence %}
<section class="divergence {{ 'found' if rows else '' }}" aria-label="Where they diverge">
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
<div class="texts">
{% for text in texts %}
  <article class="version {{ text.letter | lower }}" aria-label="Text {{ text.letter }}">
    <h2><b class="letter {{ text.letter | lower }}">{{ text.letter }}</b> {{ text.name }}
      {% if text.settings %}<span>{{ text.settings }}</span>{% endif %}</h2>
    <p class="text" dir="auto"><span class="prompt">{{ text.prompt }}</span><span class="same">{{ text.same }}</span>
    {%- if text.diverged %}<mark title="Here they diverge"><b aria-hidden="true">{{ text.letter }}</b>
    {%- if text.ended %}<em>end of text</em>{% else %}{{ text.token }}{% endif %}</mark>{% endif %}{{ text.rest }}
    {%- if text.writing %}<i class="caret" aria-hidden="true"></i>{% endif %}</p>
    <p class="facts"><span>{{ text.tokens }}</span>
      {% if text.bits %}<span title="How well this text was predicted by the model that wrote it">{{ text.bits }}</span>
      {% endif %}<span>{{ text.ending }}</span></p>
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
    divergence = comparison.divergence
    differing = [control for control in CONTROLS if len({title.settings.get(control.name) for title in titles}) > 1]
    texts = []
    for number, (text, title) in enumerate(zip(comparison.texts, titles, strict=True)):
        values = [f"{control.label.lower()} {title.settings[control.name]:g}" for control in differing]
        texts.append(
            {
                "letter": LETTERS[number],
                "name": title.name,
                "settings": ", ".join(values),
                "prompt": cut(comparison.prompt),
                "writing": text.ending is None,
                "tokens": f"{text.tokens} token{'' if text.tokens == 1 else 's'}",
                "bits": _bits(text),
                "ending": ENDINGS.get(text.ending, "done"),
                **_pieces(text, divergence.branches[number] if divergence else None),
            }
        )
    return render(
        COMPARISON,
        texts=texts,
        sentence=sentence(comparison),
        rows=_rows(divergence) if divergence else [],
        caption="In bold the probability of the token under each model, below it that after temperature, top-k, top-p "
        "and the other settings."
        if comparison.shares_tokens
        else "The two tokenizers cut the text differently, so that probabilities per token cannot be compared: each "
        "side's own are shown.",
    )


def sentence(comparison: Comparison) -> list[tuple[str, bool]]:
    """Where the texts diverge, as pieces of text, each with whether it is a token."""
    divergence, texts = comparison.divergence, comparison.texts
    if divergence is None:
        if not comparison.is_over:
            return [("The same so far.", False)] if texts[0].tokens else []
        if not any(text.tokens for text in texts):
            return [("Neither wrote anything.", False)]
        if texts[0].text == texts[1].text and texts[0].ending == texts[1].ending:
            return [(f"They never diverge: {texts[0].tokens} tokens, word for word the same.", False)]
        return [("As far as the shorter text goes, they are the same.", False)]
    found: list[tuple[str, bool]]
    if divergence.tokens is None:
        found = [(f"They diverge at character {divergence.characters + 1:,}: ", False)]
    else:
        found = [(f"They diverge at token {divergence.tokens + 1:,}: ", False)]
    for number, branch in enumerate(divergence.branches):
        own = branch.probabilities[number]
        share = f" ({percent(own.model)})" if own else ""
        if branch.label is None:
            found.append((f"{LETTERS[number]} ended the text{share}", False))
        else:
            found += [(f"{LETTERS[number]} wrote ", False), (branch.label, True), (share, False)]
        found.append((", " if number == 0 else ".", False))
    return found


def cut(prompt: str) -> str:
    """The end of a long prompt, from a word on."""
    if len(prompt) <= PROMPT_SHOWN:
        return prompt
    end = prompt[-PROMPT_SHOWN:]
    return "… " + (end.partition(" ")[2] or end)


def _pieces(text: Text, branch: Branch | None) -> dict[str, object]:
    """A text cut where it diverges: what is the same, the token, the rest."""
    if branch is None:
        return {"same": text.text, "token": "", "rest": "", "diverged": False, "ended": False}
    return {
        "same": text.text[: branch.start],
        "token": text.text[branch.start : branch.end],
        "rest": text.text[branch.end :],
        "diverged": True,
        "ended": branch.label is None,
    }


def _rows(divergence: Divergence) -> list[dict[str, object]]:
    found = [each.model for branch in divergence.branches for each in branch.probabilities if each]
    longest = max(found) or 1.0
    return [
        {
            "label": "end of text" if branch.label is None else branch.label,
            "letter": LETTERS[number],
            "cells": [_cell(each, LETTERS[side].lower(), longest) for side, each in enumerate(branch.probabilities)],
        }
        for number, branch in enumerate(divergence.branches)
    ]


def _cell(probability: Probability | None, kind: str, longest: float) -> dict[str, object] | None:
    """One probability; its bar is as long as its share of the largest one."""
    if probability is None:
        return None
    return {
        "share": round(100 * probability.model / longest, 2),
        "kind": kind,
        "percent": percent(probability.model),
        "drawn": f"sampled with {percent(probability.sampler)}" if probability.sampler else "cut by the sampler",
    }


def _bits(text: Text) -> str:
    if text.ending is None or text.bits_per_byte is None:
        return ""
    return f"{text.bits_per_byte:.2f} bits per byte"
