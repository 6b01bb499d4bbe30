"""The scaling law, and the choice of a model by it."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling import ScratchGPTForCausalLM
from modeling.scaling.choice import (
    BATCH,
    LEAST_STEPS,
    MOST_PASSES,
    Choice,
    Text,
    bytes_per_token,
    choose,
    expect,
    vocabularies_for,
)
from modeling.scaling.law import LAW, PIECE, SAMPLE_BYTES, SPACING, sample_of, worth_of
from modeling.scaling.shapes import CONTEXT, SHAPES

BOOKS = Text(bytes=10_000_000, difficulty=1.0)
amounts = st.floats(1e4, 1e12)


def at_speed(flops: float):
    """Seconds of a step at so many floating-point operations a second, however small the model."""
    return lambda shape, vocabulary: BATCH * CONTEXT * shape.flops(vocabulary) / flops


@given(weights=st.floats(1e4, 1e10), seen=amounts, more=st.floats(1.01, 100), text=amounts)
def test_more_of_anything_is_never_worse(weights: float, seen: float, more: float, text: float) -> None:
    bits = LAW.bits_per_byte(weights, 2048, seen, text)
    assert bits > LAW.floor
    assert LAW.bits_per_byte(weights, 4096, seen, text) == pytest.approx(bits - LAW.vocabulary_gain)
    assert LAW.bits_per_byte(weights * more, 2048, seen, text) < bits
    assert LAW.bits_per_byte(weights, 2048, seen * more, text) <= bits
    assert LAW.bits_per_byte(weights, 2048, seen, text * more) <= bits + 1e-12


@given(seen=amounts, text=amounts)
def test_repeated_text_is_worth_less_than_new_text(seen: float, text: float) -> None:
    worth = worth_of(seen, text, LAW.repeats)
    if seen <= text:
        assert worth == pytest.approx(seen)
    else:
        assert text <= worth * (1 + 1e-9)
        assert worth <= min(seen, text * (1 + LAW.repeats)) * (1 + 1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_shape_is_the_model_that_it_counts(shape) -> None:
    model = ScratchGPTForCausalLM(shape.config(1024))
    assert model.num_parameters() == shape.parameters(1024)
    matrices = sum(each.numel() for name, each in model.named_parameters() if each.ndim == 2 and ".layers." in name)
    assert shape.weights == pytest.approx(matrices)


def chosen(seconds: float, flops: float, text: Text) -> Choice:
    """What is chosen at so many floating-point operations a second; there is something."""
    choice = choose(seconds, at_speed(flops), text)
    assert choice is not None
    return choice


def test_more_time_and_more_text_make_larger_models() -> None:
    found = [chosen(60.0 * minutes, 1e11, BOOKS) for minutes in (0.5, 2, 10, 60, 600)]
    weights = [choice.shape.weights for choice in found]
    assert weights == sorted(weights)
    assert weights[0] < weights[-1]
    bits = [choice.bits_per_byte for choice in found]
    assert bits == sorted(bits, reverse=True)
    short = chosen(3600.0, 1e11, Text(bytes=100_000, difficulty=1.0))
    assert short.vocabulary <= 257 + 100_000 / 32
    assert short.bits_per_byte > found[3].bits_per_byte


def test_the_choice_is_the_best_of_all_that_fit() -> None:
    best = chosen(120.0, 5e10, BOOKS)
    for shape in SHAPES.values():
        for vocabulary in vocabularies_for(BOOKS.bytes):
            other = expect(shape, vocabulary, 120.0, at_speed(5e10)(shape, vocabulary), BOOKS)
            assert other is None or other.bits_per_byte >= best.bits_per_byte
    poem = chosen(36_000.0, 5e10, Text(bytes=20_000, difficulty=1.0))
    assert poem.passes <= MOST_PASSES + 1
    assert poem.shape == SHAPES[64]
    assert choose(0.01, at_speed(5e10), BOOKS) is None
    assert best.steps >= LEAST_STEPS


def test_difficulty_is_that_of_what_compresses_less() -> None:
    even = b"the cat sat on the mat. " * 20_000
    assert LAW.difficulty(even) < 0.2
    assert LAW.difficulty(random.Random(0).randbytes(50_000)) > 2
    assert math.isfinite(LAW.difficulty(b"x"))


@given(st.lists(st.text(max_size=200), max_size=20))
def test_a_sample_is_some_of_every_part(texts: list[str]) -> None:
    text = "".join(texts).encode("utf-8", "replace")
    assert sample_of(texts) == text[:PIECE]
    parts = [chr(ord("a") + place) * SPACING for place in range(20)]
    assert sample_of(["".join(parts)]) == "".join(part[:PIECE] for part in parts).encode()
    long = (part for part in parts * 100)
    assert len(sample_of(long)) == SAMPLE_BYTES
    assert next(long, None) is not None  # it did not read on


@given(st.integers(257, 60_000))
def test_larger_vocabularies_have_longer_tokens(vocabulary: int) -> None:
    assert 1 <= bytes_per_token(vocabulary) <= bytes_per_token(vocabulary + 1) < 5
