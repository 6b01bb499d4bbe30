"""The status line of a tab."""

from __future__ import annotations

from typing import TYPE_CHECKING

from panels.templates import render

if TYPE_CHECKING:
    from panels.generate import Draft

STATUS = """
<div class="status {{ state }}" role="status" aria-live="{{ 'off' if state == 'busy' else 'polite' }}">
  <p><span><i class="dot" aria-hidden="true"></i>{{ message }}</span>
  {% if draft %}
    <span>{{ draft.new_tokens }} token{{ '' if draft.new_tokens == 1 else 's' }}</span>
    <span>{{ '%.0f' % draft.tokens_per_second }} tokens/s</span>
    <span class="quiet">seed {{ draft.seed }}</span>
  {% endif %}
  </p>
  {% if draft and draft.context_length %}
  <p class="quiet"><span class="meter" aria-hidden="true"><i style="width:{{ share }}%"></i></span>
    <span>{{ draft.context_used }} of {{ draft.context_length }} tokens of context</span>
    {% if draft.tokens_out_of_window %}
    <span>the window has moved past the first {{ draft.tokens_out_of_window }}</span>
    {% endif %}
  </p>
  {% endif %}
</div>
"""


def render_status(state: str, message: str, draft: Draft | None = None) -> str:
    """The status line, with the figures of a text that is being written.

    Args:
        state: "idle", "busy" or "trouble".
    """
    share = 100 * draft.context_used // draft.context_length if draft and draft.context_length else 0
    return render(STATUS, state=state, message=message, draft=draft, share=share)


LOADING = render_status("busy", "Loading the model … you can write already.")
READY = render_status("idle", "Ready.")
BROKEN = render_status("trouble", "That went wrong; the page's log says why.")
