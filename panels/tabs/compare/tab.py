"""The Compare tab: two models, or one model with two settings, go on from one prompt with one seed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr
from gradio.components import Component

from panels import zerogpu
from panels.components.events import DIRECT, PRIVATE
from panels.components.fields import seed_field, slider
from panels.components.model_switch import on_model
from panels.components.status import BROKEN, LOADING, READY, render_status
from panels.components.training_strip import strip_of_page
from panels.context import AppContext
from panels.formats import model_facts
from panels.generate import DRAFT_INTERVAL, TIME_LIMIT
from panels.model_cache import OWN, ModelCache
from panels.models import LoadedModel
from panels.request_queue import RequestQueue, waiting_message
from panels.sampling import BALANCED, CAREFUL, CONTROLS, WILD, settings_from
from panels.tabs.compare.comparison import Comparison, Side, compare, compare_settings
from panels.tabs.compare.view import Title, render_comparison
from panels.templates import render

if TYPE_CHECKING:
    from modeling.generation import SamplingSettings

TITLE = "Compare"
LIMIT = 16
"""Comparisons let in at once. One is at work: more would hold more models in memory than the cache may hold."""
LENGTH, LONGEST = 120, 500
"""Tokens of each text where nothing else is asked for, and at most."""
SETTINGS = tuple(control for control in CONTROLS if control.name != "max_new_tokens")

INTRO = """<p>Two models, or two settings of one model, continue the same prompt with the same seed. Where do their
texts diverge, and how likely was each token for either of them?
{% if zerogpu %}On this hardware only the page's own model can write: compare two settings of it.{% endif %}</p>"""
NOTE = """<p class="note">{% for fact in facts %}<span>{{ fact }}</span>{% endfor %}</p>"""
TROUBLE = """<p class="note trouble" role="alert"><b>Not this model:</b> {{ message }}</p>"""
ENDS = {
    "stopped": "Stopped.",
    "deadline": f"Time is up: one comparison may take {TIME_LIMIT:.0f} seconds.",
}
SUGGEST = "(...given) => window.scratch.compare.suggest(...given)"


@dataclass(kw_only=True, slots=True)
class CompareState:
    """What the tab remembers of one visitor."""

    stop: bool = False  # Stop was pressed


class Names(NamedTuple):
    """The models that are compared, as the page names them."""

    a: str
    b: str


class SideTroubleError(ValueError):
    """A side whose model cannot be had; `side` is 0 for A, 1 for B."""

    def __init__(self, side: int, message: str) -> None:
        super().__init__(message)
        self.side = side


