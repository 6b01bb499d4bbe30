"""What a run from the page would cost, before it is started: its parameters, tokens, time and disk space."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from corpus.short_texts import MANY_PASSES, least_tokens, passes
from modeling.scaling.choice import BATCH, LEAST_BYTES, Choice, Text, choose
from modeling.scaling.law import LAW, sample_of
from modeling.scaling.shapes import CONTEXT, Shape
from panels.formats import file_size
from panels.training.monitor import monitor_of
from storage.run_folder import RunFolder

if TYPE_CHECKING:
    from modeling import ScratchGPTConfig

ASSUMED_FLOPS = 25e9
"""Floating-point operations a second and core, where no run here has measured them: a third of what a core can do."""
STEP_OVERHEAD = 0.02
"""Seconds of a step, however small the model."""
START_SECONDS = 12.0
"""Seconds until the first step: libraries, tokenizer, tokens."""
LEAST_STEPS, MOST_STEPS = 10, 5000
LEAST_MINUTES, MOST_MINUTES = 1, 120
CHECKPOINTS = 7
"""Of a run of so many minutes, all kept: the frames of the time-lapse."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A model size to choose from: what it changes of the recipe `modern`."""

    name: str
    about: str  # its parameters in a few words
    width: int
    layers: int
    heads: int
    context: int  # tokens
    vocabulary: int  # tokens
    steps: int  # to begin with
    checkpoints: int  # over the run, all kept: the frames of the time-lapse
    bytes_per_token: float  # of English prose with such a vocabulary, measured
    batch: int = 16  # windows of a step

    @property
    def shape(self) -> Shape:
        """The sizes of the model, vocabulary and context apart."""
        return Shape(width=self.width, layers=self.layers, heads=self.heads)

    def config(self) -> ScratchGPTConfig:
        return self.shape.config(self.vocabulary, self.context)

    def flops(self) -> float:
        """Floating-point operations to train on one token."""
        return self.shape.flops(self.vocabulary, self.context)

    def arguments(self, steps: int) -> list[str]:
        """The flags of `python -m train modern` for this size and so many steps."""
        interval = max(1, steps // self.checkpoints)
        flags = {
            "steps": steps,
            **{f"model.{name.replace('_', '-')}": value for name, value in self.shape.fields.items()},
            "model.max-position-embeddings": self.context,
            "tokenizer.vocab-size": self.vocabulary,
            "data.batch-size": self.batch,
            "data.evaluation-windows": 64,
            "schedule.warmup-steps": min(30, max(1, steps // 10)),
            "run.evaluate-every": interval,
            "run.checkpoint-every": interval,
            "run.keep-checkpoints": self.checkpoints + 1,
            "run.log-every": max(1, steps // 100),
            "run.sample-tokens": min(120, self.context),
        }
        return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


SIZES = {
    size.name: size
    for size in (
        Size(
            name="tiny", about="0.13 M", width=64, layers=2, heads=2, context=64, vocabulary=512,
            steps=300, checkpoints=10, bytes_per_token=2.1,
        ),
        Size(
            name="small", about="1.1 M", width=128, layers=4, heads=2, context=128, vocabulary=2048,
            steps=600, checkpoints=10, bytes_per_token=3.3,
        ),
        Size(
            name="medium", about="5.9 M", width=256, layers=6, heads=4, context=256, vocabulary=4096,
            steps=500, checkpoints=6, bytes_per_token=3.7,
        ),
    )
}  # fmt: skip


class Speed(NamedTuple):
    """How fast this machine trains."""

    flops: float  # floating-point operations a second
    source: str  # where the figure comes from, for display


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """A run before it is started."""

    size: Size
    steps: int
    parameters: int
    text_bytes: int
    text_tokens: int  # estimated: the tokenizer is trained on the text when the run begins
    seen_tokens: int  # of all steps
    seconds: float  # estimated
    disk_bytes: int  # of the checkpoints
    speed: Speed

    @classmethod
    def of(cls, *, text_bytes: int, size: Size, steps: int, speed: Speed | None = None) -> RunPlan:
        """Plan a run; ValueError where the text is too short for the size's context, or steps is outside its range."""
        if type(steps) is not int or not LEAST_STEPS <= steps <= MOST_STEPS:
            raise ValueError(f"Steps: expected a whole number from {LEAST_STEPS} to {MOST_STEPS:,}, got {steps}.")
        needed = least_bytes(size)
        if text_bytes < needed:
            raise ValueError(
                f"The text is too short for the size {size.name}: expected at least {needed:,} bytes, got "
                f"{text_bytes:,}. Add text{'' if size.name == next(iter(SIZES)) else ', or choose a smaller size'}."
            )
        from modeling.sizing import count_parameters

        config, speed = size.config(), speed or assumed_speed()
        parameters, step_tokens = count_parameters(config), size.batch * size.context
        step_seconds = STEP_OVERHEAD + step_tokens * size.flops() / speed.flops
        return cls(
            size=size,
            steps=steps,
            parameters=parameters,
            text_bytes=text_bytes,
            text_tokens=round(text_bytes / size.bytes_per_token),
            seen_tokens=steps * step_tokens,
            seconds=START_SECONDS + steps * step_seconds,
            disk_bytes=(size.checkpoints + 2) * 10 * parameters,
            speed=speed,
        )

    def arguments(self) -> list[str]:
        """The flags of `python -m train modern`."""
        return self.size.arguments(self.steps)

    @property
    def passes(self) -> float:
        """How often the steps read the text."""
        return passes(self.seen_tokens, self.text_tokens)

    @property
    def warning(self) -> str | None:
        """What to know before such a run is started."""
        if self.passes <= MANY_PASSES:
            return None
        enough = self.seen_tokens * self.size.bytes_per_token / MANY_PASSES
        return (
            f"The text is short: it will be read {self.passes:,.0f} times, and the model will learn it by heart. "
            f"Expected for so many steps: {file_size(enough)} or more; got {file_size(self.text_bytes)}. "
            "Add text, or take fewer steps or a smaller size."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedPlan:
    """A run of so many minutes (`--minutes`), before it is started. It measures the machine then, and may choose
    another model."""

    minutes: int
    choice: Choice
    parameters: int
    text_bytes: int
    speed: Speed

    @classmethod
    def of(cls, *, text: str, minutes: int, speed: Speed | None = None) -> TimedPlan:
        """Plan a run; ValueError where the text is too short for a plan, or minutes is outside its range."""
        if type(minutes) is not int or not LEAST_MINUTES <= minutes <= MOST_MINUTES:
            raise ValueError(
                f"Minutes: expected a whole number from {LEAST_MINUTES} to {MOST_MINUTES:,}, got {minutes}."
            )
        encoded = text.encode()
        if len(encoded) < LEAST_BYTES:
            raise ValueError(
                f"The text is too short for a plan: expected at least {LEAST_BYTES:,} bytes, got {len(encoded):,}. Add "
                f"text, or choose the size {next(iter(SIZES))}."
            )
        speed = speed or assumed_speed()
        choice = choose(
            max(1.0, 60 * minutes - START_SECONDS),
            lambda shape, vocabulary: STEP_OVERHEAD + BATCH * CONTEXT * shape.flops(vocabulary) / speed.flops,
            Text(bytes=len(encoded), difficulty=LAW.difficulty(sample_of([text]))),
        )
        if choice is None:
            raise ValueError(f"Minutes: expected more than {minutes} on this machine; take more minutes.")
        parameters = choice.shape.parameters(choice.vocabulary)
        return cls(minutes=minutes, choice=choice, parameters=parameters, text_bytes=len(encoded), speed=speed)

    def arguments(self) -> list[str]:
        """The flags of `python -m train modern`."""
        return ["--minutes", str(self.minutes), "--run.keep-checkpoints", str(CHECKPOINTS)]


def size_named(name: object) -> Size:
    """The size of that name; ValueError where there is none."""
    if isinstance(name, str) and name in SIZES:
        return SIZES[name]
    raise ValueError(f"Size: expected one of {', '.join(SIZES)}, got {name!r}.")


def least_bytes(size: Size) -> int:
    """Bytes of the shortest text that a size can be trained on."""
    # Nine tenths of it must fill a window, and a short text's tokens may be twice as long as usual.
    return math.ceil(least_tokens(size.context) / 0.9 * size.bytes_per_token * 2 / 100) * 100


def assumed_speed() -> Speed:
    """What is assumed where nothing was measured."""
    cores = os.cpu_count() or 1
    assumed = f"assuming {ASSUMED_FLOPS / 1e9:.0f} GFLOP/s on each of {cores} cores"
    return Speed(ASSUMED_FLOPS * cores, f"{assumed}; after the first run here it is measured")


def measured_speed(runs: Iterable[RunFolder], flops: float) -> Speed:
    """The speed of that run among `runs` whose model is nearest to one of so many `flops` a token; without a run, what
    is assumed."""
    wanted = math.log(flops)
    found = []
    for run in runs:
        view = monitor_of(run).view()
        per_token = _flops_per_token(run) if view.seconds > 1 else None
        if per_token and view.tokens_seen:
            speed = view.tokens_seen / view.seconds
            found.append((abs(math.log(per_token) - wanted), per_token * speed, run.path.name, speed))
    if not found:
        return assumed_speed()
    _, flops, name, speed = min(found)
    return Speed(flops, f"from your run {name} ({speed:,.0f} tokens/s)")


def _flops_per_token(run: RunFolder) -> float | None:
    """Of the model that a run trains; None while it has no checkpoint."""
    from modeling import ScratchGPTConfig
    from modeling.sizing import flops_per_token

    try:
        config = ScratchGPTConfig.from_pretrained(run.checkpoint("latest"))
        return flops_per_token(config, config.max_position_embeddings)
    except (ValueError, OSError):
        return None
