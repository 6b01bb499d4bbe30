"""What a run from the page would be, before it is started: its parameters, tokens, time and room."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.families import MODERN
from panels.tabs.learn.monitor import number, read_object, watch

if TYPE_CHECKING:
    from modeling import ScratchGPTConfig

ASSUMED_SPEED = 25e9
"""Floating-point operations a second and core, where no run here tells: about a third of what a present core can."""
STEP_OVERHEAD = 0.02
"""Seconds of a step, however small the model."""
BEGINNING = 12.0
"""Seconds until the first step: libraries, tokenizer, tokens."""
LEAST_STEPS, MOST_STEPS = 10, 5000
MANY_PASSES = 30
"""Times that a text may be read before it is learnt by heart rather than learnt from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A model size to choose from."""

    name: str
    about: str  # its parameters in a few words
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    head_dim: int
    context: int  # tokens
    vocabulary: int  # tokens
    batch: int  # windows of a step
    steps: int  # to begin with
    checkpoints: int  # over the run, all kept: the frames of the time-lapse
    bytes_per_token: float  # of English prose under such a vocabulary, measured

    def config(self) -> ScratchGPTConfig:
        """The model's config."""
        from modeling import ScratchGPTConfig

        return ScratchGPTConfig(
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            head_dim=self.head_dim,
            max_position_embeddings=self.context,
            vocab_size=self.vocabulary,
            bos_token_id=self.vocabulary - 1,
            eos_token_id=self.vocabulary - 1,
            **MODERN,
        )

    def arguments(self, steps: int) -> list[str]:
        """The flags of `python -m train modern` for this size and so many steps."""
        apart = max(1, steps // self.checkpoints)
        flags = {
            "steps": steps,
            "model.hidden-size": self.hidden_size,
            "model.intermediate-size": self.intermediate_size,
            "model.num-hidden-layers": self.layers,
            "model.num-attention-heads": self.heads,
            "model.head-dim": self.head_dim,
            "model.max-position-embeddings": self.context,
            "tokenizer.vocab-size": self.vocabulary,
            "data.batch-size": self.batch,
            "data.evaluation-windows": 64,
            "schedule.warmup-steps": min(30, max(1, steps // 10)),
            "run.evaluate-every": apart,
            "run.checkpoint-every": apart,
            "run.keep-checkpoints": self.checkpoints + 1,
            "run.log-every": max(1, steps // 100),
            "run.sample-tokens": min(120, self.context),
        }
        return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


SIZES = (
    Size(
        name="tiny", about="0.13 M", hidden_size=64, intermediate_size=176, layers=2, heads=2, head_dim=32, context=64,
        vocabulary=512, batch=16, steps=300, checkpoints=10, bytes_per_token=2.1,
    ),
    Size(
        name="small", about="1.1 M", hidden_size=128, intermediate_size=352, layers=4, heads=2, head_dim=64,
        context=128, vocabulary=2048, batch=16, steps=600, checkpoints=10, bytes_per_token=3.3,
    ),
    Size(
        name="medium", about="5.9 M", hidden_size=256, intermediate_size=704, layers=6, heads=4, head_dim=64,
        context=256, vocabulary=4096, batch=16, steps=500, checkpoints=6, bytes_per_token=3.7,
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """How fast this machine trains."""

    flops: float  # floating-point operations a second
    source: str  # where the figure comes from, in words


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """A run before it is started."""

    size: Size
    steps: int
    parameters: int
    text_bytes: int
    text_tokens: int  # estimated: the tokenizer is made of the text when the run begins
    seen_tokens: int  # that the steps read
    seconds: float  # estimated
    disk_bytes: int  # of the checkpoints
    speed: Speed

    @classmethod
    def of(cls, *, text_bytes: int, size: Size, steps: int, speed: Speed | None = None) -> RunPlan:
        """Plan a run on a text of so many bytes.

        Raises:
            ValueError: the text is too short for the size's context, or steps is outside its range.
        """
        if type(steps) is not int or not LEAST_STEPS <= steps <= MOST_STEPS:
            raise ValueError(f"Steps: expected a whole number from {LEAST_STEPS} to {MOST_STEPS:,}, got {steps}.")
        needed = least_bytes(size)
        if text_bytes < needed:
            raise ValueError(
                f"The text is too short for the size {size.name}: expected at least {needed:,} bytes, got "
                f"{text_bytes:,}. Add text{'' if size is SIZES[0] else ', or choose a smaller size'}."
            )
        from modeling.sizing import count_parameters, flops_per_token

        config, speed = size.config(), speed or assumed_speed()
        parameters, per_step = count_parameters(config), size.batch * size.context
        step_seconds = STEP_OVERHEAD + per_step * flops_per_token(config, size.context) / speed.flops
        return cls(
            size=size,
            steps=steps,
            parameters=parameters,
            text_bytes=text_bytes,
            text_tokens=round(text_bytes / size.bytes_per_token),
            seen_tokens=steps * per_step,
            seconds=BEGINNING + steps * step_seconds,
            disk_bytes=(size.checkpoints + 2) * 10 * parameters,
            speed=speed,
        )

    @property
    def passes(self) -> float:
        """How often the steps read the text."""
        return self.seen_tokens / max(1, self.text_tokens)

    @property
    def warning(self) -> str | None:
        """What is to be said before such a run is started."""
        if self.passes <= MANY_PASSES:
            return None
        enough = self.seen_tokens * self.size.bytes_per_token / MANY_PASSES
        return (
            f"The text is short: it will be read {self.passes:,.0f} times, and the model will learn it by heart. "
            f"Expected for so many steps: {size_of_text(enough)} or more; got {size_of_text(self.text_bytes)}. "
            "Add text, or take fewer steps or a smaller size."
        )


def size_named(name: object) -> Size:
    """The size of that name.

    Raises:
        ValueError: there is none.
    """
    for size in SIZES:
        if size.name == name:
            return size
    raise ValueError(f"Size: expected one of {', '.join(size.name for size in SIZES)}, got {name!r}.")


def least_bytes(size: Size) -> int:
    """The shortest text that a size can be trained on: nine tenths of it must fill a window, and a short text's tokens
    may be twice as long as usual."""
    return math.ceil((size.context + 2) / 0.9 * size.bytes_per_token * 2 / 100) * 100


def assumed_speed() -> Speed:
    """What is assumed where no run tells."""
    cores = os.cpu_count() or 1
    return Speed(
        flops=ASSUMED_SPEED * cores,
        source=f"assuming {ASSUMED_SPEED / 1e9:.0f} GFLOP/s on each of {cores} cores; after the first run here it is "
        "measured",
    )


def measured_speed(runs: Iterable[Path], size: Size) -> Speed:
    """The speed of that run among `runs` whose model is nearest to `size`, or the assumed one."""
    from modeling.sizing import flops_per_token

    wanted = math.log(flops_per_token(size.config(), size.context))
    found = []
    for run in runs:
        view = watch(run).look()
        per_token = _flops_per_token_of(run, view.parameters)
        tokens_per_second = view.tokens_seen / view.seconds if view.seconds > 1 else None
        if per_token and tokens_per_second:
            found.append(
                (abs(math.log(per_token) - wanted), per_token * tokens_per_second, run.name, tokens_per_second)
            )
    if not found:
        return assumed_speed()
    _, flops, name, tokens_per_second = min(found)
    return Speed(
        flops=flops, source=f"from your run {name} ({tokens_per_second:,.0f} tokens/s), by the work for a token"
    )


def _flops_per_token_of(run: Path, parameters: int | None) -> float | None:
    """Of the model that a run folder's recipe describes; None where it cannot be told."""
    from modeling import ScratchGPTConfig
    from modeling.sizing import flops_per_token

    said = read_object(run / "run.json").get("latest_checkpoint")
    raw = read_object(run / str(said) / "config.json") if said else {}
    if parameters is None or number(raw.get("max_position_embeddings")) is None:
        return None
    try:
        config = ScratchGPTConfig(**{name: value for name, value in raw.items() if name in MODERN or name in _WIDTHS})
        return flops_per_token(config, config.max_position_embeddings)
    except (TypeError, ValueError):
        return None


_WIDTHS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "max_position_embeddings", "bos_token_id", "eos_token_id",
)  # fmt: skip


def size_of_text(count: float) -> str:
    """Bytes, short: 1.2 MB."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.{0 if count >= 10 * size else 1}f} {unit}"
    return f"{count:.0f} bytes"