def build(context: AppContext) -> list[Component]:
    """Lay out the tab and wire it; what it returns, `arrived` brings up to date."""
    cache, comparisons_queue = ModelCache(context), RequestQueue(workers=1, limit=LIMIT)
    gr.HTML(render(INTRO, zerogpu=zerogpu.is_here()), elem_id="compare-intro", padding=False)
    prompt = gr.Textbox(
        label="Prompt for both",
        info="Ctrl+Enter compares, Esc stops.",
        placeholder="Without a prompt both begin by themselves …",
        lines=2,
        max_lines=6,
        elem_id="compare-prompt",
        html_attributes=gr.InputHTMLAttributes(spellcheck=False),
    )
    with gr.Row(elem_id="compare-sides"):
        with gr.Column(min_width=280, elem_id="compare-side-a"):
            model_a, note_a = _build_model("A", cache)
            with gr.Accordion("Settings of A", open=False):
                sliders_a = _build_sliders("A")
        with gr.Column(min_width=280, elem_id="compare-side-b"):
            model_b, note_b = _build_model("B", cache)
            same = gr.Checkbox(True, label="Same settings as A", elem_id="compare-same", container=False)
            with gr.Accordion("Settings of B", open=True, visible=False) as settings_b:
                sliders_b = _build_sliders("B")
    with gr.Row(elem_id="compare-ideas"):
        another = gr.Button("Another model", elem_id="compare-another", min_width=110, visible=False)
        settings = gr.Button("Careful and wild settings", elem_id="compare-settings", min_width=110)
        identical = gr.Button("The same model twice", elem_id="compare-identical", min_width=110)
    with gr.Row(elem_id="compare-actions"):
        length = gr.Slider(1, LONGEST, value=LENGTH, step=1, label="Length of each text", info="Tokens at most",
                           elem_id="compare-length", min_width=220, scale=3)  # fmt: skip
        seed = seed_field(
            label="Seed of both", info="Same seed, same texts", elem_id="compare-seed", min_width=140, scale=2
        )
        go = gr.Button("Compare", variant="primary", elem_id="compare-go", min_width=130, scale=2)
        stop = gr.Button("Stop", variant="stop", elem_id="compare-stop", min_width=80, interactive=False)
    status = gr.HTML(READY if context.loader.ready else LOADING, elem_id="compare-status", padding=False)
    result = gr.HTML("", elem_id="comparison", padding=False)
    state, suggested = gr.State(CompareState()), gr.Textbox(visible="hidden")

    def run(
        state: CompareState, text: str, choice_a: str, choice_b: str, length: Any, seed: Any, same: bool, *values: Any
    ) -> Iterator[list[Any]]:
        names = [control.name for control in SETTINGS]
        of_a = dict(zip(names, values[: len(names)], strict=True))
        of_b = of_a if same else dict(zip(names, values[len(names) :], strict=True))
        notes: list[Any] = [gr.skip(), gr.skip()]
        found: Comparison | Names | str = ""
        titles = Title(name="", settings=of_a), Title(name="", settings=of_b)
        try:
            a, b = (settings_from(seed=seed, max_new_tokens=length, **values) for values in (of_a, of_b))
            for found in comparisons(
                context, cache, comparisons_queue, text or "", (choice_a, choice_b), (a, b), lambda: state.stop
            ):
                if isinstance(found, str):
                    yield [render_status("busy", found), gr.skip(), *notes]
                elif isinstance(found, Names):
                    titles = Title(name=found.a, settings=of_a), Title(name=found.b, settings=of_b)
                else:
                    yield [describe_end(found), render_comparison(found, titles), *notes]
            if not isinstance(found, Comparison):
                yield [render_status("idle", "Stopped: nothing was written."), gr.skip(), *notes]
        except SideTroubleError as error:
            notes[error.side] = render(TROUBLE, message=str(error))
            yield [render_status("trouble", f"Model {'AB'[error.side]} cannot be taken: see there."), gr.skip(), *notes]
        except ValueError as error:
            yield [render_status("trouble", str(error)), gr.skip(), *notes]

    begun = go.click(lambda state: begin(state, context), state, [status, go, stop], **DIRECT)
    running = begun.then(
        run,
        [state, prompt, model_a, model_b, length, seed, same, *sliders_a.values(), *sliders_b.values()],
        [status, result, note_a, note_b],
        concurrency_limit=None,
        **PRIVATE,
    )
    for over in (running.then, running.failure):
        over(lambda: settle(cache), None, [go, stop, model_a, model_b], **DIRECT)
    if (strip := strip_of_page()) is not None:
        strip.models.change(lambda: offered(cache), None, [model_a, model_b], **DIRECT)
    running.failure(lambda: BROKEN, None, status, **DIRECT)
    stop.click(ask_to_stop, state, None, **DIRECT)
    for model, note in ((model_a, note_a), (model_b, note_b)):
        model.change(lambda choice: describe(cache, choice), model, note, **DIRECT)
    same.input(
        lambda same, *values: [gr.update(visible=not same), *values],
        [same, *sliders_a.values()],
        [settings_b, *sliders_b.values()],
        **DIRECT,
    )
    setup = [model_a, model_b, same, settings_b, *sliders_a.values(), *sliders_b.values()]
    another.click(lambda: two_models(cache.another() or OWN), None, setup, **DIRECT)
    settings.click(two_settings, None, setup, **DIRECT)
    identical.click(lambda: two_models(OWN), None, setup, **DIRECT)
    choices = [part for part in setup if part is not settings_b]
    for prepared in on_model(lambda: prepare(context, cache), None, [suggested, model_a, model_b, another]):
        # In the browser, which knows what the visitor has typed and chosen by then.
        filled = prepared.then(None, [suggested, prompt, *choices], [prompt, *setup], js=SUGGEST, **PRIVATE)
        filled.then(lambda *of: [describe(cache, each) for each in of], [model_a, model_b], [note_a, note_b], **DIRECT)
    return [status]


def two_models(a: str) -> list[Any]:
    """The choices of a comparison of model `a` with the page's own: the models, that the settings are the same, and the
    settings of both."""
    usual = [*BALANCED.values.values()]
    return [a, OWN, True, gr.update(visible=False), *usual, *usual]


def two_settings() -> list[Any]:
    """The choices of a comparison of careful and wild settings of the page's model, as those of `two_models`."""
    return [OWN, OWN, False, gr.update(visible=True), *CAREFUL.values.values(), *WILD.values.values()]


def prepare(context: AppContext, cache: ModelCache) -> list[Any]:
    """What the tab begins with, as JSON for its script: a prompt, and two models that are not the same, else two
    settings; the models that there are to choose from, for both fields; and whether there is another one at all."""
    context.loader.done.wait()
    other = cache.another()
    a, b, same, _, *values = two_models(other) if other else two_settings()
    suggested = {"prompt": next(iter(context.source.prompts), ""), "choices": [a, b, same, *values]}
    return [json.dumps(suggested), *offered(cache), gr.update(visible=other is not None)]


def arrived(context: AppContext) -> list[Any]:
    """Updates of what `build` returned, now that the model is known."""
    return [READY]


def add_endpoint(context: AppContext) -> None:
    """No endpoint."""


