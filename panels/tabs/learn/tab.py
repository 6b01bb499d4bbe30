"""The Learn tab: the curves of a run while it trains, its time-lapse, and a run of one's own."""

from __future__ import annotations

import random
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from panels.components.events import DIRECT, PRIVATE
from panels.components.model_switch import switch_of_page
from panels.components.status import render_status
from panels.components.training_strip import strip_of_page
from panels.context import AppContext
from panels.formats import percent, rough_duration, short_number
from panels.model_cache import ModelCache
from panels.request_queue import LatestRequest, waiting_message
from panels.sampling import settings_from
from panels.tabs.learn.curves import render_curves
from panels.tabs.learn.form import build_form, unavailable
from panels.tabs.learn.timelapse import Timelapse, make_timelapse, render_timelapses, timelapses_of
from panels.templates import render
from panels.training.launcher import Launcher, launcher_of
from panels.training.monitor import RunMonitor, RunView, known_runs, monitor_of
from storage.run_folder import RunFolder

TITLE = "Learn"
INTERVAL = 1.5
"""Seconds between two looks at a run that is active."""
PARTS = ("run", "refresh", "status", "stop", "resume", "use", "curves", "lapse", "own", "timer", "active")
"""What shows a run, in the order of the outputs of an update."""
OWN_TIMELAPSES = 8
"""Timelapses of a visitor's own prompts that are remembered for a run."""

NO_RUN = """
<p class="none">There is no run here to look at: the model on this page came without its run folder, which has the
curves and the texts on the way. {% if may_start %}Train one below, or with <code>make demo</code> or
<code>python -m train modern --corpus FILE</code>.{% else %}Whoever trained it has that folder and can open it with
<code>python app.py --model runs/NAME</code>.{% endif %}</p>
"""
STATE = """
<div class="run-status status {{ state }}" role="status" aria-live="off">
  <p><span><i class="dot" aria-hidden="true"></i><b>{{ message }}</b></span>
  {% for fact in facts if fact %}<span>{{ fact }}</span>{% endfor %}</p>
  {% if share is not none %}
  <div class="bar" role="progressbar" aria-label="Steps" aria-valuemin="0" aria-valuemax="100"
    aria-valuenow="{{ share }}"><i style="width:{{ share }}%"></i></div>
  {% endif %}
  {% if warning %}<p class="warning">{{ warning }}</p>{% endif %}
  {% if resume %}<p class="quiet">Continue its training: <code>{{ resume }}</code></p>{% endif %}
  {% if command %}<p class="quiet">Open it: <code>{{ command }}</code></p>{% endif %}
</div>
"""

TIMELAPSE_FAILED = render_status(
    "trouble", "That went wrong; the page's log says why. What was written so far is under the slider."
)


@dataclass(kw_only=True, slots=True)
class TabState:
    """What the tab remembers of one visitor."""

    name: str | None = None  # of the run that was asked for last …
    run: RunFolder | None = None  # … and its folder
    version: int = 0  # of the run's monitor, that the page shows; 0: the page shows what it was built with
    timelapses: dict[str, list[Timelapse]] = field(default_factory=dict)  # of the visitor's own prompts, by run
    request: LatestRequest = field(default_factory=LatestRequest)


