"""The Learn tab: the curves of a run while it trains, its time-lapse, and a run of one's own."""

from __future__ import annotations

import random
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from panels.components.status import render_status
from panels.context import AppContext
from panels.formats import percent, short_number
from panels.request_queue import LatestRequest, waiting_message
from panels.sampling import settings_from
from panels.tabs.learn.curves import render_curves
from panels.tabs.learn.form import build_form, rough_duration, unavailable
from panels.tabs.learn.jobs import Launcher, launcher_of
from panels.tabs.learn.monitor import RunMonitor, RunView, Status, known_runs, monitor_of
from panels.tabs.learn.timelapse import Film, films_of, make_film, render_films
from panels.templates import render
from storage.run_folder import RunFolder

TITLE = "Learn"
INTERVAL = 1.5
"""Seconds between two looks at a run that is active."""
PARTS = ("run", "refresh", "status", "stop", "resume", "curves", "lapse", "film", "timer")
"""What shows a run, in the order of the outputs of an update."""
OWN_FILMS = 8
"""Films of a visitor's own prompts that are remembered for a run."""

NO_RUN = """
<p class="none">There is no run here to look at: the model on this page came without its run folder, which has the
curves and the texts on the way. {% if may_start %}Train one below, or with <code>make demo</code> or
<code>python -m train modern --corpus FILE</code>.{% else %}Whoever trained it has that folder and can open it with
<code>python app.py --model runs/NAME</code>.{% endif %}</p>
"""
STATUS_TEXTS: dict[Status, str] = {
    "preparing": "Preparing: tokenizer and tokens are being made …",
    "running": "Running",
    "finished": "Finished",
    "stopped": "Stopped, saved",
    "failed": "Failed",
    "crashed": "Crashed: its process ended without saving; Resume continues from the last checkpoint",
    "missing": "This run's folder is missing",
}

STATE = """
<div class="run-state status {{ state }}" role="status" aria-live="off">
  <p><span><i class="dot" aria-hidden="true"></i><b>{{ message }}</b></span>
  {% for fact in facts %}<span>{{ fact }}</span>{% endfor %}</p>
  {% if share is not none %}
  <div class="bar" role="progressbar" aria-label="Steps" aria-valuemin="0" aria-valuemax="100"
    aria-valuenow="{{ share }}"><i style="width:{{ share }}%"></i></div>
  {% endif %}
  {% if warning %}<p class="warning">{{ warning }}</p>{% endif %}
  {% if command %}<p class="quiet">Open it: <code>{{ command }}</code></p>{% endif %}
</div>
"""

FILM_FAILED = render_status(
    "trouble", "That went wrong; the page's log says why. What was written so far is under the slider."
)


@dataclass(kw_only=True, slots=True)
class TabState:
    """What the tab remembers of one visitor."""

    name: str | None = None  # of the run that was asked for last …
    run: RunFolder | None = None  # … and its folder
    version: int = 0  # of the run's monitor, that the page shows; 0: the page shows what it was built with
    films: dict[str, list[Film]] = field(default_factory=dict)  # of the visitor's own prompts, by run
    film: LatestRequest = field(default_factory=LatestRequest)


