"""The Learn tab: the curves of a run while it goes, its time-lapse, and a run of one's own."""

from __future__ import annotations

import random
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from panels.components.status import render_status
from panels.context import AppContext
from panels.formats import short_number
from panels.request_queue import waiting_message
from panels.sampling import settings_from
from panels.tabs.learn.curves import render_curves
from panels.tabs.learn.form import build_start, in_words, why_not
from panels.tabs.learn.jobs import launcher_of
from panels.tabs.learn.monitor import RunView, Watch, known_runs, watch
from panels.tabs.learn.timelapse import Film, film, films_of, render_films
from panels.templates import render

TITLE = "Learn"
PACE = 1.5
"""Seconds between two looks at a run that is going."""
VIEW = 9
"""Components that show a run."""
OWN_FILMS = 8
"""Prompts of one's own that a visitor's page remembers for a run."""

NO_RUN = """
<p class="none">There is no run here to look at: the model on this page came without its run folder, which has the
curves and the texts on the way. {% if may_start %}Train one below, or with <code>make demo</code> or
<code>python -m train modern --corpus FILE</code>.{% else %}Whoever trained it has that folder and can open it with
<code>python app.py --model runs/NAME</code>.{% endif %}</p>
"""
WORDS = {
    "preparing": "Preparing: tokenizer and tokens are being made …",
    "running": "Running",
    "finished": "Finished",
    "stopped": "Stopped, saved",
    "failed": "Failed",
    "broken off": "Broken off: its process ended without saving; Resume goes on from the last checkpoint",
    "gone": "This run's folder is gone",
}

TROUBLE = ("failed", "broken off", "gone")

STATE = """
<div class="run-state status {{ state }}" role="status" aria-live="off">
  <p><span><i class="dot" aria-hidden="true"></i><b>{{ words }}</b></span>
  {% for fact in facts %}<span>{{ fact }}</span>{% endfor %}</p>
  {% if share is not none %}
  <div class="bar" role="progressbar" aria-label="Steps" aria-valuemin="0" aria-valuemax="100"
    aria-valuenow="{{ share }}"><i style="width:{{ share }}%"></i></div>
  {% endif %}
  {% for line in lines %}<p class="{{ line.kind }}">{{ line.before }}{% if line.code %}<code>{{ line.code }}</code>
  {% endif %}</p>{% endfor %}
</div>
"""


@dataclass(kw_only=True, slots=True)
class Bench:
    """What the tab remembers of one visitor."""

    name: str | None = None  # of the run that was asked for last …
    run: Path | None = None  # … and its folder
    version: int = 0  # of its watch, that the page shows; 0: the page shows what it was built with
    films: dict[str, list[Film]] = field(default_factory=dict)  # of the visitor's own prompts, by run
    stop: bool = False  # Stop was pressed while a film was made
    busy: bool = False  # a film is being made


