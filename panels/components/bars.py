"""The next token's bars: its logits go to the page once, and the browser redraws them at every move of a slider."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import gradio as gr
from gradio.components import Component

from panels import zerogpu
from panels.components.next_token import look
from panels.context import AppContext
from panels.templates import render

DATA = """
<div data-ready="{{ ready }}" data-live="{{ live }}" data-trouble="{{ trouble }}"
  data-turn="{{ turn }}" data-next="{{ found | tojson | forceescape }}"></div>
"""
VIEW = """
<section class="next-token" aria-label="The next token" data-state="waiting">
  <header><h3>Next token</h3><p class="tail quiet"></p></header>
  <p class="kept">The bars come with the model.</p>
  <p class="legend quiet"><span><i class="before"></i>the model</span><span><i class="now"></i>the sampler</span></p>
  <ol class="tokens" aria-label="Likeliest tokens; choose one to put it behind the text"></ol>
  <p class="rest quiet"></p>
  <p class="spoken" role="status"></p>
</section>
"""
CHOOSE = """
element.addEventListener('click', (event) => {
  const bar = event.target.closest('button[data-token]');
  if (bar && bar.getAttribute('aria-disabled') !== 'true') trigger('select', {token: +bar.dataset.token});
});
"""


def build(context: AppContext, document: Component) -> tuple[gr.HTML, gr.HTML]:
    """Lay out the bars of the text in `document`. Returns them, who select a `token` to be put behind the text, and
    the component that carries their numbers, which `arrived` brings up to date."""
    numbers = gr.HTML(render_numbers(context), elem_id="next-numbers", visible="hidden")
    bars = gr.HTML(VIEW, elem_id="bars", js_on_load=CHOOSE)
    button = gr.Button("Look at the next token", elem_id="look", size="sm")
    button.click(
        lambda text: look_ahead(context, text),
        document,
        numbers,
        concurrency_limit=1,  # a short look, asked for at every pause: it stands in no line
        show_progress="hidden",
        api_visibility="private",
    )
    return bars, numbers


def arrived(context: AppContext) -> list[Any]:
    """The update of the numbers, now that the model is known: from here on the page asks for them."""
    return [render_numbers(context)]


def look_ahead(context: AppContext, text: str) -> str:
    """The numbers of what may come after `text`, or what is in the way of them."""
    try:
        return render_numbers(context, found=dataclasses.asdict(context.loader.call(look, text)))
    except ValueError as error:
        return render_numbers(context, trouble=str(error))


def render_numbers(context: AppContext, *, found: dict[str, Any] | None = None, trouble: str = "") -> str:
    """What the page's script reads. Where a GPU is lent for each call it asks for nothing by itself."""
    return render(
        DATA,
        ready="yes" if context.loader.ready else "no",
        live="no" if zerogpu.is_here() else "yes",
        trouble=trouble,
        turn=time.time_ns(),
        found=found,
    )