def build(context: AppContext) -> list[Component]:
    """Lay out the tab and wire it. The timer's first tick brings it up to date, whatever the model does."""
    state = gr.State(TabState())
    shown = describe_run(context, None, [], known_runs(context))
    with gr.Row(elem_id="learn-head"):
        chosen = gr.Dropdown(label="Run", elem_id="learn-run", filterable=False, scale=4, min_width=180, **shown["run"])
        refresh = gr.Button("Refresh", elem_id="learn-refresh", min_width=110, scale=1, **shown["refresh"])
    status = gr.HTML(elem_id="learn-status", **shown["status"])
    with gr.Row(elem_id="learn-actions"):
        stop = gr.Button("Stop", variant="stop", elem_id="learn-stop", min_width=100, **shown["stop"])
        resume = gr.Button("Resume", elem_id="learn-resume", min_width=100, **shown["resume"])
        use = gr.Button("Write with it", elem_id="learn-use", min_width=120, **shown["use"])
    curves = gr.HTML(elem_id="learn-curves", **shown["curves"])
    lapse = gr.HTML(elem_id="learn-timelapse", **shown["lapse"])
    title = "Continue a prompt of your own with every checkpoint"
    with gr.Accordion(title, open=False, elem_id="timelapse", **shown["own"]) as own:
        prompt = gr.Textbox(
            label="Prompt", placeholder="Once upon a time", max_lines=6, elem_id="timelapse-prompt", lines=2
        )
        with gr.Row():
            seed = gr.Textbox(label="Seed", placeholder="random", max_lines=1, elem_id="timelapse-seed", min_width=120)
            length = gr.Slider(10, 300, value=100, step=1, label="Length", info="Tokens", elem_id="timelapse-length")
        with gr.Row(elem_id="timelapse-actions"):
            make = gr.Button("Write", variant="primary", elem_id="timelapse-make", min_width=120)
            halt = gr.Button("Stop", variant="stop", elem_id="timelapse-stop", min_width=80, interactive=False)
        lapse_status = gr.HTML(
            render_status("idle", "One text for each checkpoint that was kept; they come under the slider above."),
            elem_id="timelapse-status",
        )
    timer = gr.Timer(INTERVAL)
    active = gr.Checkbox(visible="hidden")  # a gr.State's change is noticed only where a queued event made it
    outputs: list[Any] = [chosen, refresh, status, stop, resume, use, curves, lapse, own, timer, active]

    def control(action: Callable[[Launcher, RunFolder], None]) -> Callable[[TabState, str | None], list[Any]]:
        def apply(state: TabState, name: str | None) -> list[Any]:
            run = known_runs(context).get(name or "")
            try:
                if run is None or not context.may_train:
                    raise ValueError(f"There is no run to {action.__name__}.")
                action(launcher_of(context.home), run)
            except (ValueError, OSError) as error:
                return updates(status={"value": render_status("trouble", str(error))})
            return show_run(context, state, name)

        return apply

    def show_started(state: TabState, name: str | None) -> list[Any]:
        return show_run(context, state, name) if name else updates()

    for event, answer in (
        (stop.click, control(Launcher.stop)),
        (resume.click, control(Launcher.resume)),
        (chosen.input, partial(show_run, context)),
        (refresh.click, partial(show_run, context)),
        (timer.tick, partial(follow_run, context)),
    ):
        # always_last: Gradio drops a click that comes while the answer to the one before is still being drawn.
        event(answer, [state, chosen], outputs, trigger_mode="always_last", **DIRECT)
    if (strip := strip_of_page()) is not None:
        strip.active.change(partial(show_active, context), [state, chosen, strip.active], outputs, **DIRECT)
    if (switch := switch_of_page()) is not None:
        switch.on(use.click, chosen, lambda name: choice_of(context, name))
        switch.version.change(partial(show_run, context), [state, chosen], outputs, **DIRECT)
    buttons = [make, halt]
    make.click(lambda: [gr.Button(interactive=False), gr.Button(interactive=True)], None, buttons, **DIRECT)
    made = make.click(
        partial(write_timelapse, context),
        [state, chosen, prompt, seed, length],
        [lapse, lapse_status],
        concurrency_limit=None,
        **PRIVATE,
    )
    made.failure(lambda: TIMELAPSE_FAILED, None, lapse_status, **DIRECT)
    for over in (made.then, made.failure):
        over(lambda: [gr.Button(interactive=True), gr.Button(interactive=False)], None, buttons, **DIRECT)
    halt.click(lambda state: state.request.stop(), state, None, **DIRECT)
    started = build_form(context, is_open=shown["run"]["value"] is None, active=active)
    if started is not None:
        name, begun = started
        begun.success(show_started, [state, name], outputs, **DIRECT)
    return []


def arrived(context: AppContext) -> list[Any]:
    """Nothing to update: the tab shows folders, whatever model is loaded."""
    return []


def add_endpoint(context: AppContext) -> None:
    """No endpoint: only who sits at the machine starts runs."""


def updates(**parts: dict[str, Any]) -> list[Any]:
    """Updates of the components of PARTS: the properties that `parts` gives, and nothing for the others."""
    return [gr.update(**parts[part]) if part in parts else gr.skip() for part in PARTS]