def build(context: AppContext) -> list[Component]:
    """Lay out the tab and wire it. The timer's first tick brings it up to date, whatever the model does."""
    bench = gr.State(Bench())
    shown = _describe(context, None, [])
    with gr.Row(elem_id="learn-head"):
        chosen = gr.Dropdown(label="Run", elem_id="learn-run", filterable=False, scale=4, min_width=180, **shown["run"])
        again = gr.Button("Refresh", elem_id="learn-again", min_width=110, scale=1, visible=shown["again"])
    state = gr.HTML(shown["state"], elem_id="learn-state")
    with gr.Row(elem_id="learn-actions"):
        stop = gr.Button("Stop", variant="stop", elem_id="learn-stop", min_width=100, visible=shown["may_stop"])
        resume = gr.Button("Resume", elem_id="learn-resume", min_width=100, visible=shown["may_resume"])
    curves = gr.HTML(shown["curves"], elem_id="learn-curves")
    lapse = gr.HTML(shown["films"], elem_id="learn-lapse")
    with gr.Accordion(
        "Write a prompt of your own with every checkpoint", open=False, elem_id="film", visible=shown["may_film"]
    ) as film_place:
        prompt = gr.Textbox(label="Prompt", placeholder="Once upon a time", lines=2, max_lines=6, elem_id="film-prompt")
        with gr.Row():
            seed = gr.Textbox(label="Seed", placeholder="random", max_lines=1, elem_id="film-seed", min_width=120)
            length = gr.Slider(10, 300, value=100, step=1, label="Length", info="Tokens", elem_id="film-length")
        with gr.Row(elem_id="film-actions"):
            make = gr.Button("Write", variant="primary", elem_id="film-make", min_width=120)
            halt = gr.Button("Stop", variant="stop", elem_id="film-stop", min_width=80, interactive=False)
        film_state = gr.HTML(
            render_status("idle", "One text for each checkpoint that was kept, under the slider above."),
            elem_id="film-state",
        )
    timer = gr.Timer(PACE)
    view: list[Any] = [chosen, again, state, stop, resume, curves, lapse, film_place, timer]
    assert len(view) == VIEW
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def show(bench: Bench, name: str | None) -> list[Any]:
        return show_run(context, bench, name)

    def show_started(bench: Bench, name: str | None) -> list[Any]:
        return show_run(context, bench, name) if name else [gr.skip()] * VIEW

    def follow(bench: Bench, name: str | None) -> list[Any]:
        return follow_run(context, bench, name)

    def end(bench: Bench, name: str | None) -> list[Any]:
        run = known_runs(context).get(name or "")
        try:
            if run is None or not context.may_train:
                raise ValueError("There is no run to stop.")
            launcher_of(context.home).stop(run)
        except ValueError as error:
            return refused(error)
        return show_run(context, bench, name)

    def refused(error: Exception) -> list[Any]:
        return [gr.skip(), gr.skip(), render_status("trouble", str(error)), *[gr.skip()] * (VIEW - 3)]

    def go_on(bench: Bench, name: str | None) -> list[Any]:
        run = known_runs(context).get(name or "")
        try:
            if run is None or not context.may_train:
                raise ValueError("There is no run to go on with.")
            launcher_of(context.home).resume(run)
        except (ValueError, OSError) as error:
            return refused(error)
        return show_run(context, bench, name)

    def shoot(bench: Bench, name: str | None, text: str, seed: str, length: float) -> Iterator[list[Any]]:
        bench.stop, bench.busy = False, True
        working = [gr.Button(interactive=False), gr.Button(interactive=True)]
        try:
            yield [gr.skip(), render_status("busy", "Loading the first checkpoint …"), *working]
            for page, status in _shoot(context, bench, name, text, seed, length):
                yield [page, status, *working]
        except ValueError as error:
            yield [gr.skip(), render_status("trouble", str(error)), *working]
        finally:
            bench.busy = False

    def film_over() -> list[Any]:
        return [gr.Button(interactive=True), gr.Button(interactive=False)]

    def film_broke() -> list[Any]:
        message = "That went wrong; the page's log says why. What was written so far is under the slider."
        return [render_status("trouble", message), *film_over()]

    def stop_film(bench: Bench) -> None:
        bench.stop = True

    chosen.input(show, [bench, chosen], view, **quiet)
    again.click(show, [bench, chosen], view, **quiet)
    timer.tick(follow, [bench, chosen], view, **quiet)
    stop.click(end, [bench, chosen], view, **quiet)
    resume.click(go_on, [bench, chosen], view, **quiet)
    made = make.click(
        shoot,
        [bench, chosen, prompt, seed, length],
        [lapse, film_state, make, halt],
        concurrency_limit=None,
        show_progress="hidden",
        api_visibility="private",
    )
    made.success(film_over, None, [make, halt], **quiet)
    made.failure(film_broke, None, [film_state, make, halt], **quiet)
    halt.click(stop_film, bench, None, **quiet)
    started = build_start(context, is_open=shown["run"]["value"] is None)
    if started is not None:
        name, begun = started
        begun.success(show_started, [bench, name], view, **quiet)
    return []


