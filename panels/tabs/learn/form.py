"""The form that starts a run on a visitor's own text."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from corpus.readers import accepted_suffixes
from panels.components.status import render_status
from panels.context import AppContext
from panels.formats import duration, file_size, short_number
from panels.tabs.learn.estimate import LEAST_STEPS, MOST_STEPS, SIZES, RunPlan, measured_speed, size_named
from panels.tabs.learn.jobs import launcher_of, read_text
from panels.tabs.learn.monitor import known_runs
from panels.templates import render

NOT_ALLOWED = (
    "Training is switched off on this public page, since its visitors share one processor. In a copy of your own, a "
    "run on a text of yours can be started here."
)
AUTOMATIC = "automatic"
ENCODINGS = (AUTOMATIC, "utf-8", "cp1252", "cp1251", "koi8-r", "gbk", "big5", "shift_jis", "euc-kr", "utf-16")
"""Encodings of a file to choose from; any other that Python knows may be typed."""
EMPTY = "Paste a text or choose a file: what the run would cost is shown here before it starts."

PLAN = """
<div class="plan" role="status">
  <dl>{% for name, value in facts %}<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>{% endfor %}</dl>
  {% for note in notes %}<p class="note">{{ note }}</p>{% endfor %}
  <p class="quiet">{{ source }}</p>
  {% if warning %}<p class="warning">{{ warning }}</p>{% endif %}
</div>
"""


def build_form(context: AppContext, *, is_open: bool, stopped: Any) -> tuple[gr.State, Any] | None:
    """Lay out the form and wire it, or show why there is none; after the event `stopped` it shows the plan again.
    Returns the name of the run that was started, and the event after which it is known; None: no run can be started.
    """
    reason = unavailable(context)
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
                label="or a file", file_types=[*accepted_suffixes()], elem_id="start-file", min_width=200, height=190
            )
        with gr.Row(visible=False, elem_id="start-reading") as reading:
            encoding = gr.Dropdown(
                ENCODINGS,
                label="Encoding",
                info="Of a text file that is not UTF-8. Choose the right one where the first words are garbled.",
                allow_custom_value=True,
                elem_id="start-encoding",
            )
            column = gr.Textbox(
                "text",
                label="Text field",
                info="Of JSON records, or the column of a table, that holds the text.",
                max_lines=1,
                elem_id="start-field",
            )
        first = next(iter(SIZES.values()))
        choices = [(f"{size.name} ({size.about})", size.name) for size in SIZES.values()]
        with gr.Row(elem_id="start-options"):
            hint = "from the file, or the date"
            title = gr.Textbox(label="Name", placeholder=hint, max_lines=1, elem_id="start-title", min_width=160)
            size = gr.Radio(choices, value=first.name, label="Size", elem_id="start-size", scale=2, min_width=260)
            steps = gr.Slider(
                LEAST_STEPS, MOST_STEPS, first.steps, step=10, label="Steps", elem_id="start-steps", min_width=200
            )
        plan = gr.HTML(render_status("idle", EMPTY), elem_id="start-plan")
        start = gr.Button("Start training", variant="primary", elem_id="start-run")
    name = gr.State(None)
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def begin(
        text: str, upload: str | None, encoding: str, column: str, size_name: str, steps: float, title: str
    ) -> tuple[Any, Any]:
        try:
            size, title = size_named(size_name), title or (Path(upload).stem if upload else "")
            text, _ = read_text(text, upload, encoding=codec_of(encoding), text_field=column)
            run = launcher_of(context.home).start(text, title=title, size=size, steps=as_integer(steps))
        except (ValueError, OSError) as error:
            return None, render_status("trouble", str(error))
        return run.path.name, render_status("idle", f"{run.path.name} was started: its curves are above.")

    inputs, estimate = [text, upload, encoding, column, size, steps], partial(describe_plan, context)
    for change in (text.change, upload.change, encoding.input, column.change, size.input, steps.input):
        change(estimate, inputs, plan, trigger_mode="always_last", **quiet)
    upload.change(lambda upload: gr.Row(visible=upload is not None), upload, reading, **quiet)
    size.input(lambda name: size_named(name).steps, size, steps, **quiet).then(estimate, inputs, plan, **quiet)
    stopped.then(estimate, inputs, plan, **quiet)
    begun = start.click(begin, [*inputs, title], [name, plan], **quiet)
    return name, begun


def unavailable(context: AppContext) -> str | None:
    """Why no run can be started from this page; None: it can."""
    return launcher_of(context.home).unavailable if context.may_train else NOT_ALLOWED


def as_integer(value: Any) -> Any:
    """A slider's value as an integer, if it is one; else as it is, for `RunPlan` to refuse."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def codec_of(encoding: str | None) -> str | None:
    """The encoding that was chosen or typed; None for the automatic choice."""
    chosen = (encoding or "").strip()
    return None if chosen in ("", AUTOMATIC) else chosen


def describe_plan(
    context: AppContext, text: str, upload: str | None, encoding: str, column: str, size_name: str, steps: float
) -> str:
    """What a run would be: parameters, tokens, time, disk space; how the file was read; or what is wrong with it."""
    if upload is None and not (text or "").strip():
        return render_status("idle", EMPTY)
    try:
        size = size_named(size_name)
        text, notes = read_text(text, upload, encoding=codec_of(encoding), text_field=column)
        count = len(text.encode())
        speed = measured_speed(known_runs(context).values(), size)
        plan = RunPlan.of(text_bytes=count, size=size, steps=as_integer(steps), speed=speed)
    except ValueError as error:
        return render_status("trouble", str(error))
    passes = f"the text {plan.passes:,.0f} times" if plan.passes >= 1.5 else f"{min(1, plan.passes):.0%} of the text"
    facts = [
        ("Time", f"about {rough_duration(plan.seconds)}"),
        ("Parameters", f"{plan.parameters:,}"),
        ("Text", f"{file_size(plan.text_bytes)}, about {short_number(plan.text_tokens)} tokens"),
        ("Read", f"{short_number(plan.seen_tokens)} tokens: {passes}"),
        ("On disk", f"about {file_size(plan.disk_bytes)}"),
    ]
    source = (
        f"Time: {plan.speed.source}. Tokens: English prose at {size.bytes_per_token} bytes each; counted when it runs."
    )
    return render(PLAN, facts=facts, notes=notes, source=source, warning=plan.warning)


def rough_duration(seconds: float) -> str:
    """An estimate: 45 s, 3 min, 1 h 20 min."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else duration(60 * round(seconds / 60))
