"""How far a model of the recipe `modern` comes, by its size, its vocabulary, the tokens that it sees and the text that
there is: the study whose law `python -m train modern --minutes N` chooses by.

Each run is a line of laws.jsonl; those that are there are not trained again, so that a study that was stopped goes
on. The law is fitted to all of them, printed (it stands in modeling/scaling/law.py) and drawn to docs/laws.png.
"""

import itertools
import json
import math
import statistics
import tempfile
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.bpe import BOOKS, CHECKOUT
from corpus.local import read_local
from corpus.stories import generate_stories
from modeling.scaling.choice import BATCH, bytes_per_token
from modeling.scaling.law import Law, compressed_bits, doublings, sample_of, worth_of
from modeling.scaling.shapes import CONTEXT, SHAPES
from storage.run_folder import RunFolder
from storage.shards import read_manifest
from train.config import Config, replace_fields
from train.loop import train
from train.recipes import get_recipe

POINTS, PICTURE = CHECKOUT / "benchmarks" / "laws.jsonl", CHECKOUT / "docs" / "laws.png"
REPEATED = "repeated"
"""The text of the point that is no run of the study: an earlier model in the box, which read the books 6.3 times
(windows at random places)."""
COMPRESSED = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
"""Bytes of the books whose compression is measured."""
SHORT = 300_000
"""Bytes of the text that is read again and again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A run of the study."""

    text: str
    """`books`, `short` (the first SHORT bytes of the books), `stories` or `repeated`."""
    width: int
    vocabulary: int
    steps: int


def study() -> list[Point]:
    """The runs, cheap ones first."""
    points = [point("books", width, steps) for width in (64, 128) for steps in (48, 96, 192, 384, 768)]
    points += [point("books", 192, steps) for steps in (48, 96, 192, 384)]
    points += [point("books", 256, steps) for steps in (96, 384)]
    points += [point("short", 64, steps) for steps in (192, 384)]
    points += [point("stories", 64, steps) for steps in (48, 192, 576)]
    points += [point("stories", 128, steps) for steps in (48, 192)]
    points += [point("books", 64, 2304, 4096)]
    points += [point("books", 128, 384, size) for size in (1024, 4096, 8192)]
    return sorted(points, key=lambda point: SHAPES[point.width].flops(point.vocabulary) * point.steps)


def point(text: str, width: int, steps: int, vocabulary: int = 2048) -> Point:
    """A run of the study."""
    return Point(text=text, width=width, steps=steps, vocabulary=vocabulary)