def build(context: AppContext) -> list[Component]:
    """Lay out the tab and wire it. The timer's first tick brings it up to date, whatever the model does."""
    state = gr.State(TabState())
    shown = describe_run(context, None, [])
    with gr.Row(elem_id="learn-head"):
        chosen = gr.Dropdown(label="Run", elem_id="learn-run", filterable=False, scale=4, min_width=180, **shown["run"])
        refresh = gr.Button("Refresh", elem_id="learn-again", min_width=110, scale=1, **shown["refresh"])
    status = gr.HTML(elem_id="learn-state", **shown["status"])
    with gr.Row(elem_id="learn-actions"):
        stop = gr.Button("Stop", variant="stop", elem_id="learn-stop", min_width=100, **shown["stop"])
        resume = gr.Button("Resume", elem_id="learn-resume", min_width=100, **shown["resume"])
    curves = gr.HTML(elem_id="learn-curves", **shown["curves"])
    lapse = gr.HTML(elem_id="learn-lapse", **shown["lapse"])
    title = "Write a prompt of your own with every checkpoint"
    with gr.Accordion(title, open=False, elem_id="film", **shown["film"]) as film:
        prompt = gr.Textbox(label="Prompt", placeholder="Once upon a time", lines=2, max_lines=6, elem_id="film-prompt")
        with gr.Row():
            seed = gr.Textbox(label="Seed", placeholder="random", max_lines=1, elem_id="film-seed", min_width=120)
            length = gr.Slider(10, 300, value=100, step=1, label="Length", info="Tokens", elem_id="film-length")
        with gr.Row(elem_id="film-actions"):
            make = gr.Button("Write", variant="primary", elem_id="film-make", min_width=120)
            halt = gr.Button("Stop", variant="stop", elem_id="film-stop", min_width=80, interactive=False)
        film_status = gr.HTML(
            render_status("idle", "One text for each checkpoint that was kept, under the slider above."),
            elem_id="film-state",
        )
    timer = gr.Timer(INTERVAL)
    outputs: list[Any] = [chosen, refresh, status, stop, resume, curves, lapse, film, timer]
    assert len(outputs) == len(PARTS)
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def show_started(state: TabState, name: str | None) -> list[Any]:
        return show_run(context, state, name) if name else [gr.skip()] * len(PARTS)

    def control(action: Callable[[Launcher, RunFolder], None]) -> Callable[[TabState, str | None], list[Any]]:
        def apply(state: TabState, name: str | None) -> list[Any]:
            run = known_runs(context).get(name or "")
            try:
                if run is None or not context.may_train:
                    raise ValueError(f"There is no run to {action.__name__}.")
                action(launcher_of(context.home), run)
            except (ValueError, OSError) as error:
                return [render_status("trouble", str(error)) if each is status else gr.skip() for each in outputs]
            return show_run(context, state, name)

        return apply

    def write(state: TabState, name: str | None, text: str, seed: str, length: float) -> Iterator[list[Any]]:
        buttons = [gr.Button(interactive=False), gr.Button(interactive=True)]
        try:
            yield [gr.skip(), render_status("busy", "Loading the first checkpoint …"), *buttons]
            for page, message in write_film(context, state, name, text, seed, length):
                yield [page, message, *buttons]
        except ValueError as error:
            yield [gr.skip(), render_status("trouble", str(error)), *buttons]

    def film_ended() -> list[Any]:
        return [gr.Button(interactive=True), gr.Button(interactive=False)]

    for event, answer in (
        (chosen.input, partial(show_run, context)),
        (refresh.click, partial(show_run, context)),
        (timer.tick, partial(follow_run, context)),
        (stop.click, control(Launcher.stop)),
        (resume.click, control(Launcher.resume)),
    ):
        event(answer, [state, chosen], outputs, **quiet)
    made = make.click(
        write,
        [state, chosen, prompt, seed, length],
        [lapse, film_status, make, halt],
        concurrency_limit=None,
        show_progress="hidden",
        api_visibility="private",
    )
    made.success(film_ended, None, [make, halt], **quiet)
    made.failure(lambda: [FILM_FAILED, *film_ended()], None, [film_status, make, halt], **quiet)
    halt.click(lambda state: state.film.stop(), state, None, **quiet)
    started = build_form(context, is_open=shown["run"]["value"] is None)
    if started is not None:
        name, begun = started
        begun.success(show_started, [state, name], outputs, **quiet)
    return []


def arrived(context: AppContext) -> list[Any]:
    """Nothing to update: the tab shows folders, whatever model is loaded."""
    return []


def add_endpoint(context: AppContext) -> None:
    """No endpoint: only who sits at the machine starts runs."""


def show_run(context: AppContext, state: TabState, name: str | None) -> list[Any]:
    """The run of that name (None: the first), as updates of everything that shows it."""
    runs = known_runs(context)
    name = name or next(iter(runs), None)
    state.name, state.run, state.version = name, runs.get(name or ""), -1
    if name is not None and state.run is None:
        changed: dict[str, Any] = {
            "run": gr.update(choices=_choices(context, runs), value=None),
            "status": describe_view(RunView(name=name, status="missing"), name),
            "stop": gr.update(visible=False),
            "resume": gr.update(visible=False),
            "timer": gr.update(active=False),
        }
        return [changed.get(part, gr.skip()) for part in PARTS]
    if state.run is not None:
        state.version = _monitor(context, state.run, refresh=True)[0].version
    parts = describe_run(context, name, state.films.get(name or "", []))
    return [gr.update(**parts[part]) for part in PARTS]


def follow_run(context: AppContext, state: TabState, name: str | None) -> list[Any]:
    """`show_run` if there is anything new, else nothing to send."""
    if state.version == 0:
        return show_run(context, state, None)
    unchanged = name != state.name  # the visitor has chosen another meanwhile
    if state.run is not None and not unchanged:
        unchanged = _monitor(context, state.run)[0].version == state.version
    return [gr.skip()] * len(PARTS) if unchanged else show_run(context, state, name)


def describe_run(context: AppContext, name: str | None, own: list[Film]) -> dict[str, dict[str, Any]]:
    """What the tab shows of a run: the properties of the component of each of PARTS."""
    runs = known_runs(context)
    name = name or next(iter(runs), None)
    parts: dict[str, dict[str, Any]] = {
        "run": {"choices": _choices(context, runs), "value": name, "visible": bool(runs)},
        "refresh": {"visible": bool(runs)},
        "status": {"value": render(NO_RUN, may_start=unavailable(context) is None)},
        "stop": {"visible": False},
        "resume": {"visible": False},
        "curves": {"value": ""},
        "lapse": {"value": ""},
        "film": {"visible": False},
        "timer": {"active": False},
    }
    if name is None:
        return parts
    run, launcher = runs[name], launcher_of(context.home)
    monitor, view = _monitor(context, run)
    stopping = launcher.is_stopping(run)
    may_stop = view.is_active and context.may_train and launcher.since(run) is not None and not stopping
    can_resume = view.status in ("stopped", "crashed", "failed") and run.recipe_file.is_file()
    metrics = monitor.metrics.records
    curves = render_curves(
        metrics,
        run=name,
        floor_bits_per_byte=view.floor_bits_per_byte,
        steps=view.steps if view.is_active else None,
        broken=monitor.metrics.broken,
    )
    home = context.home.resolve()
    folder = run.path.relative_to(home) if run.path.is_relative_to(home) else run.path
    status = describe_view(view, str(folder), last_error=launcher.last_error(run), stopping=stopping)
    return parts | {
        "status": {"value": status},
        "stop": {"visible": may_stop},
        "resume": {"visible": can_resume and unavailable(context) is None},
        "curves": {"value": curves},
        "lapse": {"value": render_films([*own, *films_of(monitor.samples.records)], metrics, run=name)},
        "film": {"visible": view.has_checkpoint},
        "timer": {"active": view.is_active},
    }


