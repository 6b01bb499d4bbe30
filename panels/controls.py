"""The sampling controls of the page: a slider for each setting, and the seed."""

from __future__ import annotations

import random

import gradio as gr
from gradio.components import Component

from panels.sampling import CONTROLS


def build() -> tuple[gr.Textbox, list[Component]]:
    """Lay out the controls; returns the seed and the sliders, in the order of `CONTROLS`."""
    with gr.Accordion("Sampling", open=True):
        sliders: list[Component] = [
            gr.Slider(
                control.minimum,
                control.maximum,
                value=control.default,
                step=control.step,
                label=control.label,
                info=control.info,
                elem_id=control.name,
            )
            for control in CONTROLS
        ]
        with gr.Row(elem_id="seed-row"):
            seed = gr.Textbox(
                label="Seed",
                info="Same seed, same text",
                placeholder="random",
                max_lines=1,
                html_attributes=gr.InputHTMLAttributes(autocomplete="off"),
                elem_id="seed",
                min_width=150,
                scale=3,
            )
            dice = gr.Button("Roll", elem_id="dice", min_width=84, scale=1)
    dice.click(
        lambda: str(random.SystemRandom().randrange(10**6)),
        None,
        seed,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    return seed, sliders
