"""The Write tab: one text that the model continues.

The page owns the text, its tokens and its history (`editor.js`) and keeps them in the browser (`texts.js`); what comes
from here is the continuation (`request.py`), and what is known of the text (`next_token.py`, `memorization.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import api

from panels.components.beginnings import excerpt, render_beginnings
from panels.components.documents import render_documents
from panels.components.events import DIRECT, PRIVATE, field_of
from panels.components.status import LOADING, READY, render_status
from panels.components.streams import PART, stream_script, tell_when_over
from panels.context import AppContext
from panels.generate import check_text, generate_queued
from panels.sampling import DEFAULTS
from panels.tabs.write import controls
from panels.tabs.write.memorization import render_note, written_tokens
from panels.tabs.write.request import Request, answer
from panels.tabs.write.view import render_document

TITLE = "Write"
NOTED = "() => window.scratch.editor.noted()"
BEGINNINGS = "Beginnings from the training text"
LONGEST = 120
"""Characters of a beginning that its chip shows: those of a model that chats are whole stories."""


@dataclass(kw_only=True, slots=True)
class Visitor:
    """What the server remembers of one visitor."""

    request: Request | None = None  # the last one


def build(context: AppContext) -> list[Component]:
    """Lay out the tab and wire it. Returns its status line, its beginnings and the numbers of its bars, which `arrived`
    brings up to date when the model is there."""
    with gr.Row(elem_id="editor"):
        with gr.Column(scale=3, min_width=300):
            gr.HTML(render_documents(noun="text", unnamed="Untitled", files=(".json", ".txt")), elem_id="texts")
            gr.HTML(render_document(), elem_id="document", apply_default_css=False)
            chips = gr.HTML(beginnings(context), elem_id="beginnings")
            with gr.Row(elem_id="actions"):
                gr.Button("Generate", variant="primary", elem_id="generate", min_width=130)
                stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=70, interactive=False)
                gr.Button("Retry", elem_id="retry", min_width=70, interactive=False)
                gr.Button("Undo", elem_id="undo", min_width=70, interactive=False)
                gr.Button("Redo", elem_id="redo", min_width=70, interactive=False)
                gr.Button("Clear", elem_id="clear", min_width=70)
            status = gr.HTML(READY if context.loader.ready else LOADING, elem_id="status")
            stream = gr.HTML(
                "", elem_id="stream", html_template="", js_on_load=stream_script("stream", "editor"), visible="hidden"
            )
            note = gr.HTML("", elem_id="memorization", js_on_load=PART.format(name="note"))
        with gr.Column(scale=1, min_width=310, elem_id="controls"):
            sampling = controls.build(context)

    visitor = gr.State(Visitor())

    # Not a partial: Gradio hands over the event by the annotation of the parameter.
    def write(event: gr.EventData, visitor: Visitor, seed: Any, stop: Any, *values: Any) -> Iterator[tuple[str, str]]:
        yield from continue_text(context, visitor, event, seed, stop, *values)

    def remark(event: gr.EventData) -> str:
        return note_of(context, event)

    running = stream.select(
        write,
        [visitor, sampling.seed, sampling.stop, *sampling.sliders],
        [stream, status],
        concurrency_limit=None,
        trigger_mode="multiple",
        **PRIVATE,
    )
    tell_when_over(running, "editor")
    stop.click(ask_to_stop, visitor, None, **DIRECT)
    # Not `always_last`: what comes later would be asked with the tokens of what came first.
    note.select(
        remark, None, note, concurrency_id="memorization", concurrency_limit=1, trigger_mode="multiple", **PRIVATE
    ).then(None, None, None, js=NOTED, **PRIVATE)
    return [status, chips, sampling.numbers]


def arrived(context: AppContext) -> list[Any]:
    """Updates of what `build` returned, now that the model is known."""
    return [READY, beginnings(context), controls.render_numbers(context)]


def beginnings(context: AppContext) -> str:
    """The model's prompts, to begin with."""
    items = [(prompt, excerpt(prompt, LONGEST)) for prompt in context.source.prompts]
    return render_beginnings(items, label=BEGINNINGS, id="beginnings")


def continue_text(
    context: AppContext, visitor: Visitor, event: Any, seed: Any, stop: Any, *values: Any
) -> Iterator[tuple[str, str]]:
    """Answer a request of the page; one of the same visitor that is still running ends."""
    if visitor.request is not None:
        visitor.request.stop = True
    try:
        visitor.request = Request.of(event)
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error
    yield from answer(context, visitor.request, seed, stop, *values)


def ask_to_stop(visitor: Visitor) -> None:
    """End the present request: the generation looks before each token, and one that waits leaves the queue."""
    if visitor.request is not None:
        visitor.request.stop = True


def note_of(context: AppContext, event: Any) -> str:
    """What is said of the tokens that the model wrote; nothing where there is nothing to say."""
    try:
        return render_note(context, written_tokens(field_of(event, "tokens")))
    except ValueError as error:
        return render_status("trouble", str(error))


def add_endpoint(context: AppContext) -> None:
    """Offer the API's `/generate`."""

    def generate(
        prompt: str,
        max_new_tokens: int = int(DEFAULTS["max_new_tokens"]),
        temperature: float = DEFAULTS["temperature"],
        top_k: int = int(DEFAULTS["top_k"]),
        top_p: float = DEFAULTS["top_p"],
        min_p: float = DEFAULTS["min_p"],
        repetition_penalty: float = DEFAULTS["repetition_penalty"],
        seed: int | None = None,
        typical_p: float = DEFAULTS["typical_p"],
        stop: str = "",
    ) -> Iterator[str]:
        """Continue a text. Yields the text so far, prompt included, until max_new_tokens tokens are written or the
        model ends the text, or the text in `stop` comes, which is left out. An empty prompt lets the model begin. The
        same seed gives the same text; without one, each call draws its own. temperature 0 always takes the likeliest
        token; top_k 0, top_p 1, min_p 0, typical_p 1 and repetition_penalty 1 are neutral."""
        try:
            check_text(prompt, "prompt")
            check_text("" if stop is None else stop, "stop")
            for draft in generate_queued(
                context,
                prompt,
                seed=seed,
                stop=stop or "",
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                repetition_penalty=repetition_penalty,
                typical_p=typical_p,
            ):
                yield draft.text
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    api(generate, api_name="generate", concurrency_limit=None)
