"""The form that starts a run on a visitor's own text."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from corpus.encodings import FLAG
from corpus.readers import accepted_suffixes
from corpus.readers.records import FIELD_FLAG
from panels.components.events import DIRECT
from panels.components.status import render_status
from panels.context import AppContext
from panels.formats import file_size, rough_duration, short_number
from panels.tabs.learn.estimate import (
    LEAST_MINUTES,
    LEAST_STEPS,
    MOST_MINUTES,
    MOST_STEPS,
    SIZES,
    RunPlan,
    Speed,
    TimedPlan,
    measured_speed,
    size_named,
)
from panels.tabs.learn.upload import read_text
from panels.templates import render
from panels.training.launcher import launcher_of
from panels.training.monitor import known_runs

NOT_ALLOWED = (
    "Training is switched off on this public page, since its visitors share one processor. In a copy of your own, a "
    "run on a text of yours can be started here."
)
AUTOMATIC, TIMED = "automatic", "time"
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


def build_form(context: AppContext, *, is_open: bool, active: gr.Checkbox) -> tuple[gr.State, Any] | None:
    """Lay out the form and wire it, or show why there is none. When the run that is shown is no longer `active`, the
    form shows the plan again in place of what it said of that run. Returns the name of the run that was started, and
    the event after which it is known; None: no run can be started."""
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
        choices.append(("the best for a time", TIMED))
        with gr.Row(elem_id="start-options"):
            hint = "from the file, or the date"
            title = gr.Textbox(label="Name", placeholder=hint, max_lines=1, elem_id="start-title", min_width=160)
            size = gr.Radio(choices, value=first.name, label="Size", elem_id="start-size", scale=2, min_width=260)
            steps = gr.Slider(
                LEAST_STEPS, MOST_STEPS, first.steps, step=10, label="Steps", elem_id="start-steps", min_width=200
            )
            minutes = gr.Slider(
                LEAST_MINUTES, MOST_MINUTES, 10, step=1, label="Minutes", elem_id="start-minutes", min_width=200,
                visible=False,
            )  # fmt: skip
        plan = gr.HTML(render_status("idle", EMPTY), elem_id="start-plan")
        start = gr.Button("Start training", variant="primary", elem_id="start-run")
    name = gr.State(None)

    def begin(
        text: str,
        upload: str | None,
        encoding: str,
        column: str,
        size_name: str,
        steps: float,
        minutes: float,
        title: str,
    ) -> tuple[Any, Any]:
        try:
            title = title or (Path(upload).stem if upload else "")
            text, _ = read_text(text, upload, encoding=codec_of(encoding), text_field=column)
            plan = plan_of(text, size_name, as_integer(steps), as_integer(minutes))
            run = launcher_of(context.home).start(text, title=title, flags=plan.arguments())
        except (ValueError, OSError) as error:
            return None, render_status("trouble", str(error))
        return run.path.name, render_status("idle", f"{run.path.name} was started: its curves are above.")

    inputs, estimate = [text, upload, encoding, column, size, steps, minutes], partial(describe_plan, context)
    for change in (text.change, upload.change, encoding.input, column.change, size.input, steps.input, minutes.input):
        change(estimate, inputs, plan, trigger_mode="always_last", **DIRECT)
    upload.change(lambda upload: gr.Row(visible=upload is not None), upload, reading, **DIRECT)
    size.input(steps_of, size, [steps, minutes], **DIRECT).then(estimate, inputs, plan, **DIRECT)
    active.change(lambda active, *given: gr.skip() if active else estimate(*given), [active, *inputs], plan, **DIRECT)
    begun = start.click(begin, [*inputs, title], [name, plan], **DIRECT)
    return name, begun


def unavailable(context: AppContext) -> str | None:
    """Why no run can be started from this page; None: it can."""
    return launcher_of(context.home).unavailable if context.may_train else NOT_ALLOWED


def steps_of(name: Any) -> tuple[Any, Any]:
    """The sliders of steps and of minutes for a size: its own steps, or the minutes instead. What is no size changes
    nothing, and `describe_plan` says so."""
    if name == TIMED:
        return gr.update(visible=False), gr.update(visible=True)
    try:
        return gr.update(value=size_named(name).steps, visible=True), gr.update(visible=False)
    except ValueError:
        return gr.skip(), gr.skip()


def plan_of(
    text: str, size_name: str, steps: Any, minutes: Any, speed_of: Callable[[float], Speed | None] = lambda flops: None
) -> RunPlan | TimedPlan:
    """The plan of a run; ValueError for what does not fit.

    Args:
        speed_of: from a model's floating-point operations a token to the speed that is known for about such a one.
    """
    if size_name == TIMED:
        return TimedPlan.of(text=text, minutes=minutes, speed=speed_of(SIZES["small"].flops()))
    size = size_named(size_name)
    return RunPlan.of(text_bytes=len(text.encode()), size=size, steps=steps, speed=speed_of(size.flops()))


def as_integer(value: Any) -> Any:
    """A slider's value as an integer, if it is one; else as it is, for `RunPlan` to refuse."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def codec_of(encoding: str | None) -> str | None:
    """The encoding that was chosen or typed; None for the automatic choice."""
    chosen = (encoding or "").strip()
    return None if chosen in ("", AUTOMATIC) else chosen


