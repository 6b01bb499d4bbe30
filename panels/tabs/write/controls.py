"""The right column of the Write tab: presets, sliders, the next token's bars, seed, stop text, things to take along.

The logits of the next token go to the page once, and the browser redraws the bars at every move of a slider."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from panels import zerogpu
from panels.components.events import DIRECT, PRIVATE
from panels.components.fields import seed_field, slider
from panels.context import AppContext
from panels.generate import draw_seed
from panels.sampling import CONTROLS, DEFAULTS, PRESETS, settings_from, stop_text
from panels.tabs.write.code_export import curl_command, python_code
from panels.tabs.write.next_token import look
from panels.templates import render

if TYPE_CHECKING:
    from modeling.generation import SamplingSettings

PRESET_BUTTONS = """
<div class="presets" role="group" aria-label="Presets of the sampling settings">
{% for preset in presets %}
  <button type="button" aria-pressed="false" title="{{ preset.info }}"
    data-preset="{{ preset.values | tojson | forceescape }}">{{ preset.name }}</button>
{% endfor %}
</div>
"""
NUMBERS = """
<div data-ready="{{ ready }}" data-live="{{ live }}" data-model="{{ model }}" data-trouble="{{ trouble }}"
  data-turn="{{ turn }}" data-next="{{ found | tojson | forceescape }}"></div>
"""
BARS = """
<section class="next-token" aria-label="The next token" data-state="waiting">
  <p class="tail quiet"></p>
  <p class="kept">The bars come with the model.</p>
  <p class="legend quiet"><span><i class="before"></i>the model</span><span><i class="now"></i>the sampler</span></p>
  <ol class="tokens" aria-label="Most likely tokens; choose one to put it behind the text"></ol>
  <p class="rest quiet"></p>
  <p class="spoken" role="status"></p>
</section>
"""
SAID = """<p role="status">{{ message }}</p>"""
WITH_TEXT = "(text, ...rest) => [window.scratch.editor.text(), ...rest]"
WITH_ADDRESS = """(address, text, ...rest) =>
  [location.origin + location.pathname, window.scratch.editor.text(), ...rest]"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Controls:
    """What the controls are to the rest of the tab."""

    seed: Component
    stop: Component  # the stop text, as typed: `panels.sampling.stop_text` reads it
    sliders: list[Component]  # in the order of `DEFAULTS`
    numbers: gr.HTML  # carries what the bars are drawn from: `render_numbers`


def build(context: AppContext) -> Controls:
    """Lay out the controls of the text, and wire what they do by themselves."""
    sliders: dict[str, Component] = {}
    with gr.Accordion("Sampling", elem_id="fold-sampling", elem_classes="fold"):
        gr.HTML(render(PRESET_BUTTONS, presets=PRESETS), elem_id="presets")
        with gr.Row(elem_id="sliders"):
            for control in CONTROLS[1:]:
                sliders[control.name] = slider(control, min_width=130)
    numbers = gr.HTML(render_numbers(context), elem_id="next-numbers", visible="hidden")
    with gr.Accordion("Next token", elem_id="fold-next", elem_classes="fold"):
        gr.HTML(BARS, elem_id="bars")
        look_button = gr.Button("Look at the next token", elem_id="look", size="sm")
    with gr.Accordion("Length, seed, stop text", elem_id="fold-length", elem_classes="fold"):
        sliders["max_new_tokens"] = slider(CONTROLS[0], min_width=130)
        with gr.Row(elem_id="seed-row"):
            seed = seed_field(label="Seed", info="Same seed, same text", elem_id="seed", min_width=150, scale=3)
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
        # The page's script fills in what they send: its text and its address.
        text, address = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")
    ordered = [sliders[name] for name in DEFAULTS]

    def as_python(text: str, seed: Any, stop: Any, *values: Any) -> list[str]:
        def write(settings: SamplingSettings, stop: str) -> str:
            loaded, home = context.loader.wait(), context.home
            return python_code(loaded, text, settings, stop=stop, home=home, is_public=context.is_public)

        return exported(write, "Python that does the same.", seed, stop, values)

    def as_curl(address: str, text: str, seed: Any, stop: Any, *values: Any) -> list[str]:
        def write(settings: SamplingSettings, stop: str) -> str:
            return curl_command(address, text, settings, stop=stop)

        return exported(write, "Two calls of curl that do the same.", seed, stop, values)

    # A short look, asked for at every pause: it stands in no line.
    look_button.click(
        lambda text: look_ahead(context, text), text, numbers, concurrency_limit=1, js=WITH_TEXT, **PRIVATE
    )
    dice.click(lambda: str(draw_seed()), None, seed, **DIRECT)
    settings = [text, seed, stop, *ordered]
    python.click(as_python, settings, [taken, said], js=WITH_TEXT, **DIRECT)
    curl.click(as_curl, [address, *settings], [taken, said], js=WITH_ADDRESS, **DIRECT)
    link.click(None, None, taken, js="() => window.scratch.link.write()")
    return Controls(seed=seed, stop=stop, sliders=ordered, numbers=numbers)


def exported(
    write: Callable[[SamplingSettings, str], str], message: str, seed: Any, stop: Any, values: Sequence[Any]
) -> list[str]:
    """What `write` makes of the controls as they stand, and a word about it; what is wrong with a setting instead."""
    try:
        settings = settings_from(seed=seed, **dict(zip(DEFAULTS, values, strict=True)))
        return [write(settings, stop_text(stop)), render(SAID, message=message)]
    except ValueError as error:
        return ["", render(SAID, message=str(error))]


def look_ahead(context: AppContext, text: str) -> str:
    """The numbers of what may come after `text`, or what is in the way of them; none where the model is another one by
    now, so that the page asks again."""
    loader = context.loader
    try:
        found = dataclasses.asdict(loader.call(look, text))
    except ValueError as error:
        return render_numbers(context, trouble=str(error) if loader is context.loader else "")
    return render_numbers(context, found=found if loader is context.loader else None)


def render_numbers(context: AppContext, *, found: dict[str, Any] | None = None, trouble: str = "") -> str:
    """What the page's script reads; once the model is ready, it asks for more by itself, but not where a GPU is lent
    for each call."""
    return render(
        NUMBERS,
        ready="yes" if context.loader.ready else "no",
        live="no" if zerogpu.is_here() else "yes",
        model=context.source.name,
        trouble=trouble,
        turn=time.time_ns(),
        found=found,
    )
