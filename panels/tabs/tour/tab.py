"""The Tour tab: one sentence of the visitor's on its way through the model, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.components import Component

from panels.components.events import DIRECT, PRIVATE, field_of
from panels.components.model_switch import on_model
from panels.components.one_request import ask_to_stop, run_request
from panels.components.status import BROKEN, LOADING, READY, render_status
from panels.context import AppContext
from panels.generate import draw_seed
from panels.models import ModelSource
from panels.request_queue import LatestRequest
from panels.sampling import settings_from
from panels.tabs.tour.tour import TEXT_LIMIT, Tour, take_tour
from panels.tabs.tour.view import render_tour

TITLE = "Tour"
WORDS = 12
"""Words of an example at most: a tour is for a sentence."""
SENTENCE = "The old lighthouse stood"
"""A text for models that bring no beginnings of their own."""
INTRO = """<p>What happens between a text and its next token? Six steps through this model, with its own numbers for a
sentence of yours.</p>"""
AGAIN = """
element.addEventListener('click', (event) => {
  const again = event.target.closest('button[data-again]')?.dataset.again;
  if (again) trigger('select', {again});
});
"""


@dataclass(kw_only=True, slots=True)
class TourState:
    """What the tab remembers of one visitor."""

    tour: Tour | None = None  # the one that is shown
    visitor: LatestRequest = field(default_factory=LatestRequest)


def build(context: AppContext) -> list[Component]:
    """Lay out the tab and wire it. Returns its status line and its examples, which `arrived` brings up to date when
    the model is there."""
    gr.HTML(INTRO, elem_id="tour-intro", padding=False)
    text = gr.Textbox(
        label="Your sentence",
        info=f"Up to {TEXT_LIMIT} characters. Ctrl+Enter starts; the arrow keys lead from step to step, Esc leaves.",
        placeholder="Write a sentence, or pick a beginning below …",
        lines=2,
        max_lines=4,
        elem_id="tour-text",
        html_attributes=gr.InputHTMLAttributes(spellcheck=False),
    )
    with gr.Row(elem_id="tour-actions"):
        go = gr.Button("Start the tour", variant="primary", elem_id="tour-start", min_width=130)
        stop = gr.Button("Stop", variant="stop", elem_id="tour-stop", min_width=70, interactive=False)
    status = gr.HTML(READY if context.loader.ready else LOADING, elem_id="tour-status")
    result = gr.HTML("", elem_id="tour-result", padding=False, js_on_load=AGAIN)
    samples = gr.Dataset(
        components=["textbox"],
        label="Sentences to try",
        elem_id="tour-samples",
        **examples(context.source),
    )
    state, shown = gr.State(TourState()), [text, status, result, stop]

    def run(state: TourState, text: str) -> Iterator[list[Any]]:
        yield from run_tour(context, state, text)

    def again(state: TourState, text: str, event: gr.EventData) -> Iterator[list[Any]]:
        appended = None
        if state.tour is not None:  # None: the server was restarted meanwhile
            appended = state.tour.draw.text if field_of(event, "again") == "append" else None
            text = appended or state.tour.text
        yield from run_tour(context, state, text, is_typed=not appended)

    picked = samples.click(lambda sample: sample[0], samples, text, **DIRECT)
    for event, answer in ((go.click, run), (picked.then, run), (result.select, again)):
        running = event(
            answer,
            [state, text],
            shown,
            concurrency_limit=None,
            trigger_mode="multiple",  # a newer request ends those before it
            **PRIVATE,
        )
        running.failure(broken, None, shown, **DIRECT)
    stop.click(lambda state: ask_to_stop(state.visitor), state, shown[1:], **DIRECT)
    on_model(lambda: "", None, result, opened=False)  # what another model has said goes
    return [status, samples]


def arrived(context: AppContext) -> list[Any]:
    """Updates of what `build` returned, now that the model is known."""
    return [READY, gr.update(**examples(context.source))]


def add_endpoint(context: AppContext) -> None:
    """No endpoint: /tokenize, /next_token and /generate give the same numbers."""


def broken() -> list[Any]:
    """The answer when something went wrong that is nobody's text's fault."""
    return [gr.skip(), BROKEN, "", gr.Button(interactive=False)]


def examples(source: ModelSource) -> dict[str, Any]:
    """What the chips show: the model's prompts without their last word, so that a word comes next; of long ones, as
    those of a chat are, the first WORDS words."""
    prompts = [text.split() for text in source.prompts]
    beginnings = [" ".join((words[:-1] if len(words) > 2 else words)[:WORDS]) for words in prompts]
    return {"samples": [[text] for text in dict.fromkeys(beginnings) if text] or [[SENTENCE]]}


def run_tour(
    context: AppContext, state: TourState, text: str, *, is_typed: bool = True, seed: int | None = None
) -> Iterator[list[Any]]:
    """Text, status, result and Stop, while a tour waits for its turn and when it is there; the status shows errors.

    An empty text takes the first example. `is_typed`: the field keeps what it has, which may be more than `text` by the
    time of the first answer. Each tour draws with the page's default settings, and a new seed where none is given."""
    is_typed = is_typed and text != ""
    text = text or examples(context.source)["samples"][0][0]
    document = gr.skip() if is_typed else text

    def take(should_stop: Callable[[], bool]) -> str:
        settings = settings_from(seed=draw_seed() if seed is None else seed)
        state.tour = context.loader.call(take_tour, text, settings, should_stop=should_stop)
        return render_tour(state.tour)

    def idle() -> str:
        return render_status("idle", "Ready. The arrow keys lead from step to step.")

    answers = run_request(context, state.visitor, take, busy="Computing …", idle=idle)
    for answer in answers:
        yield [document, *answer]
        document = gr.skip()  # what is typed while it computes stays
