"""The Inside tab: what the model thinks of a text, token by token, layer by layer and head by head."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import api

from panels.components.events import DIRECT, PRIVATE
from panels.components.model_switch import on_model
from panels.components.one_request import ask_to_stop, run_request
from panels.components.status import BROKEN, LOADING, READY, render_status
from panels.context import AppContext
from panels.request_queue import LatestRequest
from panels.sampling import DEFAULTS, number, settings_from
from panels.tabs.inside.analysis import TEXT_LIMIT, heads, lens, next_tokens, surprisal
from panels.tabs.inside.view import render_heads, render_lens, render_surprisal
from storage.text import replace_surrogates

TITLE = "Inside"
SURPRISE, LENS, ATTENTION = VIEWS = ("Surprise", "Logit lens", "Attention")
WRITTEN = "() => window.scratch.editor.text()"
MASKED = (
    "This model fills blanks and reads on both sides of them: there is no next token, and no surprise that adds up to "
    "a text's. Its attention is shown here; what it expects in a blank, in the tab Fill in."
)


def build(context: AppContext) -> list[Component]:
    """Lay out the tab and wire it. Returns its status line, its views and its examples, which `arrived` brings up to
    date when the model is there."""
    text = gr.Textbox(
        label="Text to look into",
        info=f"Any text, up to {TEXT_LIMIT:,} characters. Ctrl+Enter looks, Esc stops.",
        placeholder="Paste a text, or take the one you have written with the model …",
        lines=3,
        max_lines=10,
        elem_id="inside-text",
        html_attributes=gr.InputHTMLAttributes(spellcheck=False),
    )
    view = gr.Radio(**views(context), label="View", elem_id="inside-view")
    with gr.Row(elem_id="inside-actions"):
        look = gr.Button("Look inside", variant="primary", elem_id="look-inside", min_width=130)
        stop = gr.Button("Stop", variant="stop", elem_id="inside-stop", min_width=70, interactive=False)
        take = gr.Button(
            "Take the text of the Write tab", elem_id="take-written", min_width=130, visible=not context.source.masked
        )
    status = gr.HTML(idle_status(context) if context.loader.ready else LOADING, elem_id="inside-status")
    result = gr.HTML("", elem_id="inside-result")
    label = "Beginnings from the training text"
    samples = gr.Dataset(components=["textbox"], label=label, elem_id="inside-samples", **examples(context))
    visitor, shown = gr.State(LatestRequest()), [status, result, stop]

    run = partial(run_analysis, context)

    def switch_view(visitor: LatestRequest, text: str, view: str) -> Iterator[list[Any]]:
        if text:
            yield from run(visitor, text, view)
        else:
            visitor.begin()
            yield [idle_status(context), "", gr.Button(interactive=False)]

    events = [
        (look.click, run),
        (samples.click(lambda sample: sample[0], samples, text, **DIRECT).then, run),
        (take.click(None, None, text, js=WRITTEN).then, run),
    ]
    for event, answer in (*events, (view.input, switch_view)):
        analysed = event(
            answer,
            [visitor, text, view],
            shown,
            concurrency_limit=None,
            trigger_mode="multiple",  # a newer request ends those before it
            **PRIVATE,
        )
        analysed.failure(lambda: [BROKEN, "", gr.Button(interactive=False)], None, shown, **DIRECT)
    stop.click(ask_to_stop, visitor, shown, **DIRECT)
    on_model(lambda: "", None, result, opened=False)  # what another model has said goes
    return [status, view, samples, take]


def arrived(context: AppContext) -> list[Any]:
    """Updates of what `build` returned, now that the model is known, or another one."""
    # A view chosen meanwhile stays; attention, the one of a masked model, is one of all others too.
    chosen = gr.update(**views(context)) if context.source.masked else gr.update(choices=views(context)["choices"])
    take = gr.update(visible=not context.source.masked)
    return [idle_status(context), chosen, gr.update(**examples(context)), take]


def views(context: AppContext) -> dict[str, Any]:
    """The views that the model has."""
    choices = (ATTENTION,) if context.source.masked else VIEWS
    return {"choices": choices, "value": choices[0]}


def examples(context: AppContext) -> dict[str, Any]:
    """What the chips show: the model's prompts."""
    return {"samples": [[prompt] for prompt in context.source.prompts], "visible": bool(context.source.prompts)}


