"""The right column of the Write tab: presets, sliders, the next token's bars, seed, stop text, things to take along."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from panels.components import bars
from panels.components.code_export import curl_command, python_code
from panels.context import AppContext
from panels.sampling import CONTROLS, DEFAULTS, PRESETS, Control, settings_from, stop_text
from panels.templates import render

PRESET_BUTTONS = """
<div class="presets" role="group" aria-label="Presets of the sampling settings">
{% for preset in presets %}
  <button type="button" aria-pressed="false" title="{{ preset.info }}"
    data-preset="{{ preset.values | tojson | forceescape }}">{{ preset.name }}</button>
{% endfor %}
</div>
"""
SAID = """<p role="status">{{ message }}</p>"""
WITH_ADDRESS = "(address, ...rest) => [location.origin + location.pathname, ...rest]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Controls:
    """What the controls are to the rest of the tab."""

    seed: Component
    stop: Component  # the stop text, as typed: `panels.sampling.stop_text` reads it
    sliders: list[Component]  # in the order of `DEFAULTS`
    bars: gr.HTML  # selects a `token` that is to be put behind the text
    parts: list[Component]  # those that `arrived` brings up to date


def build(context: AppContext, document: Component) -> Controls:
    """Lay out the controls of the text in `document`, and wire what they do by themselves."""
    gr.HTML(render(PRESET_BUTTONS, presets=PRESETS), elem_id="presets")
    sliders: dict[str, Component] = {}
    with gr.Row(elem_id="sliders"):
        for control in CONTROLS[1:]:
            sliders[control.name] = slider(control)
    view, numbers = bars.build(context, document)
    sliders["max_new_tokens"] = slider(CONTROLS[0])
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
    with gr.Accordion("Take it along", open=False, elem_id="take"):
        with gr.Row(elem_id="take-buttons"):
            python = gr.Button("Python", elem_id="take-python", min_width=70)
            curl = gr.Button("curl", elem_id="take-curl", min_width=70)
            link = gr.Button("Link", elem_id="take-link", min_width=70)
        taken = gr.Textbox(
            label="The same text and settings elsewhere",
            placeholder="Python with transformers, curl to this page's API, or a link to this page",
            lines=4,
            max_lines=12,
            interactive=False,
            elem_id="taken",
        )
        with gr.Row(elem_id="take-copy"):
            gr.Button("Copy", elem_id="copy", min_width=90)
            said = gr.HTML(render(SAID, message=""), elem_id="take-said")
        address = gr.Textbox(visible="hidden")
    ordered = [sliders[name] for name in DEFAULTS]
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def as_python(text: str, seed: Any, stop: Any, *values: Any) -> list[str]:
        return taken_along(lambda: to_python(context, text, seed, stop, values), "Python that does the same.")

    def as_curl(address: str, text: str, seed: Any, stop: Any, *values: Any) -> list[str]:
        return taken_along(lambda: to_curl(address, text, seed, stop, values), "Two calls of curl that do the same.")

    dice.click(lambda: str(random.SystemRandom().randrange(10**6)), None, seed, **quiet)
    python.click(as_python, [document, seed, stop, *ordered], [taken, said], **quiet)
    curl.click(as_curl, [address, document, seed, stop, *ordered], [taken, said], js=WITH_ADDRESS, **quiet)
    link.click(None, None, taken, js="() => window.scratch.link()")
    return Controls(seed=seed, stop=stop, sliders=ordered, bars=view, parts=[numbers])


def slider(control: Control) -> gr.Slider:
    """The slider of one setting, with its number to type."""
    return gr.Slider(
        control.minimum,
        control.maximum,
        value=control.default,
        step=control.step,
        label=control.label,
        info=control.hint,
        elem_id=control.name,
        min_width=130,
    )


def arrived(context: AppContext) -> list[Any]:
    """Updates of `Controls.parts`, now that the model is known."""
    return bars.arrived(context)


def to_python(context: AppContext, text: str, seed: Any, stop: Any, values: Sequence[Any]) -> str:
    """Python code for the controls as they stand. Raises ValueError for a wrong setting."""
    settings = settings_from(seed=seed, **dict(zip(DEFAULTS, values, strict=True)))
    loaded = context.loader.wait()
    return python_code(loaded, text, settings, stop=stop_text(stop), home=context.home, is_public=context.is_public)


def to_curl(address: str, text: str, seed: Any, stop: Any, values: Sequence[Any]) -> str:
    """The same for curl."""
    settings = settings_from(seed=seed, **dict(zip(DEFAULTS, values, strict=True)))
    return curl_command(address, text, settings, stop=stop_text(stop))


def taken_along(write: Callable[[], str], message: str) -> list[str]:
    """What is taken along, and a word about it; what is wrong with a setting instead."""
    try:
        return [write(), render(SAID, message=message)]
    except ValueError as error:
        return ["", render(SAID, message=str(error))]