def describe_view(view: RunView, folder: str, *, last_error: str | None = None, stopping: bool = False) -> str:
    """The status line of a run: its status, step, time left, tokens, speed; below it what to do next."""
    facts = [view.name] if view.status == "missing" else []
    if view.steps:
        facts.append(f"step {view.step:,} of {view.steps:,}")
    if view.seconds_left is not None:
        facts.append(f"{rough_duration(view.seconds_left)} left")
    elif view.seconds:
        facts.append(f"{rough_duration(view.seconds)} of training")
    if view.tokens_seen:
        facts.append(f"{short_number(view.tokens_seen)} tokens seen")
    if view.tokens_per_second and view.is_active:
        facts.append(f"{view.tokens_per_second:,.0f} tokens/s")
    if view.model_flops_utilization is not None:
        facts.append(f"{percent(view.model_flops_utilization)} of the peak FLOP/s")
    if view.bits_per_byte is not None:
        floor = view.floor_bits_per_byte
        above = f", {view.bits_per_byte / floor - 1:.1%} above the floor" if floor else ""
        facts.append(f"{view.bits_per_byte:.3f} bits per byte{above}")
    if view.parameters:
        facts.append(f"{short_number(view.parameters)} parameters")
    warning = command = None
    message, is_trouble = STATUS_TEXTS[view.status], view.status in ("failed", "crashed", "missing")
    if stopping and view.is_active:
        message = "Saving and stopping …"
    elif stopping and view.status == "failed":
        message, is_trouble = "Stopped before its first step", False
    elif view.status == "failed":
        warning = last_error or "The process ended before its first step; train.log in the folder may show why."
    if view.status in ("finished", "stopped") and view.has_checkpoint:
        command = f"python app.py --model {shlex.quote(folder)}"
    state = "busy" if view.is_active else "trouble" if is_trouble else "idle"
    share = min(100, 100 * view.step // view.steps) if view.is_active and view.steps else None
    return render(STATE, state=state, message=message, facts=facts, share=share, warning=warning, command=command)


def _choices(context: AppContext, runs: dict[str, RunFolder]) -> list[tuple[str, str]]:
    """The runs as the list names them."""
    texts = {name: STATUS_TEXTS[_monitor(context, run)[1].status] for name, run in runs.items()}
    return [(f"{name} · {re.split('[:,]', text)[0].lower()}", name) for name, text in texts.items()]


def _monitor(context: AppContext, run: RunFolder, *, refresh: bool = False) -> tuple[RunMonitor, RunView]:
    monitor = monitor_of(run)
    return monitor, monitor.view(since=launcher_of(context.home).since(run), refresh=refresh)


def write_film(
    context: AppContext, state: TabState, name: str | None, prompt: str, seed: str, length: float
) -> Iterator[tuple[Any, str]]:
    """Make a film of a prompt when it is this request's turn: the time-lapse and the status, frame by frame.

    ValueError: for a setting or a run that does not fit, or a queue that is full.
    """
    should_stop = state.film.begin()
    run = known_runs(context).get(name or "")
    if name is None or run is None:
        raise ValueError("There is no run to write with.")
    settings = settings_from(seed=seed, max_new_tokens=length)
    drawn = random.SystemRandom().randrange(10**6) if settings.seed is None else settings.seed
    others, monitor = state.films.get(name, []), monitor_of(run)
    count, expected = 0, None
    with context.queue.join() as ticket:
        for ahead in ticket.wait_for_turn(should_stop):
            yield gr.skip(), render_status("busy", waiting_message(ahead))
        if should_stop():
            return
        frames = make_film(run, prompt, seed=drawn, tokens=settings.max_new_tokens, should_stop=should_stop)
        for made, expected in frames:
            count = len(made.frames)
            state.films[name] = [made, *others][:OWN_FILMS]
            films = [*state.films[name], *films_of(monitor.samples.records)]
            page = render_films(films, monitor.metrics.records, run=name)
            yield page, render_status("busy", f"{count} of {expected} checkpoints …")
    word = "Done" if count == expected else "Stopped"
    yield gr.skip(), render_status("idle", f"{word}: {count} of {expected or '?'} checkpoints, seed {drawn}.")
