"""The form that starts a run on a text of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from panels.components.status import render_status
from panels.context import AppContext
from panels.formats import short_number
from panels.tabs.learn.estimate import (
    LEAST_STEPS,
    MOST_STEPS,
    SIZES,
    RunPlan,
    measured_speed,
    size_named,
    size_of_text,
)
from panels.tabs.learn.jobs import launcher_of, read_text, why_not_here
from panels.tabs.learn.monitor import known_runs
from panels.templates import render

NOT_FOR_STRANGERS = (
    "Training is switched off on this public page, since its visitors share one processor. In a copy of your own, a "
    "run on a text of yours can be started here."
)
EMPTY = "Paste a text or choose a file: what the run would be is shown here before it starts."

PLAN = """
<div class="plan" role="status">
  <dl>{% for name, value in facts %}<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>{% endfor %}</dl>
  <p class="quiet">{{ source }}</p>
  {% if warning %}<p class="warning">{{ warning }}</p>{% endif %}
</div>
"""


def build_start(context: AppContext, *, is_open: bool) -> tuple[gr.State, Any] | None:
    """Lay out the form and wire it, or say why there is none. Returns the name of the run that was started, and the
    event after which it is known; None: no run can be started."""
    reason = why_not(context)
    with gr.Accordion("Train on a text of your own", open=is_open, elem_id="start"):
        if reason is not None:
            gr.HTML(render("<p class='none'>{{ reason }}</p>", reason=reason), elem_id="start-reason")
            return None
        with gr.Row(elem_id="start-text-row"):
            text = gr.Textbox(
                label="Text",
                placeholder="Paste a story, your letters, a book …",
                lines=8,
                max_lines=8,
                elem_id="start-text",
                scale=3,
                min_width=260,
            )
            upload = gr.File(
                label="or a text file",
                file_types=[".txt", ".md"],
                elem_id="start-file",
                scale=1,
                min_width=200,
                height=190,
            )
        with gr.Row(elem_id="start-options"):
            title = gr.Textbox(
                label="Name",
                placeholder="from the file, or the date",
                max_lines=1,
                elem_id="start-title",
                min_width=160,
            )
            choices = [(f"{size.name} ({size.about})", size.name) for size in SIZES]
            size = gr.Radio(choices, value=SIZES[0].name, label="Size", elem_id="start-size", scale=2, min_width=260)
            steps = gr.Slider(
                LEAST_STEPS,
                MOST_STEPS,
                value=SIZES[0].steps,
                step=10,
                label="Steps",
                elem_id="start-steps",
                min_width=200,
            )
        plan = gr.HTML(render_status("idle", EMPTY), elem_id="start-plan")
        start = gr.Button("Start training", variant="primary", elem_id="start-run")
    name = gr.State(None)
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def foresee(text: str, upload: str | None, size_name: str, steps: float) -> str:
        return describe_plan(context, text, upload, size_name, steps)

    def begin(text: str, upload: str | None, title: str, size_name: str, steps: float) -> tuple[Any, Any]:
        try:
            size, named = size_named(size_name), title or (Path(upload).stem if upload else "")
            run = launcher_of(context.home).start(
                read_text(text, upload), title=named, size=size, steps=whole_steps(steps)
            )
        except (ValueError, OSError) as error:
            return None, render_status("trouble", str(error))
        return run.name, render_status("busy", f"{run.name} is going: its curves are above.")

    inputs = [text, upload, size, steps]
    for change in (text.change, upload.change, size.input, steps.input):
        change(foresee, inputs, plan, trigger_mode="always_last", **quiet)
    size.input(lambda name: size_named(name).steps, size, steps, **quiet).then(foresee, inputs, plan, **quiet)
    begun = start.click(begin, [text, upload, title, size, steps], [name, plan], **quiet)
    return name, begun


def why_not(context: AppContext) -> str | None:
    """Why no run can be started from this page; None: it can."""
    return why_not_here() if context.may_train else NOT_FOR_STRANGERS


def whole_steps(value: Any) -> Any:
    """What the slider says as a whole number, if it is one; else as it is, for `RunPlan` to refuse."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def describe_plan(context: AppContext, text: str, upload: str | None, size_name: str, steps: float) -> str:
    """What a run would be: parameters, tokens, time, room; or what is wrong with it."""
    if upload is None and not (text or "").strip():
        return render_status("idle", EMPTY)
    try:
        size = size_named(size_name)
        count = len(read_text(text, upload).encode())
        speed = measured_speed(known_runs(context).values(), size)
        plan = RunPlan.of(text_bytes=count, size=size, steps=whole_steps(steps), speed=speed)
    except ValueError as error:
        return render_status("trouble", str(error))
    facts = [
        ("Time", f"about {in_words(plan.seconds)}"),
        ("Parameters", f"{plan.parameters:,}"),
        ("Text", f"{size_of_text(plan.text_bytes)}, about {short_number(plan.text_tokens)} tokens"),
        ("Read", f"{short_number(plan.seen_tokens)} tokens: {_times(plan.passes)}"),
        ("On disk", f"about {size_of_text(plan.disk_bytes)}"),
    ]
    source = (
        f"Time: {plan.speed.source}. Tokens: English prose at {size.bytes_per_token} bytes each; counted when it runs."
    )
    return render(PLAN, facts=facts, source=source, warning=plan.warning)


def in_words(seconds: float) -> str:
    """A time, short: 45 s, 3 min, 1 h 20 min."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _times(passes: float) -> str:
    return f"the text {passes:,.0f} times" if passes >= 1.5 else f"{min(1.0, passes):.0%} of the text"
