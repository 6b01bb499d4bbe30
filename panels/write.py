"""The Write tab: one document that the model continues."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.events import api

from panels.markup import render
from panels.models import ModelLoader, ModelSource
from panels.sampling import CONTROLS, DEFAULTS, settings_from
from panels.writing import TIME_LIMIT, Draft, write

HISTORY = 100
"""How many steps back Undo can go."""
LOADING_LIMIT = 600.0
"""Seconds a request waits for a model that is still loading."""

STATUS = """
<div class="status {{ state }}" role="status" aria-live="{{ 'off' if state == 'busy' else 'polite' }}">
  <p><span><i class="dot" aria-hidden="true"></i>{{ message }}</span>
  {% if draft %}
    <span>{{ draft.new_tokens }} token{{ '' if draft.new_tokens == 1 else 's' }}</span>
    <span>{{ '%.0f' % draft.tokens_per_second }} tokens/s</span>
    <span class="quiet">seed {{ draft.seed }}</span>
  {% endif %}
  </p>
  {% if draft and draft.context_length %}
  <p class="quiet"><span class="meter" aria-hidden="true"><i style="width:{{ share }}%"></i></span>
    <span>{{ draft.context_used }} of {{ draft.context_length }} tokens of context</span>
    {% if draft.tokens_out_of_sight %}
    <span>the window has moved past the first {{ draft.tokens_out_of_sight }}</span>
    {% endif %}
  </p>
  {% endif %}
</div>
"""
ENDINGS = {
    None: "Writing …",
    "length": "Done. Continue as often as you like.",
    "stop_token": "The end, says the model.",
    "stopped": "Stopped.",
    "deadline": f"Time is up: one go may take {TIME_LIMIT:.0f} seconds. Continue goes on.",
}


def build(loader: ModelLoader) -> tuple[gr.HTML, gr.Dataset]:
    """Lay out the tab and wire it. Returns its status line and its beginnings, which the page fills when the model
    has arrived."""
    with gr.Tab("Write", id="write"), gr.Row(elem_id="desk"):
        with gr.Column(scale=3, min_width=300):
            document = gr.Textbox(
                label="Your text",
                info="The model goes on from where the text ends. Ctrl+Enter writes, Esc stops.",
                placeholder="Write a beginning, pick one below, or leave the page empty and let the model begin …",
                lines=12,
                max_lines=12,
                elem_id="document",
                autofocus=True,
                autoscroll=False,
                html_attributes=gr.InputHTMLAttributes(spellcheck=False),
            )
            with gr.Row(elem_id="actions"):
                generate = gr.Button("Generate", variant="primary", elem_id="generate", min_width=130)
                stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=80, interactive=False)
                undo = gr.Button("Undo", elem_id="undo", min_width=80, interactive=False)
                clear = gr.Button("Clear", elem_id="clear", min_width=80)
            status = gr.HTML(READY if loader.ready else LOADING, elem_id="status")
            chips = gr.Dataset(
                components=["textbox"],
                label="Beginnings from the training text",
                samples_per_page=12,
                elem_id="beginnings",
                **beginnings(loader.source),
            )
        with gr.Column(scale=1, min_width=310, elem_id="controls"), gr.Accordion("Sampling", open=True):
            sliders = [
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

    history = gr.State([])  # the texts that Undo goes back to, the newest last
    last = gr.State(None)  # the last draft, for the line that Stop leaves
    buttons = [generate, stop, undo]

    def busy(text: str, past: list[str]) -> list[Any]:
        line = render_status("busy", "Waiting for the model …" if loader.ready else "The model is still loading …")
        return [
            remember(past, text),
            None,
            line,
            gr.Button(interactive=False),
            gr.Button(interactive=True),
            gr.Button(interactive=True),
        ]

    def run(text: str, seed_value: Any, *values: Any) -> Iterator[list[Any]]:
        for draft in generate_drafts(loader, text, seed=seed_value, **dict(zip(DEFAULTS, values, strict=True))):
            yield [draft.text, draft, draft_status(draft)]

    def idle(past: list[str]) -> list[Any]:
        label = "Continue" if past else "Generate"
        return [gr.Button(label, interactive=True), gr.Button(interactive=False), gr.Button(interactive=bool(past))]

    def stopped(draft: Draft | None, past: list[str]) -> list[Any]:
        return [render_status("idle", "Stopped.", draft), *idle(past)]

    def back(past: list[str], text: str) -> list[Any]:
        past, text = (past[:-1], past[-1]) if past else (past, text)
        return [text, past, render_status("idle", "Back to the text before."), *idle(past)]

    def start_over(past: list[str], text: str, new_text: str = "") -> list[Any]:
        past = remember(past, text) if text else past
        return [
            new_text,
            past,
            render_status("idle", "A new page." if not new_text else "A beginning. Go on from here."),
            *idle([])[:2],
            gr.Button(interactive=bool(past)),
        ]

    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    begun = gr.on(
        [generate.click, document.submit], busy, [document, history], [history, last, status, *buttons], **quiet
    )
    running = begun.then(
        run,
        [document, seed, *sliders],
        [document, last, status],
        concurrency_id="model",
        concurrency_limit=1,
        show_progress="hidden",
        api_visibility="private",
    )
    running.then(idle, history, buttons, **quiet)
    stop.click(stopped, [last, history], [status, *buttons], cancels=running, **quiet)
    undo.click(back, [history, document], [document, history, status, *buttons], cancels=running, **quiet)
    clear.click(start_over, [history, document], [document, history, status, *buttons], cancels=running, **quiet)
    chips.click(
        lambda past, text, sample: start_over(past, text, sample[0]),
        [history, document, chips],
        [document, history, status, *buttons],
        cancels=running,
        **quiet,
    )
    dice.click(lambda: str(random.SystemRandom().randrange(10**6)), None, seed, **quiet)
    return status, chips


def beginnings(source: ModelSource) -> dict[str, Any]:
    """What the chips show: the model's prompts, and nothing where it has none."""
    return {"samples": [[prompt] for prompt in source.prompts], "visible": bool(source.prompts)}