def arrived(context: AppContext) -> list[Any]:
    """Nothing: what the tab shows are folders."""
    return []


def add_endpoint(context: AppContext) -> None:
    """No endpoint: a run is a matter of the one who sits at the machine."""


def show_run(context: AppContext, bench: Bench, name: str | None) -> list[Any]:
    """Everything that shows the run of that name (None: the first), as updates."""
    runs = known_runs(context)
    name = name or next(iter(runs), None)
    bench.name, bench.run = name, runs.get(name or "")
    if name is not None and bench.run is None:
        bench.version = -1
        gone = render(STATE, state="trouble", words=WORDS["gone"], facts=[name], share=None, lines=[])
        off, listed = gr.Button(visible=False), gr.Dropdown(choices=_choices(context, runs), value=None)
        return [listed, gr.skip(), gone, off, off, *[gr.skip()] * 3, gr.Timer(active=False)]
    bench.version = -1 if bench.run is None else _look(context, bench.run, at_once=True)[0].version
    return _as_updates(_describe(context, name, bench.films.get(name or "", [])))


def follow_run(context: AppContext, bench: Bench, name: str | None) -> list[Any]:
    """`show_run` where there is anything new, and nothing to send where there is not."""
    if bench.version == 0:
        return show_run(context, bench, None)
    still = name != bench.name  # the visitor has chosen another meanwhile
    if bench.run is not None and not still:
        still = _look(context, bench.run)[0].version == bench.version
    return [gr.skip()] * VIEW if still else show_run(context, bench, name)


