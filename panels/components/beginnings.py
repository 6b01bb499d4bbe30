"""Texts to begin with, as chips; the script of their tab puts one into its field."""

from __future__ import annotations

from collections.abc import Sequence

from panels.templates import render

BEGINNINGS = """
{% if items %}
<div class="beginnings"><span class="label" id="{{ id }}-label">{{ label }}</span>
  <ul aria-labelledby="{{ id }}-label">
  {% for text, shown in items %}
  <li><button type="button" data-beginning="{{ text }}">{{ shown }}</button></li>
  {% endfor %}
  </ul></div>
{% endif %}
"""
SHOWN_BEGINNINGS = 12
"""Chips at most."""
EXCERPT = 58
"""Characters of a text that its chip shows: a long story with its question at the end has to fit."""


def excerpt(text: str, length: int = EXCERPT) -> str:
    """The beginning of a text's first line and the end of its last one, in whole words there; a text itself that is at
    most `length` characters on one line."""
    if len(text) <= length and "\n" not in text:
        return text
    first, last = text.split("\n")[0], text.split("\n")[-1]
    room = 2 * length // 3
    end = last if len(last) <= room else last[-room:].partition(" ")[2] or last[-room:]
    return f"{first[: length - len(end) - 3].rstrip()} … {end.lstrip()}"


def render_beginnings(items: Sequence[tuple[str, str]], *, label: str, id: str) -> str:
    """Chips of texts, each with what it shows; nothing where there are none.

    Args:
        items: text and what its chip shows.
        label: what stands before them.
        id: of the component, for the label's.
    """
    return render(BEGINNINGS, items=items[:SHOWN_BEGINNINGS], label=label, id=id)