def add_endpoint(loader: ModelLoader) -> None:
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
    ) -> Iterator[str]:
        """Continue a text. Yields the text so far, prompt included, until max_new_tokens tokens are written or the
        model ends the text. An empty prompt lets the model begin. The same seed gives the same text; without one,
        each call draws its own. temperature 0 always takes the likeliest token; top_k 0, top_p 1, min_p 0 and
        repetition_penalty 1 are neutral."""
        for draft in generate_drafts(
            loader,
            prompt,
            seed=seed,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
        ):
            yield draft.text

    api(generate, api_name="generate", concurrency_id="model", concurrency_limit=1)


def generate_drafts(loader: ModelLoader, prompt: Any, *, seed: Any = None, **values: Any) -> Iterator[Draft]:
    """`write` for the page and the API: waits for the model, and tells users what is wrong with their values."""
    try:
        if not isinstance(prompt, str):
            raise ValueError(f"prompt: expected text, got {type(prompt).__name__}.")
        settings = settings_from(seed=seed, **values)
        yield from write(loader.wait(LOADING_LIMIT), prompt, settings)
    except (ValueError, TimeoutError) as error:
        raise gr.Error(
            str(error) or "The model is still loading. Try again in a minute.", print_exception=False
        ) from error


def remember(past: list[str], text: str) -> list[str]:
    """`past` with `text` as its newest entry, the oldest dropped when there are too many."""
    return [*past, text][-HISTORY:]


def draft_status(draft: Draft) -> str:
    """The status line of a text that is being written or done."""
    return render_status("idle" if draft.ending else "busy", ENDINGS[draft.ending], draft)


def render_status(state: str, message: str, draft: Draft | None = None) -> str:
    """The status line; `state` is "busy" or "idle"."""
    share = 100 * draft.context_used // draft.context_length if draft and draft.context_length else 0
    return render(STATUS, state=state, message=message, draft=draft, share=share)


LOADING = render_status("busy", "Loading the model … you can write already.")
READY = render_status("idle", "Ready.")
