"""The Tokens tab."""

from __future__ import annotations

from typing import Any

from gradio.components import Component

from panels.lab import Lab

TITLE = "Tokens"


def build(lab: Lab) -> list[Component]:
    """Lay out the tab and wire it; what it returns, `arrived` brings up to date."""
    return []


def arrived(lab: Lab) -> list[Any]:
    """Updates of what `build` returned, now that the model is known."""
    return []


def add_endpoint(lab: Lab) -> None:
    """No endpoint."""
