"""The right column of the Write tab: presets, sliders, the next token's bars, seed, stop text, things to take along."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from panels import bars
from panels.lab import Lab
from panels.markup import render
from panels.sampling import CONTROLS, DEFAULTS, PRESETS

PRESET_BUTTONS = """
<div class="presets" role="group" aria-label="Presets of the sampling settings">
{% for preset in presets %}
  <button type="button" aria-pressed="false" title="{{ preset.info }}"
    data-preset="{{ preset.values | tojson | forceescape }}">{{ preset.name }}</button>
{% endfor %}
</div>
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Controls:
    """What the controls are to the rest of the tab."""

    seed: Component
    stop: Component  # the stop text, as typed: `panels.sampling.stop_text` reads it
    sliders: list[Component]  # in the order of `DEFAULTS`
    bars: gr.HTML  # selects a `token` that is to be put behind the text
    parts: list[Component]  # those that `arrived` brings up to date


def build(lab: Lab, document: Component) -> Controls:
    """Lay out the controls of the text in `document`, and wire what they do by themselves."""
    gr.HTML(render(PRESET_BUTTONS, presets=PRESETS), elem_id="presets")
    sliders: dict[str, Component] = {}
    with gr.Row(elem_id="sliders"):
        for control in CONTROLS:
            sliders[control.name] = gr.Slider(
                control.minimum,
                control.maximum,
                value=control.default,
                step=control.step,
                label=control.label,
                info=control.info,
                elem_id=control.name,
                min_width=140,
            )
    view, numbers = bars.build(lab, document)
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
    stop = gr.Textbox(
        label="Stop text",
        info="The writing ends where this would come; \\n is a new line",
        placeholder="none",
        max_lines=1,
        html_attributes=gr.InputHTMLAttributes(autocomplete="off", spellcheck=False),
        elem_id="stop-text",
    )
    dice.click(
        lambda: str(random.SystemRandom().randrange(10**6)),
        None,
        seed,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    return Controls(seed=seed, stop=stop, sliders=[sliders[name] for name in DEFAULTS], bars=view, parts=[numbers])


def arrived(lab: Lab) -> list[Any]:
    """Updates of `Controls.parts`, now that the model is known."""
    return bars.arrived(lab)