def describe_plan(
    context: AppContext,
    text: str,
    upload: str | None,
    encoding: str,
    column: str,
    size_name: str,
    steps: float,
    minutes: float,
) -> str:
    """What a run would be: parameters, tokens, time, disk space; how the file was read; or what is wrong with it."""
    if upload is None and not (text or "").strip():
        return render_status("idle", EMPTY)

    def speed_of(flops: float) -> Speed:
        return measured_speed(known_runs(context).values(), flops)

    try:
        text, notes = read_text(text, upload, encoding=codec_of(encoding), text_field=column)
        notes = [note.replace(f"name the encoding ({FLAG})", "choose the encoding above") for note in notes]
        plan = plan_of(text, size_name, as_integer(steps), as_integer(minutes), speed_of)
    except ValueError as error:
        return render_status(
            "trouble", str(error).replace(FLAG, "the field Encoding").replace(FIELD_FLAG, "the field Text field")
        )
    if isinstance(plan, TimedPlan):
        return render(PLAN, notes=notes, **describe_timed(plan))
    facts = [
        ("Time", f"about {rough_duration(plan.seconds)}"),
        ("Parameters", f"{plan.parameters:,}"),
        ("Text", f"{file_size(plan.text_bytes)}, about {short_number(plan.text_tokens)} tokens"),
        ("Read", f"{short_number(plan.seen_tokens)} tokens: {often(plan.passes)}"),
        ("On disk", f"about {file_size(plan.disk_bytes)}"),
    ]
    tokens = f"English prose at {plan.size.bytes_per_token} bytes each; counted when it runs."
    source = f"Time: {plan.speed.source}. Tokens: {tokens}"
    return render(PLAN, facts=facts, notes=notes, source=source, warning=plan.warning)


def describe_timed(plan: TimedPlan) -> dict[str, Any]:
    """What the form shows of a run of so many minutes."""
    choice = plan.choice
    shape = f"{choice.shape.layers} layers, {choice.shape.width} wide, {choice.vocabulary:,} tokens in the vocabulary"
    facts = [
        ("Time", f"at most {plan.minutes} min"),
        ("Parameters", f"about {short_number(plan.parameters)}: {shape}"),
        ("Text", file_size(plan.text_bytes)),
        ("Read", f"{choice.steps:,} steps: {often(choice.passes)}"),
        ("Expected", f"about {choice.bits_per_byte:.2f} bits per byte of held-out text"),
    ]
    source = (
        f"Speed: {plan.speed.source}. The run measures this machine for a few seconds first and chooses by that, so it "
        "may take another size. Expected: by a law fitted on English books, and by how well this text compresses."
    )
    return {"facts": facts, "source": source, "warning": None}


def often(passes: float) -> str:
    """How much of the text is read."""
    return f"the text {passes:,.0f} times" if passes >= 1.5 else f"{min(1, passes):.0%} of the text"
