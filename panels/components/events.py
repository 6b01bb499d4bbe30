"""The options of the page's own events, for `**`: they are no part of the API and show no progress of Gradio's.

Gradio's page updates the loading status of every component that was ever the output of an event at every message of
every stream, and for a tab or a column that of all that is in it (6.31: 2,000 copied values a message). So no event of
ours has a component to show progress on."""

from __future__ import annotations

from typing import Any

PRIVATE: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
"""In the queue."""
DIRECT: dict[str, Any] = PRIVATE | {"queue": False}
"""Past the queue: what answers at once."""


def field_of(event: Any, name: str) -> Any:
    """A field of what a script of the page sent with an event; None where it is missing, as no script leaves it."""
    try:
        return getattr(event, name, None)
    except TypeError:  # Gradio's event of a client that sent no fields at all
        return None
