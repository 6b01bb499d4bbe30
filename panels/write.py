"""The Write tab: one document that the model continues."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import gradio as gr
from gradio.components import Component
from gradio.events import api

from panels import controls, zero
from panels.lab import Lab
from panels.markup import render
from panels.models import LOADING_LIMIT, STILL_LOADING, ModelLoader, ModelSource
from panels.next_token import with_token
from panels.sampling import DEFAULTS, settings_from, stop_text
from panels.writing import PACE, TIME_LIMIT, Draft, write

if TYPE_CHECKING:
    from modeling.decoding import SamplingSettings

TITLE = "Write"
HISTORY = 50
"""How many steps back Undo can go."""
WAITING_PACE = 0.25
"""Seconds between two words on how long the line still is."""

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
    "stop_text": "Done: the stop text came.",
    "stopped": "Stopped.",
    "deadline": f"Time is up: one go may take {TIME_LIMIT:.0f} seconds. Continue goes on.",
}


def build(lab: Lab) -> list[Component]:
    """Lay out the tab and wire it. Returns its status line and its beginnings, which `arrived` brings up to date when
    the model is there."""
    with gr.Row(elem_id="desk"):
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
            status = gr.HTML(READY if lab.loader.ready else LOADING, elem_id="status")
            chips = gr.Dataset(
                components=["textbox"],
                label="Beginnings from the training text",
                samples_per_page=12,
                elem_id="beginnings",
                **beginnings(lab.source),
            )
        with gr.Column(scale=1, min_width=310, elem_id="controls"):
            sampling = controls.build(lab, document)

    desk = gr.State(Desk())
    buttons = [generate, stop, undo, clear]

    def run(desk: Desk, text: str, seed: Any, stop: Any, *values: Any) -> Iterator[list[Any]]:
        desk.stage = "writing"
        settings = dict(zip(DEFAULTS, values, strict=True))
        try:
            for draft in generate_drafts(
                lab, text, seed=seed, stop=stop_text(stop), should_stop=lambda: desk.stop, **settings
            ):
                desk.last = desk.last if draft.ahead else draft
                yield [draft.text, draft_status(draft)]
        except ValueError as error:
            desk.trouble = str(error)
            yield [gr.skip(), render_status("trouble", desk.trouble)]
        finally:
            desk.stage = "over"

    def choose(desk: Desk, text: str, event: gr.EventData) -> list[Any]:
        return put_down(lab, desk, text, event.token)

    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    begun = generate.click(lambda desk, text: begin(desk, text, lab), [desk, document], [status, *buttons], **quiet)
    running = begun.then(
        run,
        [desk, document, sampling.seed, sampling.stop, *sampling.sliders],
        [document, status],
        concurrency_limit=None,
        show_progress="hidden",
        api_visibility="private",
    )
    running.then(settle, desk, [status, *buttons], **quiet)
    running.failure(settle, desk, [status, *buttons], **quiet)
    stop.click(ask_to_stop, desk, [status, *buttons], **quiet)
    undo.click(go_back, desk, [document, status, *buttons], **quiet)
    clear.click(turn_page, [desk, document], [document, status, *buttons], **quiet)
    sampling.bars.select(choose, [desk, document], [document, status, *buttons], **quiet)
    chips.click(
        lambda desk, text, sample: turn_page(desk, text, sample[0]),
        [desk, document, chips],
        [document, status, *buttons],
        **quiet,
    )
    return [status, chips, *sampling.parts]


def arrived(lab: Lab) -> list[Any]:
    """Updates of what `build` returned, now that the model is known."""
    return [READY, gr.update(**beginnings(lab.source)), *controls.arrived(lab)]


@dataclass(kw_only=True, slots=True)
class Desk:
    """What the page remembers of one visitor, between and during the events."""

    past: list[str] = field(default_factory=list)  # the texts that Undo goes back to, the newest last
    last: Draft | None = None  # where the present writing stands, or how the one before it ended
    before: Draft | None = None  # `last` when the present writing began
    stage: Literal["idle", "waiting", "writing", "over"] = "idle"  # of the request: none, in line, at work, not settled
    stop: bool = False  # Stop was pressed
    trouble: str | None = None  # what was wrong with the last request

    def remember(self, text: str) -> None:
        """Let Undo come back to `text`."""
        self.past = [*self.past, text][-HISTORY:]


def begin(desk: Desk, text: str, lab: Lab) -> list[Any]:
    """Get in line to continue `text`: status and buttons."""
    desk.remember(text)
    desk.before, desk.last = desk.last, None
    desk.stage, desk.stop, desk.trouble = "waiting", False, None
    message = ENDINGS[None] if lab.loader.ready else "The model is still loading …"
    return [render_status("busy", message), *buttons_of(desk)]


def ask_to_stop(desk: Desk) -> list[Any]:
    """End the present writing: status and buttons.

    The writer looks before each token and then gives its last draft, so nothing comes late; one that waits in line
    leaves it. A request that ended unseen, on a broken connection, is settled."""
    desk.stop = True
    return settle(desk) if desk.stage == "over" else [gr.skip(), *buttons_of(desk)]


def settle(desk: Desk) -> list[Any]:
    """The writing is over, in whatever way: status and buttons."""
    status = gr.skip()
    if desk.stage != "idle" and desk.last is None:
        desk.past, desk.last = desk.past[:-1], desk.before
        status = (
            render_status("trouble", desk.trouble) if desk.trouble else render_status("idle", "Nothing was written.")
        )
    desk.stage = "idle"
    return [status, *buttons_of(desk)]


def go_back(desk: Desk) -> list[Any]:
    """Undo: document, status and buttons."""
    if desk.stage != "idle" or not desk.past:
        return [gr.skip(), gr.skip(), *buttons_of(desk)]
    text = desk.past.pop()
    if not desk.past:
        desk.last = None
    return [text, render_status("idle", "Back to the text before."), *buttons_of(desk)]


def turn_page(desk: Desk, text: str, beginning: str = "") -> list[Any]:
    """Put `beginning` in the place of `text`: document, status and buttons."""
    if desk.stage != "idle":
        return [gr.skip(), gr.skip(), *buttons_of(desk)]
    if text:
        desk.remember(text)
    desk.last = None
    message = "A beginning: Generate goes on from here." if beginning else "A new page."
    return [beginning, render_status("idle", message), *buttons_of(desk)]


def put_down(lab: Lab, desk: Desk, text: str, token_id: int) -> list[Any]:
    """Put a token behind `text` by hand: document, status and buttons."""
    if desk.stage != "idle":
        return [gr.skip(), gr.skip(), *buttons_of(desk)]
    try:
        longer = with_token(lab.loader.wait(), text, token_id)
    except ValueError as error:
        return [gr.skip(), render_status("trouble", str(error)), *buttons_of(desk)]
    desk.remember(text)
    return [longer, render_status("idle", "One token, by your own hand."), *buttons_of(desk)]


def buttons_of(desk: Desk) -> list[Any]:
    """Generate (Continue, where the text is already the model's), Stop, Undo and Clear."""
    free = desk.stage == "idle"
    return [
        gr.Button("Continue" if desk.last and free else "Generate", interactive=free),
        gr.Button(interactive=not free),
        gr.Button(interactive=free and bool(desk.past)),
        gr.Button(interactive=free),
    ]


def beginnings(source: ModelSource) -> dict[str, Any]:
    """What the chips show: the model's prompts, and nothing where it has none."""
    return {"samples": [[prompt] for prompt in source.prompts], "visible": bool(source.prompts)}


def add_endpoint(lab: Lab) -> None:
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
            if not isinstance(prompt, str):
                raise ValueError(f"prompt: expected text, got {type(prompt).__name__}.")
            if not isinstance(stop, str | None):
                raise ValueError(f"stop: expected text, got {type(stop).__name__}.")
            for draft in generate_drafts(
                lab,
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


def generate_drafts(
    lab: Lab,
    prompt: str,
    *,
    seed: Any,
    stop: str = "",
    should_stop: Callable[[], bool] = lambda: False,
    **values: Any,
) -> Iterator[Draft]:
    """`write` for the page and the API: takes the settings as they come, and waits for the model and for its turn.

    Until then drafts of the prompt alone come, which say how many are `ahead`. Raises ValueError for a wrong setting, a
    full line, and for a model that does not arrive."""
    settings = settings_from(seed=seed, **values)
    deadline = time.monotonic() + LOADING_LIMIT
    while not lab.loader.done.wait(PACE) and not should_stop():
        if time.monotonic() > deadline:
            raise ValueError(STILL_LOADING)
    with lab.line.enter() as place:
        while ahead := place.wait(WAITING_PACE):
            if should_stop():
                return
            yield Draft(text=prompt, ahead=ahead)
        if not should_stop():
            yield from _write(lab.loader, prompt, settings, stop, should_stop)


def _write(
    loader: ModelLoader, prompt: str, settings: SamplingSettings, stop: str, should_stop: Callable[[], bool]
) -> Iterator[Draft]:
    if not zero.is_here():
        yield from write(loader.wait(), prompt, settings, stop=stop, should_stop=should_stop)
        return
    with contextlib.closing(
        loader.write_on_gpu(prompt, settings, stop)
    ) as drafts:  # in a process that cannot ask should_stop
        for draft in drafts:
            if should_stop() and draft.ending is None:
                yield dataclasses.replace(draft, ending="stopped")
                return
            yield draft


def draft_status(draft: Draft) -> str:
    """The status line of a text that waits, is being written, or is done."""
    if draft.ahead:
        who = "1 person is" if draft.ahead == 1 else f"{draft.ahead} people are"
        return render_status("busy", f"Waiting: {who} before you.")
    return render_status("idle" if draft.ending else "busy", ENDINGS[draft.ending], draft)


def render_status(state: str, message: str, draft: Draft | None = None) -> str:
    """The status line; `state` is "idle", "busy" or "trouble"."""
    share = 100 * draft.context_used // draft.context_length if draft and draft.context_length else 0
    return render(STATUS, state=state, message=message, draft=draft, share=share)


LOADING = render_status("busy", "Loading the model … you can write already.")
READY = render_status("idle", "Ready.")
