"""Form fields that several tabs lay out."""

from __future__ import annotations

from typing import Any

import gradio as gr

from panels.sampling import Control


def slider(control: Control, **options: Any) -> gr.Slider:
    """The slider of one sampling setting, with its number to type; `options` of `gr.Slider` go before its own."""
    own: dict[str, Any] = {"label": control.label, "info": control.hint, "elem_id": control.name}
    return gr.Slider(control.minimum, control.maximum, value=control.default, step=control.step, **(own | options))


def seed_field(**options: Any) -> gr.Textbox:
    """The field of a seed; empty, it draws one. `options` of `gr.Textbox`: label, info, elem_id, sizes."""
    return gr.Textbox(
        placeholder="random", max_lines=1, html_attributes=gr.InputHTMLAttributes(autocomplete="off"), **options
    )