def config_of(point: Point, corpus: Path, run: Path) -> Config:
    """The run's config: `modern` in batches of BATCH windows, all else in proportion to its steps."""
    fields = {
        **{f"model.{name}": value for name, value in SHAPES[point.width].fields.items()},
        "model.max_position_embeddings": CONTEXT,
        "tokenizer.vocab_size": point.vocabulary,
        "data.batch_size": BATCH,
        "data.evaluation_windows": 256,
        "schedule.warmup_steps": min(30, point.steps // 10),
        "run.steps": point.steps,
        "run.evaluate_every": point.steps,
        "run.checkpoint_every": point.steps,
        "run.sample_tokens": 0,
        "run.threads": 1,
        "run.dir": run,
    }
    config = get_recipe("modern")
    if point.text == "stories":
        stories = get_recipe("stories")
        config = replace(config, corpus=stories.corpus, data=stories.data)
    else:
        config = replace(config, corpus=replace(config.corpus, source="local", paths=(corpus,)))
    return replace_fields(config, fields)


def run_study() -> None:
    """Train what is missing in laws.jsonl.

    Raises:
        ValueError: the books are not there.
    """
    if not BOOKS.is_dir():
        raise ValueError(f"{BOOKS}: expected the books of the study, got no such folder")
    done = {tuple(asdict(each["point"]).values()) for each in read_points()}
    missing = [each for each in study() if tuple(asdict(each).values()) not in done]
    work = [SHAPES[each.width].flops(each.vocabulary) * each.steps * BATCH * CONTEXT / 1e12 for each in missing]
    with tempfile.TemporaryDirectory() as folder, tqdm(total=round(sum(work), 1), unit="TFLOP") as bar:
        short = Path(folder) / "short.txt"
        short.write_bytes(books_bytes()[:SHORT])
        for number, (each, cost) in enumerate(zip(missing, work, strict=True)):
            bar.set_postfix_str(f"{each.text} {each.width} {each.vocabulary} {each.steps}")
            run = Path(folder) / str(number)
            train(config_of(each, short if each.text == "short" else BOOKS, run), recipe="modern", quiet=True)
            line = {"point": asdict(each), **measured(RunFolder(run))}
            with POINTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            bar.update(round(cost, 3))


def measured(run: RunFolder) -> dict[str, Any]:
    """What a run's records say: bits per byte of held-out text at the end, tokens seen, bytes a token."""
    state, manifest = run.peek_state(), read_manifest(run.tokens)
    assert manifest is not None
    train_split = manifest["train"]
    return {
        "bits_per_byte": state["evaluation"]["bits_per_byte"],
        "tokens_seen": state["tokens_seen"],
        "text_tokens": train_split["tokens"],
        "bytes_per_token": train_split["bytes"] / train_split["tokens"],
        "seconds": state["seconds"],
    }


def read_points() -> list[dict[str, Any]]:
    """The lines of laws.jsonl, each `point` a `Point`."""
    if not POINTS.exists():
        return []
    lines = [json.loads(line) for line in POINTS.read_text().splitlines()]
    return [line | {"point": Point(**line["point"])} for line in lines]


def fit(points: list[dict[str, Any]]) -> tuple[Law, dict[str, float]]:
    """The law of the points on all the books, by least squares of the relative error; and how far it is from them.

    For each pair of exponents and number of repeats, floor and factors are linear: all are tried on a grid.

    Returns:
        The law, and the mean of its relative errors by text: those of `short` and `stories` are the errors of their
        difficulties, which are taken from how well they compress.
    """
    books = [point for point in points if point["point"].text in ("books", REPEATED)]
    found = np.array([point["bits_per_byte"] for point in books])
    weights, vocabulary, seen, text = np.array([quantities(point) for point in books]).T
    gains = np.array([-doublings(size) for size in vocabulary])
    best, numbers = math.inf, {}
    for repeats in (2.0, 3.0, 4.0, 6.0, 8.0, 12.0):
        worth = [worth_of(*each, repeats) for each in zip(seen, text, strict=True)]
        for by_size, by_data in itertools.product(np.arange(0.1, 0.8, 0.02), repeat=2):
            columns = np.stack([np.ones_like(found), weights**-by_size, np.array(worth) ** -by_data, gains], axis=1)
            factors, *_ = np.linalg.lstsq(columns / found[:, None], np.ones(len(found)), rcond=None)
            error = float(((columns @ factors / found - 1) ** 2).sum())
            if error < best and (factors > 0).all():
                best = error
                names = (
                    "floor",
                    "size_factor",
                    "data_factor",
                    "vocabulary_gain",
                    "size_exponent",
                    "data_exponent",
                    "repeats",
                )
                numbers = dict(zip(names, map(float, (*factors, by_size, by_data, repeats)), strict=True))
    compression = tuple((size, compressed_bits(samples()["books"][:size])) for size in COMPRESSED)
    law = Law(**numbers, compression=compression)
    return law, errors(law, points)


def quantities(point: dict[str, Any]) -> tuple[float, int, float, float]:
    """Weights, vocabulary, bytes seen and bytes of the text of a point."""
    run, per_token = point["point"], point["bytes_per_token"]
    return SHAPES[run.width].weights, run.vocabulary, point["tokens_seen"] * per_token, point["text_tokens"] * per_token


def errors(law: Law, points: list[dict[str, Any]]) -> dict[str, float]:
    """The mean of the relative errors of a law, by text."""
    ratios: dict[str, list[float]] = {}
    for point in points:
        text = point["point"].text.replace(REPEATED, "books")
        difficulty = law.difficulty(samples()[text])
        expected = difficulty * law.bits_per_byte(*quantities(point))
        ratios.setdefault(text, []).append(abs(expected / point["bits_per_byte"] - 1))
    return {text: statistics.mean(values) for text, values in ratios.items()}


def draw(law: Law, points: list[dict[str, Any]]) -> None:
    """The runs on all the books, and the law, over the operations of the training."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(
        xscale="log",
        xlabel="floating-point operations of the training",
        ylabel="bits per byte of held-out text",
        title="Books, a vocabulary of 2,048: runs (dots) and the law (lines), by width",
    )
    text = max(quantities(point)[3] for point in points if point["point"].text == "books")
    for color, shape in enumerate(SHAPES.values()):
        flops = shape.flops(2048)
        seen = np.logspace(4.5, 8.5, 60)  # bytes
        axes.plot(
            flops * seen / bytes_per_token(2048),
            [law.bits_per_byte(shape.weights, 2048, each, text) for each in seen],
            color=f"C{color}",
            label=f"{shape.width}",
        )
        runs = [
            point
            for point in points
            if (point["point"].text, point["point"].vocabulary, point["point"].width) == ("books", 2048, shape.width)
        ]
        axes.plot(
            [flops * point["tokens_seen"] for point in runs],
            [point["bits_per_byte"] for point in runs],
            "o",
            color=f"C{color}",
        )
    axes.set_ylim(1.3, 3.2)
    axes.legend(title="width")
    FigureCanvasAgg(figure).print_png(str(PICTURE))


@cache
def books_bytes() -> bytes:
    """The books of the study, one after the other."""
    return "\n\n".join(document.text for document in read_local([BOOKS])).encode()


@cache
def samples() -> dict[str, bytes]:
    """A sample of each text."""
    return {
        "books": sample_of(document.text for document in read_local([BOOKS])),
        "short": sample_of([books_bytes()[:SHORT].decode(errors="replace")]),
        "stories": sample_of(story.text for story in generate_stories(seed=0, count=30_000)),
    }


def run() -> dict[str, Any]:
    """Train what is missing, fit, draw.

    Returns:
        `law`: its numbers. `error`: the mean of its relative errors, by text.

    Raises:
        ValueError: the books are not there.
    """
    run_study()
    points = read_points()
    law, error = fit(points)
    draw(law, points)
    return {
        "law": {name: f"{value:.6g}" for name, value in asdict(law).items() if name != "compression"},
        "compression": {str(size): f"{bits:.4f}" for size, bits in law.compression},
        "error": {text: f"{value:.2%}" for text, value in error.items()},
    }