def describe_view(
    view: RunView, *, home: Path, run: Path, last_words: str | None = None, stopping: bool = False
) -> str:
    """The line on a run: its status in words, step, time left, tokens, speed; below it what to do next."""
    facts = []
    if view.steps:
        facts.append(f"step {view.step:,} of {view.steps:,}")
    if view.seconds_left is not None:
        facts.append(f"{in_words(view.seconds_left)} left")
    elif view.seconds:
        facts.append(f"{in_words(view.seconds)} of training")
    if view.tokens_seen:
        facts.append(f"{short_number(view.tokens_seen)} tokens seen")
    if view.tokens_per_second and view.is_going:
        facts.append(f"{view.tokens_per_second:,.0f} tokens/s")
    if view.bits_per_byte is not None:
        floor = view.floor_bits_per_byte
        above = f", {view.bits_per_byte / floor - 1:.1%} above the floor" if floor else ""
        facts.append(f"{view.bits_per_byte:.3f} bits per byte{above}")
    if view.parameters:
        facts.append(f"{short_number(view.parameters)} parameters")
    lines = []
    called_off = stopping and view.status == "failed"
    if view.status == "failed" and not called_off:
        before = last_words or "The process ended before its first step; train.log in the folder may say why."
        lines.append({"kind": "warning", "before": before, "code": None})
    if view.status in ("finished", "stopped") and view.has_checkpoint:
        place = run.relative_to(home.resolve()) if run.is_relative_to(home.resolve()) else run
        lines.append(
            {"kind": "quiet", "before": "Open it: ", "code": f"python app.py --model {shlex.quote(str(place))}"}
        )
    state = "busy" if view.is_going else "trouble" if view.status in TROUBLE and not called_off else "idle"
    share = min(100, 100 * view.step // view.steps) if view.is_going and view.steps else None
    words = "Saving and stopping …" if stopping and view.is_going else WORDS[view.status]
    words = "Stopped before its first step" if called_off else words
    return render(STATE, state=state, words=words, facts=facts, share=share, lines=lines)


def _describe(context: AppContext, name: str | None, own: list[Film]) -> dict[str, Any]:
    """What the tab shows of a run, by component."""
    runs = known_runs(context)
    name = name or next(iter(runs), None)
    run = {"choices": _choices(context, runs), "value": name, "visible": bool(runs)}
    nothing: dict[str, Any] = {
        "run": run,
        "again": bool(runs),
        "state": render(NO_RUN, may_start=why_not(context) is None),
        "curves": "",
        "films": "",
        "active": False,
        "may_stop": False,
        "may_resume": False,
        "may_film": False,
    }
    if name is None:
        return nothing
    watched, view = _look(context, runs[name])
    launcher = launcher_of(context.home)
    samples, metrics = watched.samples.lines, watched.metrics.lines
    curves = render_curves(
        metrics,
        run=name,
        floor_bits_per_byte=view.floor_bits_per_byte,
        steps=view.steps if view.is_going else None,
        broken=watched.metrics.broken,
    )
    can_resume = view.status in ("stopped", "broken off", "failed") and (runs[name] / "recipe.json").is_file()
    return nothing | {
        "state": describe_view(
            view,
            home=context.home,
            run=runs[name],
            last_words=launcher.last_words(runs[name]),
            stopping=launcher.is_stopping(runs[name]),
        ),
        "curves": curves,
        "films": render_films([*own, *films_of(samples)], metrics, run=name),
        "active": view.is_going,
        "may_stop": view.is_going
        and context.may_train
        and launcher.since(runs[name]) is not None
        and not launcher.is_stopping(runs[name]),
        "may_resume": can_resume and context.may_train and why_not(context) is None,
        "may_film": view.has_checkpoint,
    }


def _as_updates(shown: dict[str, Any]) -> list[Any]:
    """`_describe` as updates of what `build` returned."""
    return [
        gr.Dropdown(**shown["run"]),
        gr.Button(visible=shown["again"]),
        shown["state"],
        gr.Button(visible=shown["may_stop"]),
        gr.Button(visible=shown["may_resume"]),
        shown["curves"],
        shown["films"],
        gr.Accordion(visible=shown["may_film"]),
        gr.Timer(active=shown["active"]),
    ]


def _choices(context: AppContext, runs: dict[str, Path]) -> list[tuple[str, str]]:
    """The runs as the list names them."""
    labels = []
    for name, run in runs.items():
        view = _look(context, run)[1]
        labels.append((f"{name} · {WORDS[view.status].partition(':')[0].partition(',')[0].lower()}", name))
    return labels


def _look(context: AppContext, run: Path, *, at_once: bool = False) -> tuple[Watch, RunView]:
    watched = watch(run)
    return watched, watched.look(since=launcher_of(context.home).since(run), at_once=at_once)


def _shoot(
    context: AppContext, bench: Bench, name: str | None, prompt: str, seed: str, length: float
) -> Iterator[tuple[Any, str]]:
    """Make a film of a prompt on the model's turn: the time-lapse and the status, frame by frame.

    Raises:
        ValueError: for a setting or a run that does not do, or a queue that is full.
    """
    run = known_runs(context).get(name or "")
    if run is None:
        raise ValueError("There is no run to write with.")
    settings = settings_from(seed=seed, max_new_tokens=length)
    drawn = random.SystemRandom().randrange(10**6) if settings.seed is None else settings.seed
    others = bench.films.get(name or "", [])
    watched, made, expected = watch(run), None, 0
    with context.queue.join() as ticket:
        for ahead in ticket.wait_for_turn(lambda: bench.stop):
            yield gr.skip(), render_status("busy", waiting_message(ahead))
        if bench.stop:
            return
        frames = film(run, prompt, seed=drawn, tokens=settings.max_new_tokens, should_stop=lambda: bench.stop)
        for made, expected in frames:
            bench.films[name or ""] = [made, *others][:OWN_FILMS]
            films = [*bench.films[name or ""], *films_of(watched.samples.lines)]
            page = render_films(films, watched.metrics.lines, run=name or "")
            yield page, render_status("busy", f"{len(made.frames)} of {expected} checkpoints …")
    count = 0 if made is None else len(made.frames)
    word = "Done" if made is not None and count == expected else "Stopped"
    yield gr.skip(), render_status("idle", f"{word}: {count} of {expected or '?'} checkpoints, seed {drawn}.")