def show_run(context: AppContext, state: TabState, name: str | None) -> list[Any]:
    """The run of that name (None: the first), as updates of everything that shows it."""
    runs = known_runs(context)
    if name == state.name and name not in runs:  # where another of its name came or went, it is called otherwise now
        name = next((each for each, run in runs.items() if run == state.run), name)
    name = name or next(iter(runs), None)
    state.name, state.run, state.version = name, runs.get(name or ""), -1
    if name is not None and state.run is None:
        return updates(
            run={"choices": _choices(context, runs), "value": None},
            status={"value": describe_view(RunView(name=name, status="missing"), name)},
            stop={"visible": False},
            resume={"visible": False},
            use={"visible": False},
            timer={"active": False},
            active={"value": False},
        )
    if state.run is not None:
        state.version = _monitor(context, state.run, refresh=True)[0].version
    return updates(**describe_run(context, name, state.timelapses.get(name or "", []), runs))


def show_active(context: AppContext, state: TabState, name: str | None, active: str) -> list[Any]:
    """A run became active, or none is any more: the active one, unless the visitor looks at another active one."""
    if state.run is not None and state.run.path != Path(active) and _monitor(context, state.run)[1].is_active:
        return updates()
    names = {run.path: each for each, run in known_runs(context).items()}
    return show_run(context, state, names.get(Path(active), name))


def choice_of(context: AppContext, name: str | None) -> str:
    """What the page's model is switched to for the run of that name, which may be gone by now; "" where none is
    shown."""
    run = known_runs(context).get(name or "")
    return ModelCache(context).choice_of(run.path) if run is not None else f"runs/{name}" if name else ""


def follow_run(context: AppContext, state: TabState, name: str | None) -> list[Any]:
    """`show_run` if there is anything new, else nothing to send."""
    if state.version == 0:
        return show_run(context, state, None)
    is_old = name != state.name  # the visitor has chosen another meanwhile
    if state.run is not None and not is_old:
        is_old = _monitor(context, state.run)[0].version == state.version
    return updates() if is_old else show_run(context, state, name)


def describe_run(
    context: AppContext, name: str | None, own: list[Timelapse], runs: dict[str, RunFolder]
) -> dict[str, dict[str, Any]]:
    """What the tab shows of one of `runs` (None: the first): the properties of the component of each of PARTS."""
    name = name or next(iter(runs), None)
    parts: dict[str, dict[str, Any]] = {part: {"visible": False} for part in ("stop", "resume", "use", "own")} | {
        "run": {"choices": _choices(context, runs), "value": name, "visible": bool(runs)},
        "refresh": {"visible": bool(runs)},
        "status": {"value": render(NO_RUN, may_start=unavailable(context) is None)},
        "curves": {"value": ""},
        "lapse": {"value": ""},
        "timer": {"active": False},
        "active": {"value": False},
    }
    if name is None:
        return parts
    run, launcher = runs[name], launcher_of(context.home)
    monitor, view = _monitor(context, run)
    stopping = launcher.is_stopping(run)
    may_stop = view.is_active and context.may_train and launcher.since(run) is not None and not stopping
    can_resume = view.can_resume and run.recipe_file.is_file()
    is_own = context.run is not None and context.run.resolve() == run.path
    curves = render_curves(
        monitor.metrics.records,
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
        "use": {"visible": context.may_switch and view.has_checkpoint and not is_own},
        "curves": {"value": curves},
        "lapse": {"value": _timelapses(monitor, own, name)},
        "own": {"visible": view.has_checkpoint},
        "timer": {"active": view.is_active},
        "active": {"value": view.is_active},
    }


def _timelapses(monitor: RunMonitor, own: list[Timelapse], name: str) -> str:
    samples = timelapses_of(monitor.samples.records)
    return render_timelapses([*own, *samples], monitor.metrics.records, run=name)


