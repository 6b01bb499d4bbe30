"""The time-lapse of a run: what it writes after the same prompt with the same seed, as the training goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from modeling.loading import is_masked_lm
from modeling.sampling_settings import SamplingSettings
from panels import zerogpu
from panels.generate import TIME_LIMIT, generate
from panels.models import load_model
from panels.tabs.learn.curves import Point, read_points, spread
from panels.templates import render
from panels.training.monitor import integer
from storage.run_folder import RunFolder
from storage.text import replace_surrogates

MOST_FRAMES = 120
"""Frames of one prompt that are shown; of more, evenly spread ones."""
MOST_PROMPTS = 24
CUT = "cut short: time was up"
LONGEST_PROMPT = 20_000
"""Characters of a visitor's own prompt, which every checkpoint reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What the model of one step wrote after a prompt."""

    step: int
    text: str  # the prompt included, as far as it is part of the text
    trouble: str | None = None  # why there is no text
    is_cut: bool = False  # time was up before the text had its length


@dataclass(frozen=True, kw_only=True, slots=True)
class Timelapse:
    """The frames of one prompt, in the order of their steps."""

    prompt: str
    seed: int | None
    frames: tuple[Frame, ...]
    is_own: bool = False  # asked for on the page, not written by the training


def timelapses_of(samples: Iterable[dict[str, Any]]) -> list[Timelapse]:
    """The time-lapses in the records of samples.jsonl, in the order in which their prompts came first.

    Of several frames of the same step the last counts.
    """
    lapses: dict[str, dict[int, Frame]] = {}
    seeds: dict[str, int | None] = {}
    for record in samples:
        prompt, text, step = record.get("prompt"), record.get("text"), record["step"]
        if isinstance(prompt, str) and isinstance(text, str):
            seeds[prompt] = integer(record.get("seed"))
            lapses.setdefault(prompt, {})[step] = Frame(step=step, text=replace_surrogates(text))
    found = []
    for prompt, frames in list(lapses.items())[:MOST_PROMPTS]:
        ordered = tuple(frames[step] for step in sorted(frames))
        found.append(Timelapse(prompt=replace_surrogates(prompt), seed=seeds[prompt], frames=ordered))
    return found


def make_timelapse(
    run: RunFolder,
    prompt: str,
    *,
    seed: int,
    tokens: int,
    should_stop: Callable[[], bool],
    time_limit: float = TIME_LIMIT,
) -> Iterator[tuple[Timelapse, int]]:
    """Write a text with every checkpoint of a run, at temperature 1 as the training's own samples.

    Yields the time-lapse so far and how many frames it will have; a checkpoint that cannot be read gives a frame with
    the reason, and one that takes longer than `time_limit` seconds a text that is cut.
    ValueError: the prompt is too long, the run has no checkpoint, or its model is masked.
    """
    if len(prompt) > LONGEST_PROMPT:
        raise ValueError(
            f"Your prompt: expected at most {LONGEST_PROMPT:,} characters, since every checkpoint reads it again, "
            f"got {len(prompt):,}. Take its end."
        )
    prompt, checkpoints = replace_surrogates(prompt), run.checkpoints()
    if not checkpoints:
        raise ValueError(f"The run {run.path.name} has kept no checkpoint yet. Let it train until its first one.")
    if is_masked_lm(next(iter(checkpoints.values()))):
        raise ValueError(f"The run {run.path.name} trains a model that fills blanks and does not write.")
    settings = SamplingSettings(max_new_tokens=tokens, seed=seed)
    frames: list[Frame] = []
    for step, folder in checkpoints.items():
        if should_stop():
            return
        try:
            loaded = load_model(folder, device="cpu" if zerogpu.is_here() else None)
            text, ending = prompt, None
            for draft in generate(loaded, prompt, settings, time_limit=time_limit, should_stop=should_stop):
                text, ending = draft.text, draft.ending
            if ending == "stopped":
                return
            frames.append(Frame(step=step, text=text, is_cut=ending == "deadline"))
        except (ValueError, OSError) as error:
            frames.append(Frame(step=step, text="", trouble=f"This checkpoint could not be read: {error}"))
        yield Timelapse(prompt=prompt, seed=seed, frames=tuple(frames), is_own=True), len(checkpoints)


def render_timelapses(lapses: Iterable[Timelapse], metrics: Iterable[dict[str, Any]], *, run: str = "") -> str:
    """The time-lapse, all of it as data, so that the slider moves without a request; "" where there is no frame."""
    lapses = [lapse for lapse in lapses if lapse.frames]
    if not lapses:
        return ""
    points = read_points(metrics)
    data = [
        {
            "prompt": lapse.prompt,
            "seed": lapse.seed,
            "own": lapse.is_own,
            "frames": [
                [frame.step, _note(points, frame), frame.text, frame.trouble]
                for frame in spread(lapse.frames, MOST_FRAMES)
            ],
        }
        for lapse in lapses
    ]
    return render(TIMELAPSE, run=run, lapses=json.dumps(data), labels=map(_label, lapses))


def _note(points: list[Point], frame: Frame) -> str:
    """What stands beside the step of a frame."""
    return " · ".join(filter(None, (describe_loss(points, frame.step), CUT if frame.is_cut else "")))


def describe_loss(points: list[Point], step: int) -> str:
    """How good the model was at a step, in words: the loss of the nearest record, with its step where that is another;
    "" where none is known."""
    known = [point for point in points if point.validation_loss is not None or point.train_loss is not None]
    if not known:
        return ""
    nearest = min(known, key=lambda point: abs(point.step - step))
    is_evaluated = nearest.validation_loss is not None
    name, loss = ("validation", nearest.validation_loss) if is_evaluated else ("training", nearest.train_loss)
    found = f"{name} loss {loss:.4g}" + (f" at step {nearest.step:,}" if nearest.step != step else "")
    return found if nearest.bits_per_byte is None else f"{found}, {nearest.bits_per_byte:.4g} bits per byte"


def _label(lapse: Timelapse) -> str:
    prompt = " ".join(lapse.prompt.split())
    prompt = f"{prompt[:60]} …" if len(prompt) > 60 else prompt or "(empty: the model begins)"
    return f"{prompt} · yours, seed {lapse.seed}" if lapse.is_own else prompt


TIMELAPSE = """
<section class="timelapse" aria-label="Time-lapse" data-run="{{ run }}" data-timelapses="{{ lapses }}">
  <h2>Time-lapse</h2>
  <p class="what">The same prompt and the same seed, while the model learns: move the slider from its first steps to its
    last.</p>
  <label class="choose"><span>Prompt</span>
    <select>{% for label in labels %}<option value="{{ loop.index0 }}">{{ label }}</option>{% endfor %}</select>
  </label>
  <div class="controls">
    <button type="button" class="play" aria-label="Play the time-lapse">Play</button>
    <input type="range" min="0" step="1" aria-label="Steps of the training">
  </div>
  <p class="position" role="status" aria-live="off"></p>
  <p class="text"><b></b><span></span></p>
</section>
"""
