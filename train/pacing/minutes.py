"""`--minutes N`: measure this machine for a few seconds, and choose model, vocabulary, batch, steps and schedule.

Only what the recipe says is chosen; what the command line says is kept. The minutes are those of the whole command: the
libraries, the tokenizer and the tokens come off them. Where there is no command, as in a notebook, they begin here.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from modeling.scaling.choice import (
    BATCH,
    LEAST_BYTES,
    LEAST_STEPS,
    MOST_PASSES,
    VOCABULARIES,
    Choice,
    Text,
    choose,
    expect,
)
from modeling.scaling.law import LAW, sample_of
from modeling.scaling.shapes import SHAPES, Shape
from storage.run_folder import RunFolder
from storage.text import count_bytes, duration
from train.config import Config, replace_fields
from train.data.fitting import MINUTES, fit_to_text
from train.data.split import encoded_file, known_size, read_corpus, size_of_files
from train.pacing.clock import command_seconds, counted
from train.pacing.plan import make_plan, vocabulary_size

MEASURED_VOCABULARY = 2048
MEASURING, MEASURING_SHARE = 15.0, 0.05
"""Seconds, and share of the minutes, after which no wider model is measured: they follow from the widest that was."""
PREPARING = 2.0
"""Seconds until a text is read, whatever its size …"""
PREPARING_PER_BYTE = 0.4e-6
"""… and for each of its bytes: a tokenizer is trained on them, and they are encoded."""
ENDING = 2.0
"""Seconds for the last checkpoint and its samples."""
MARGIN = 0.04
"""Share of the time that is left for samples, checkpoints, and a machine that is a little slower than measured."""
EVALUATIONS = 6
MANY_PASSES, DROPOUT = 4, 0.1
"""Readings of a text from which on dropout pays, and how much of it."""
MOST_BYTES = 2**28
"""A text of which so much was read has enough for any plan."""


def fit(
    config: Config, kept: Collection[str], folder: RunFolder, log: Callable[[str], None]
) -> tuple[Config, list[str]]:
    """The config for its time (`fit_to_minutes`) and its text (`fit_to_text`), and a line on what was chosen and
    changed. The arguments and errors are those of both."""
    planned, lines = fit_to_minutes(config, kept, folder, log)
    fitted, more = fit_to_text(planned, kept)  # also what the plan chose
    return fitted, lines + more


@counted()
def fit_to_minutes(
    config: Config, kept: Collection[str], folder: RunFolder, log: Callable[[str], None]
) -> tuple[Config, list[str]]:
    """The config for `run.minutes`, which is 0 in it, and the plan in lines; the config as it is where that is 0.

    Args:
        kept: the fields that are left alone (`kept_fields`).
        folder: the run's.
        log: called with a line on each measurement.

    Raises:
        ValueError: a text that is too short for any plan, or a time that is.
    """
    minutes = config.run.minutes
    if not minutes:
        return config, []

    size, sample = measure_text(config)
    if size < LEAST_BYTES:
        raise ValueError(
            f"--minutes: expected a text of at least {LEAST_BYTES:,} bytes, got {size:,}; give more text, or leave "
            "--minutes out: `python -m train modern` fits itself to a short text"
        )
    batch = config.data.batch_size if "data.batch_size" in kept else BATCH
    config = replace_fields(config, {"data.batch_size": batch})
    shapes, vocabularies = candidates(config, kept, folder, log)
    step_seconds = measure_steps(config, shapes, folder, log)
    read = size if size < MOST_BYTES else max(size, size_of_files(config.corpus))  # by the run, all of it
    preparing = PREPARING + PREPARING_PER_BYTE * read

    def left() -> float:
        return 60 * minutes - command_seconds() - preparing - ENDING

    text = Text(bytes=round(size * (1 - config.data.validation_fraction)), difficulty=LAW.difficulty(sample))
    step_tokens = batch * config.model.max_position_embeddings
    options: dict[str, Any] = {"shapes": shapes, "vocabularies": vocabularies, "step_tokens": step_tokens}
    best = choose(left() * (1 - MARGIN), step_seconds, text, **options)
    if best is None:
        least = LEAST_STEPS * step_seconds(shapes[0], (vocabularies or VOCABULARIES)[0]) / (1 - MARGIN)
        raise ValueError(
            f"--minutes: expected at least {(least + 60 * minutes - left()) / 60:.1f} for this text on this machine "
            f"({size:,} bytes, whose reading and encoding take about {duration(preparing)}), got {minutes:g}; give "
            "more minutes or less text"
        )
    # What was chosen by measurements of others is measured itself.
    plan = make_plan(apply(config, best, kept), folder, lambda line: None)
    seconds = max(1.0, left())
    evaluating = plan.seconds - best.steps * plan.step_seconds
    stepping = max(LEAST_STEPS * plan.step_seconds, seconds * (1 - MARGIN) - evaluating)
    final = expect(best.shape, best.vocabulary, stepping, plan.step_seconds, text, step_tokens)
    assert final is not None
    chosen = apply(replace_fields(config, {MINUTES: 0.0}), final, kept)  # the plan is made, once
    if "run.max_seconds" not in kept:
        chosen = replace_fields(chosen, {"run.max_seconds": round(seconds, 1)})
    lines = describe(chosen, final, plan.parameters, minutes, text)
    if size >= MOST_BYTES and known_size(config.corpus) is None:
        lines.append(
            f"how long the whole text is, only reading tells (files are packed, or on the Hub): the plan counts "
            f"{read:,} bytes, and a longer one ends later than planned, by {duration(PREPARING_PER_BYTE * 2**30)} a GiB"
        )
    return chosen, lines


def measure_text(config: Config) -> tuple[int, bytes]:
    """Bytes of the text, or those that there are at least, and a sample of it.

    Raises:
        ValueError: the text cannot be read, or was encoded before.
    """
    if encoded_file(config.corpus) is not None:
        raise ValueError("--minutes: expected a text, got token ids, whose vocabulary is chosen already; give --steps")
    size, known = 0, known_size(config.corpus)

    def texts() -> Iterator[str]:
        nonlocal size
        for document in read_corpus(config.corpus):
            size += count_bytes(document.text)
            yield document.text

    stream = texts()
    sample = sample_of(stream)
    if known is None:  # only reading tells
        while size < MOST_BYTES and next(stream, None) is not None:
            pass
    return max(size, known or 0), sample


def candidates(
    config: Config, kept: Collection[str], folder: RunFolder, log: Callable[[str], None]
) -> tuple[list[Shape], list[int] | None]:
    """The shapes and the vocabularies to choose from: what the command line says, where it says something."""
    model, tokenizer = config.model, config.tokenizer
    shapes = list(SHAPES.values())
    if any(f"model.{name}" in kept for name in shapes[0].fields):
        shapes = [Shape(width=model.hidden_size, layers=model.num_hidden_layers, heads=model.num_attention_heads)]
    if "tokenizer.vocab_size" in kept or tokenizer.path is not None or tokenizer.kind != "bpe":
        return shapes, [vocabulary_size(config, folder, log)]
    return shapes, None


def measure_steps(
    config: Config, shapes: Sequence[Shape], folder: RunFolder, log: Callable[[str], None]
) -> Callable[[Shape, int], float]:
    """Take steps of the shapes on this machine, the narrow ones first, as far as they are quick.

    Returns:
        Seconds of a step of a shape with a size of the vocabulary: in proportion to the floating-point operations of
        the widest shape measured that is no wider.
    """
    length, measured, begun = config.model.max_position_embeddings, [], time.monotonic()
    for shape in shapes:
        fields = {f"model.{name}": value for name, value in shape.fields.items()}
        plan = make_plan(
            replace_fields(config, {**fields, "tokenizer.vocab_size": MEASURED_VOCABULARY}), folder, lambda line: None
        )
        # A tokenizer that is there, or of another kind, has the size that it has.
        measured.append((shape, plan.step_seconds, plan.vocabulary))
        if time.monotonic() - begun > min(MEASURING, MEASURING_SHARE * 60 * config.run.minutes):
            break
    log(f"measured, seconds of a step: {', '.join(f'{took:.2g} ({shape.width} wide)' for shape, took, _ in measured)}")

    def step_seconds(shape: Shape, vocabulary: int) -> float:
        near, took, size = max(
            (each for each in measured if each[0].width <= shape.width), key=lambda each: each[0].width
        )
        return took * shape.flops(vocabulary, length) / near.flops(size, length)

    return step_seconds


def apply(config: Config, choice: Choice, kept: Collection[str]) -> Config:
    """The config of a choice, but for `kept` fields."""
    step_tokens = config.data.batch_size * config.model.max_position_embeddings
    steps, dropout = choice.steps, DROPOUT if choice.passes > MANY_PASSES else 0.0
    fields: dict[str, Any] = {
        **{f"model.{name}": value for name, value in choice.shape.fields.items()},
        "model.embedding_dropout": dropout,
        "model.residual_dropout": dropout,
        "tokenizer.vocab_size": choice.vocabulary,
        "optimizer.learning_rate": round(learning_rate(steps * step_tokens), 4),
        "schedule.warmup_steps": min(30, steps // 10),
        "data.evaluation_windows": max(32, min(384, steps // 8)),
        "run.steps": steps,
        "run.evaluate_every": math.ceil(steps / EVALUATIONS),
        "run.checkpoint_every": math.ceil(steps / EVALUATIONS),
    }
    return replace_fields(config, {name: value for name, value in fields.items() if name not in kept})


def learning_rate(tokens: float) -> float:
    """The peak rate of AdamW, which is that of the embeddings, for a training on so many tokens.

    Over a million tokens 0.02 is better than 0.003, over sixteen million worse (docs/log.md); between them it falls
    with the square root.
    """
    return min(0.02, max(0.003, 0.02 * math.sqrt(1e6 / tokens)))


def describe(config: Config, choice: Choice, parameters: int, minutes: float, text: Text) -> list[str]:
    """The plan for a reader."""
    shape, batch, length = choice.shape, config.data.batch_size, config.model.max_position_embeddings
    often = f"the text {choice.passes:.1f} times" if choice.passes >= 1 else f"{choice.passes:.0%} of the text"
    lines = [
        f"plan for {minutes:g} minutes: {parameters:,} parameters ({shape.layers} layers, {shape.width} wide), a "
        f"vocabulary of {choice.vocabulary:,}, {choice.steps:,} steps of {batch} windows of {length} tokens, which "
        f"read {often}",
        f"expected: {choice.bits_per_byte:.2f} bits per byte of held-out text, by a law fitted on English books and by "
        f"how well this text compresses ({text.difficulty:.2f} times their bits)",
    ]
    if choice.passes > 0.95 * MOST_PASSES:
        lines.append(
            f"the text is short: after {MOST_PASSES} readings another one teaches nothing new, and the run ends before "
            f"its {minutes:g} minutes"
        )
    return lines
