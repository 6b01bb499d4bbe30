"""HTML of the Write tab: the text with its shaded tokens."""

from __future__ import annotations

from panels.components.surprise import render_legend
from panels.templates import render

DOCUMENT = """
<div class="writing">
  <div class="heading">
    <label for="document-text">Your text</label>
    <p id="document-hint">The model continues from where the text ends.
      <span class="keys">Ctrl+Enter writes, Esc stops, Ctrl+Z undoes.</span></p>
  </div>
  <div class="paper">
    <textarea id="document-text" rows="5" spellcheck="false" dir="auto" aria-describedby="document-hint"
      placeholder="Write a beginning, pick one below, or leave the page empty and let the model begin …"></textarea>
    <div class="layer" role="group" dir="auto" aria-label="The tokens that the model wrote"></div>
  </div>
  <div class="shades">{{ legend | safe }}
    <p class="quiet">Choose a shaded token to see what else could have come, and to branch there.</p></div>
</div>
"""


def render_document() -> str:
    """The field of the text. `editor.js` puts the shaded tokens behind it."""
    return render(DOCUMENT, legend=render_legend())
