"""The Chat tab: questions to a model that was tuned to answer, and its answers as they grow.

The page owns the chat (`chat.js`) and keeps it in the browser, as Write's page does with its text; what comes from here
is the next answer (`request.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import api

from panels.components.beginnings import render_beginnings
from panels.components.documents import render_documents
from panels.components.events import DIRECT, PRIVATE, field_of
from panels.components.fields import seed_field, slider
from panels.components.status import LOADING, READY
from panels.components.streams import stream_script, tell_when_over
from panels.context import AppContext
from panels.request_queue import LatestRequest
from panels.sampling import CONTROLS, DEFAULTS, number
from panels.tabs.chat.conversation import answer
from panels.tabs.chat.request import answer_lines
from panels.tabs.chat.view import examples, render_log, render_question

TITLE = "Chat"
EXAMPLES = "Questions from chats that the model was not trained on"


def build(context: AppContext) -> list[Component]:
    """Lay out the tab and wire it. Returns its status line and its examples, which `arrived` brings up to date when
    the model is there."""
    gr.HTML(render_documents(noun="chat", unnamed="Chat", has_new=False), elem_id="chats")
    gr.HTML(render_log(), elem_id="chat-log", apply_default_css=False)
    gr.HTML(render_question(), elem_id="chat-ask", apply_default_css=False)
    with gr.Row(elem_id="chat-actions"):
        # The page's script lets them be pressed when the chat of the browser is there.
        gr.Button("Send", variant="primary", elem_id="chat-send", min_width=130, interactive=False)
        stop = gr.Button("Stop", variant="stop", elem_id="chat-stop", min_width=70, interactive=False)
        gr.Button("Answer again", elem_id="chat-retry", min_width=110, interactive=False)
        gr.Button("New chat", elem_id="chat-new", min_width=90, interactive=False)
    status = gr.HTML(READY if context.loader.ready else LOADING, elem_id="chat-status")
    stream = gr.HTML(
        "", elem_id="chat-stream", html_template="", js_on_load=stream_script("chat", "chat"), visible="hidden"
    )
    samples = gr.HTML(chips(context), elem_id="chat-samples")
    # Open: a closed one has no fields, into which stored settings could go. `chat.js` folds it.
    with gr.Accordion("Settings", open=True, elem_id="chat-settings"):
        system = gr.Textbox(
            label="System message",
            info="Stands before the chat; empty: none",
            lines=1,
            max_lines=4,
            elem_id="chat-system",
        )
        with gr.Row():
            sliders = [slider(control, elem_id=f"chat-{control.name}", min_width=130) for control in CONTROLS]
        seed = seed_field(label="Seed", info="Same seed, same answer", elem_id="chat-seed", min_width=150)
    visitor = gr.State(LatestRequest())

    # Not a partial: Gradio hands over the event by the annotation of the parameter.
    def ask(
        event: gr.EventData, visitor: LatestRequest, system: Any, seed: Any, *values: Any
    ) -> Iterator[tuple[str, str]]:
        yield from respond(context, visitor, event, system, seed, *values)

    running = stream.select(
        ask,
        [visitor, system, seed, *sliders],
        [stream, status],
        concurrency_limit=None,
        trigger_mode="multiple",  # a newer request ends those before it
        **PRIVATE,
    )
    tell_when_over(running, "chat")
    stop.click(LatestRequest.stop, visitor, None, **DIRECT)
    return [status, samples]


def arrived(context: AppContext) -> list[Any]:
    """Updates of what `build` returned, now that the model is known."""
    return [READY, chips(context)]


def respond(
    context: AppContext, visitor: LatestRequest, event: Any, system: Any, seed: Any, *values: Any
) -> Iterator[tuple[str, str]]:
    """Answer a request of the page: the lines and the status line, as `answer_lines` yields them."""
    try:
        count = number("number", field_of(event, "number"), int)
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error
    yield from answer_lines(context, visitor, count, field_of(event, "messages"), system, seed, *values)


def chips(context: AppContext) -> str:
    """The examples."""
    return render_beginnings(examples(context.source), label=EXAMPLES, id="chat-samples")


def add_endpoint(context: AppContext) -> None:
    """Offer the API's `/chat`."""
    api(endpoint(context), api_name="chat", concurrency_limit=None)


def endpoint(context: AppContext) -> Callable[..., Iterator[str]]:
    """The function behind `/chat`."""

    def chat(
        messages: list[dict[str, str]],
        max_new_tokens: int = int(DEFAULTS["max_new_tokens"]),
        temperature: float = DEFAULTS["temperature"],
        top_k: int = int(DEFAULTS["top_k"]),
        top_p: float = DEFAULTS["top_p"],
        min_p: float = DEFAULTS["min_p"],
        repetition_penalty: float = DEFAULTS["repetition_penalty"],
        seed: int | None = None,
        typical_p: float = DEFAULTS["typical_p"],
    ) -> Iterator[str]:
        """Answer a chat: a list of messages with `role` (system, user or assistant) and `content`, the last of them the
        user's. Yields the answer so far. The same seed gives the same answer; without one, each call draws its own. For
        a model whose tokenizer has a chat template; the other settings are those of /generate."""
        settings = {
            "max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p,
            "min_p": min_p, "repetition_penalty": repetition_penalty, "typical_p": typical_p,
        }  # fmt: skip
        try:
            for draft in answer(context, messages, seed=seed, **settings):
                yield draft.text.strip()
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return chat