def idle_status(context: AppContext) -> str:
    """The status line before anything was analysed."""
    return render_status("idle", MASKED) if context.source.masked else READY


def run_analysis(context: AppContext, visitor: LatestRequest, text: str, view: str) -> Iterator[list[Any]]:
    """Status, result and Stop, while an analysis waits for its turn and when it ended; the status shows errors."""
    look = partial(analyse, context, text, view)
    yield from run_request(context, visitor, look, busy="Analysing …", idle=partial(idle_status, context))


def analyse(context: AppContext, text: str, view: str, should_stop: Callable[[], bool]) -> str:
    """The result for a text; ValueError for one that does not fit, StoppedError when `should_stop()`."""
    if view == LENS:
        return render_lens(context.loader.call(lens, text))
    if view == ATTENTION:
        return render_heads(context.loader.call(heads, text))
    return render_surprisal(context.loader.call(surprisal, text, should_stop=should_stop), context.source.bits_per_byte)


def add_endpoint(context: AppContext) -> None:
    """Offer the API's `/next_token` and `/surprise`."""
    for name, answer in endpoints(context).items():
        api(answer, api_name=name, concurrency_limit=None)


def endpoints(context: AppContext) -> dict[str, Callable[..., Any]]:
    """What answers the API, by name; what is wrong with a request is a `gr.Error`."""

    def next_token(
        prompt: str,
        top: int = 10,
        temperature: float = DEFAULTS["temperature"],
        top_k: int = int(DEFAULTS["top_k"]),
        top_p: float = DEFAULTS["top_p"],
        min_p: float = DEFAULTS["min_p"],
        repetition_penalty: float = DEFAULTS["repetition_penalty"],
        typical_p: float = DEFAULTS["typical_p"],
    ) -> list[dict[str, Any]]:
        """The likeliest tokens after a text, in that order: a list of objects with token_id, text (what the token adds
        to the prompt), probability (under the model) and sampled_probability (with which the settings, meant as in
        /generate, would draw it; 0 where they cut it).

        Args:
            prompt: the text so far; an empty one asks how a text begins. At most 20,000 characters.
            top: how many tokens to give, from 1 to 1,000.
            temperature: logits are divided by it; 0 always takes the likeliest token.
            top_k: keep the k likeliest tokens; 0 keeps all.
            top_p: keep the fewest likeliest tokens that hold this much probability; 1 keeps all.
            min_p: drop tokens with less than this share of the likeliest one's probability; 0 keeps all.
            repetition_penalty: above 1 makes tokens that were seen less likely; 1 is off.
            typical_p: keep the tokens whose surprise is nearest the expected one, to this share; 1 keeps all.
        """
        try:
            settings = settings_from(
                temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                repetition_penalty=repetition_penalty, typical_p=typical_p,
            )  # fmt: skip
            return context.call_queued(next_tokens, prompt, number("top", top, int), settings)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def surprise(text: str) -> dict[str, Any]:
        """How surprising a text is for the model: an object with tokens, bits (the sum), bytes and bits_per_byte. Each
        token has token_id, text, start and end (the characters of the text that it covers, as a whole or in part) and
        bits, -log2 of its probability given all before it. null stands for a first token that the model
        has no way to predict, which the sums leave out, and for infinitely many bits.

        Args:
            text: from 1 to 20,000 characters.
        """
        try:
            scored = context.call_queued(surprisal, text)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return {
            "tokens": [
                {
                    "token_id": piece.token_id,
                    "text": replace_surrogates(text[piece.start : piece.end]),
                    "start": piece.start,
                    "end": piece.end,
                    "bits": finite(found.bits),
                }
                for piece, found, _ in scored.tokens
            ],
            "bits": finite(scored.bits),
            "bytes": scored.bytes,
            "bits_per_byte": finite(scored.bits_per_byte),
        }

    return {"next_token": next_token, "surprise": surprise}


def finite(value: float | None) -> float | None:
    """JSON knows no infinity."""
    return value if value is not None and math.isfinite(value) else None