def describe_view(view: RunView, folder: str, *, last_error: str | None = None, stopping: bool = False) -> str:
    """The status line of a run: its status, step, time left, tokens, speed; below it what to do next."""
    floor, bits, left, speed = view.floor_bits_per_byte, view.bits_per_byte, view.seconds_left, view.tokens_per_second
    above = f", {bits / floor - 1:.1%} above the floor" if bits is not None and floor else ""
    utilization = view.model_flops_utilization
    facts = [
        view.name if view.status == "missing" else "",
        f"step {view.step:,} of {view.steps:,}" if view.steps else "",
        f"{rough_duration(left)} left" if left is not None else "",
        f"{rough_duration(view.seconds)} of training" if left is None and view.seconds else "",
        f"{short_number(view.tokens_seen)} tokens seen" if view.tokens_seen else "",
        f"{speed:,.0f} tokens/s" if speed and view.is_active else "",
        f"{percent(utilization)} of the processor's peak" if utilization is not None else "",
        f"{bits:.3f} bits per byte{above}" if bits is not None else "",
        f"{short_number(view.parameters)} parameters" if view.parameters else "",
    ]
    warning = command = None
    message, is_trouble = view.status_text, view.status in ("failed", "crashed", "missing")
    if stopping and view.is_active:
        message = "Saving and stopping …"
    elif stopping and view.status == "failed" and not view.step:
        message, is_trouble = "Stopped before its first step", False
    elif view.status == "failed":
        warning = (
            last_error
            or view.cut_short
            or "The process ended before its first step; train.log in the folder may show why."
        )
    if view.status in ("finished", "stopped") and view.has_checkpoint:
        command = f"python app.py --model {shlex.quote(folder)}"
        warning = view.cut_short
    state = "busy" if view.is_active else "trouble" if is_trouble else "idle"
    share = min(100, 100 * view.step // view.steps) if view.is_active and view.steps else None
    resume = view.resume_command if view.cut_short and not view.is_active else None
    return render(
        STATE, state=state, message=message, facts=facts, share=share, warning=warning, resume=resume, command=command
    )


def _choices(context: AppContext, runs: dict[str, RunFolder]) -> list[tuple[str, str]]:
    """The runs as the list names them."""
    texts = {name: _monitor(context, run)[1].status_text for name, run in runs.items()}
    return [(f"{name} · {re.split('[:,]', text)[0].lower()}", name) for name, text in texts.items()]


def _monitor(context: AppContext, run: RunFolder, *, refresh: bool = False) -> tuple[RunMonitor, RunView]:
    monitor = monitor_of(run)
    return monitor, monitor.view(since=launcher_of(context.home).since(run), refresh=refresh)


def write_timelapse(
    context: AppContext, state: TabState, name: str | None, prompt: str, seed: str, length: float
) -> Iterator[list[Any]]:
    """Make a time-lapse of a prompt when it is this request's turn: the time-lapse and the status, frame by frame; the
    status shows a setting or a run that does not fit, and a full queue."""
    should_stop = state.request.begin()
    yield [gr.skip(), render_status("busy", "Loading the first checkpoint …")]
    count, expected = 0, None
    try:
        run = known_runs(context).get(name or "")
        if name is None or run is None:
            raise ValueError("There is no run to write with.")
        settings = settings_from(seed=seed, max_new_tokens=length)
        drawn = random.SystemRandom().randrange(10**6) if settings.seed is None else settings.seed
        others = state.timelapses.get(name, [])
        with context.queue.join() as ticket:
            for ahead in ticket.wait_for_turn(should_stop):
                yield [gr.skip(), render_status("busy", waiting_message(ahead))]
            frames = make_timelapse(run, prompt, seed=drawn, tokens=settings.max_new_tokens, should_stop=should_stop)
            for made, expected in frames:
                count = len(made.frames)
                state.timelapses[name] = [made, *others][:OWN_TIMELAPSES]
                is_shown = state.name in (None, name)  # else the visitor has chosen another run meanwhile
                page = _timelapses(monitor_of(run), state.timelapses[name], name) if is_shown else gr.skip()
                yield [page, render_status("busy", f"{count} of {expected} checkpoints …")]
    except ValueError as error:
        yield [gr.skip(), render_status("trouble", str(error))]
        return
    word = "Done" if count == expected else "Stopped"
    yield [gr.skip(), render_status("idle", f"{word}: {count} of {expected or '?'} checkpoints, seed {drawn}.")]