def comparisons(
    context: AppContext,
    cache: ModelCache,
    queue: RequestQueue,
    prompt: str,
    choices: tuple[str, str],
    settings: tuple[SamplingSettings, SamplingSettings],
    should_stop: Callable[[], bool],
) -> Iterator[Comparison | Names | str]:
    """`compare` for the page: waits for the models and for its turn, first among the comparisons, in `queue`, then in
    the request queue of the page. Until it begins, messages on what it waits for come, and the names of the models that
    it has got by then.

    Raises SideTroubleError for a model that cannot be had, ValueError for a full queue and for a page's own model that
    does not arrive."""
    context.loader.expect(should_stop)
    with queue.join() as ticket:
        yield from map(waiting_message, ticket.wait_for_turn(should_stop))
        with context.queue.join() as ticket:
            yield from map(waiting_message, ticket.wait_for_turn(should_stop))
            sides: list[Side] = []
            names: list[str] = []
            for number, choice in enumerate(choices):
                if should_stop():
                    return
                yield f"Loading model {'AB'[number]} …"
                loaded = _load(cache, number, choice, should_stop)
                if loaded is None:
                    return
                sides.append(Side(loaded=loaded, settings=settings[number]))
                # Not before: the page's model may have been another one when the button was pressed.
                names.append(loaded.source.name if choice == OWN else cache.name(choice))
            yield Names(*names)
            if zerogpu.is_here():
                yield "Writing both; they come when they are done …"
                *_, last = context.loader.stream(compare_settings, prompt, *settings)
                yield last
            else:
                yield from compare(sides[0], sides[1], prompt, should_stop=should_stop)


def _load(cache: ModelCache, side: int, choice: str, should_stop: Callable[[], bool]) -> LoadedModel | None:
    """A side's model; None when Stop came first, the loading then ends by itself. Raises SideTroubleError."""
    found: list[LoadedModel | Exception] = []

    def load() -> None:
        try:
            found.append(cache.get(choice))
        except Exception as error:
            found.append(error)

    loading = threading.Thread(target=load, name="load-compared", daemon=True)
    loading.start()
    while loading.is_alive() and not should_stop():
        loading.join(DRAFT_INTERVAL)
    if not found:
        return None
    if isinstance(found[0], ValueError):
        raise SideTroubleError(side, str(found[0])) from found[0]
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def begin(state: CompareState, context: AppContext) -> list[Any]:
    """A comparison begins: status and buttons."""
    state.stop = False
    message = "Getting ready …" if context.loader.ready else "The model is still loading …"
    return [render_status("busy", message), *buttons(is_busy=True)]


def ask_to_stop(state: CompareState) -> None:
    """End the present comparison: both writers look before each token."""
    state.stop = True


def settle(cache: ModelCache) -> list[Any]:
    """The comparison is over, in whatever way: the buttons, and both fields with what there is to choose from now."""
    return [*buttons(is_busy=False), *offered(cache)]


def offered(cache: ModelCache) -> list[Any]:
    """Both fields with what there is to choose from now, whatever stands in them."""
    return [gr.update(choices=cache.choices())] * 2


def buttons(*, is_busy: bool) -> list[Any]:
    """Compare and Stop."""
    return [gr.Button(interactive=not is_busy), gr.Button(interactive=is_busy)]


def describe(cache: ModelCache, choice: str | None) -> str:
    """What is known of a choice, or what is wrong with it, as HTML for the place below the field."""
    try:
        source = cache.find(choice)
    except ValueError as error:
        return render(TROUBLE, message=str(error))
    return render(NOTE, facts=model_facts(source) or ["Looked up on the Hub when you compare."])


def describe_end(comparison: Comparison) -> str:
    """The status line of a comparison that is running, or is complete."""
    seed = f"seed {comparison.seed}"
    if not comparison.is_over:
        return render_status("busy", f"Both write … {seed}")
    ending = next((ENDS[text.ending] for text in comparison.texts if text.ending in ENDS), "Done.")
    return render_status("idle", f"{ending} Both with {seed}.")


def _build_model(letter: str, cache: ModelCache) -> tuple[gr.Dropdown, gr.HTML]:
    model = gr.Dropdown(
        cache.choices(),
        value=OWN,
        label=f"Model {letter}",
        info="One of the list, or type a path or a Hub id" if cache.takes_any else None,
        allow_custom_value=cache.takes_any,
        filterable=True,
        elem_id=f"compare-model-{letter.lower()}",
    )
    return model, gr.HTML("", elem_id=f"compare-note-{letter.lower()}", padding=False)


def _build_sliders(letter: str) -> dict[str, Component]:
    return {
        control.name: slider(
            control,
            label=f"{control.label}, {letter}",
            info=control.info,
            elem_id=f"compare-{control.name}-{letter.lower()}".replace("_", "-"),
        )
        for control in SETTINGS
    }
