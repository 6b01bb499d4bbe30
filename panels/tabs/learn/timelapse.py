"""The time-lapse of a run: the same prompt and seed at one checkpoint after the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panels import zerogpu
from panels.generate import generate
from panels.tabs.learn.curves import Point, read_points
from panels.tabs.learn.monitor import kept_checkpoints, whole
from panels.templates import render
from storage.text import replace_surrogates

MOST_FRAMES = 120
"""Frames of one prompt; of more, evenly spread ones are shown."""
MOST_PROMPTS = 24
LONGEST_PROMPT = 20_000
"""Characters of a prompt of the user's own: it is read anew by every checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What the model of one step made of a prompt."""

    step: int
    text: str  # the prompt included, as far as it is part of the text
    trouble: str | None = None  # why there is no text


@dataclass(frozen=True, kw_only=True, slots=True)
class Film:
    """The frames of one prompt, in the order of their steps."""

    prompt: str
    seed: int | None
    frames: tuple[Frame, ...]
    is_own: bool = False  # asked for on the page, not written by the training


def films_of(samples: Iterable[dict[str, Any]]) -> list[Film]:
    """The films in the lines of samples.jsonl, in the order in which their prompts came first. Of several frames of
    the same step the last counts."""
    films: dict[str, dict[int, Frame]] = {}
    seeds: dict[str, int | None] = {}
    for line in samples:
        prompt, text = line.get("prompt"), line.get("text")
        if isinstance(prompt, str) and isinstance(text, str):
            seeds[prompt] = whole(line.get("seed"))
            films.setdefault(prompt, {})[line["step"]] = Frame(step=line["step"], text=replace_surrogates(text))
    return [
        Film(
            prompt=replace_surrogates(prompt), seed=seeds[prompt], frames=tuple(frames[step] for step in sorted(frames))
        )
        for prompt, frames in list(films.items())[:MOST_PROMPTS]
    ]


def check_prompt(prompt: str) -> str:
    """A prompt of the user's own, as it can be written with.

    Raises:
        ValueError: it is too long.
    """
    if len(prompt) > LONGEST_PROMPT:
        raise ValueError(
            f"Your prompt: expected at most {LONGEST_PROMPT:,} characters, since every checkpoint reads it anew, "
            f"got {len(prompt):,}. Take its end."
        )
    return replace_surrogates(prompt)


def film(
    run: Path, prompt: str, *, seed: int, tokens: int, should_stop: Callable[[], bool]
) -> Iterator[tuple[Film, int]]:
    """Write `prompt` with every checkpoint that the run has kept, loading one after the other; yields the film so far
    and how many frames it will have.

    At temperature 1, as the training's own samples. A checkpoint that cannot be read, or is deleted meanwhile, gives a
    frame that says so.

    Raises:
        ValueError: the run has no checkpoint, or its model fills blanks.
    """
    from modeling.generation import SamplingSettings
    from modeling.loading import is_masked_lm
    from panels.models import load_model

    prompt, found = check_prompt(prompt), kept_checkpoints(run)
    if not found:
        raise ValueError(f"The run {run.name} has kept no checkpoint yet. Let it train until its first one.")
    if is_masked_lm(next(iter(found.values()))):
        raise ValueError(f"The run {run.name} trains a model that fills blanks and does not write.")
    settings = SamplingSettings(max_new_tokens=tokens, seed=seed)
    frames: list[Frame] = []
    for step, folder in found.items():
        if should_stop():
            return
        try:
            loaded = load_model(folder, device="cpu" if zerogpu.is_here() else None)
            text = prompt
            for draft in generate(loaded, prompt, settings, should_stop=should_stop):
                text = draft.text
                if draft.ending == "stopped":
                    return
            frames.append(Frame(step=step, text=text))
        except (ValueError, OSError) as error:
            frames.append(Frame(step=step, text="", trouble=f"This checkpoint could not be read: {error}"))
        yield Film(prompt=prompt, seed=seed, frames=tuple(frames), is_own=True), len(found)


def render_films(films: Iterable[Film], metrics: Iterable[dict[str, Any]], *, run: str = "") -> str:
    """The time-lapse: everything goes to the page at once, the slider moves without a request; empty text where there
    is no frame."""
    films = [film for film in films if film.frames]
    if not films:
        return ""
    points = {point.step: point for point in read_points(metrics)}
    shown = [
        {
            "prompt": film.prompt,
            "seed": film.seed,
            "own": film.is_own,
            "frames": [_row(frame, points.get(frame.step)) for frame in _spread(film.frames)],
        }
        for film in films
    ]
    labels = [_label(film) for film in films]
    return render(LAPSE, run=run, films=json.dumps(shown), labels=labels)


def _row(frame: Frame, point: Point | None) -> list[Any]:
    """Step, validation loss, bits per byte, text, trouble."""
    loss, bits = (point.validation_loss, point.bits_per_byte) if point else (None, None)
    return [frame.step, loss, bits, frame.text, frame.trouble]


def _label(film: Film) -> str:
    prompt = " ".join(film.prompt.split())
    prompt = f"{prompt[:60]} …" if len(prompt) > 60 else prompt or "(empty: the model begins)"
    return f"{prompt} · yours, seed {film.seed}" if film.is_own else prompt


def _spread(frames: tuple[Frame, ...]) -> list[Frame]:
    if len(frames) <= MOST_FRAMES:
        return list(frames)
    return [frames[round(index * (len(frames) - 1) / (MOST_FRAMES - 1))] for index in range(MOST_FRAMES)]


LAPSE = """
<section class="lapse" aria-label="Time-lapse" data-run="{{ run }}" data-films="{{ films }}">
  <h3>Time-lapse</h3>
  <p class="what">The same prompt and the same seed at one checkpoint after the other.</p>
  <label class="choose"><span>Prompt</span>
    <select>{% for label in labels %}<option value="{{ loop.index0 }}">{{ label }}</option>{% endfor %}</select>
  </label>
  <div class="reel">
    <button type="button" class="play" aria-label="Play the time-lapse">Play</button>
    <input type="range" min="0" step="1" aria-label="Checkpoint">
  </div>
  <p class="where" role="status" aria-live="off"></p>
  <p class="sheet"><b></b><span></span></p>
</section>
"""
