"""`--space` arguments, the default spaces, and the config of a trial."""

import re

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution as Choice
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int

from tests.train.conftest import with_fields
from train.checks import given_fields, validate
from train.recipes import RECIPES, get_recipe
from train.sweep.space import build_space, default_space, describe, parse_dimension


@pytest.mark.parametrize(
    ("argument", "name", "distribution"),
    [
        ("model.hidden-size=64..256", "model.hidden_size", Int(64, 256)),
        ("model.hidden_size=64..250:64", "model.hidden_size", Int(64, 192, step=64)),
        ("data.batch_size=8..64:log", "data.batch_size", Int(8, 64, log=True)),
        ("optimizer.learning_rate=1e-4..1e-2:log", "optimizer.learning_rate", Float(1e-4, 1e-2, log=True)),
        ("model.residual_dropout=0..0.5", "model.residual_dropout", Float(0, 0.5)),
        ("model.norm=layernorm,rmsnorm", "model.norm", Choice(["layernorm", "rmsnorm"])),
        ("model.qk_norm=true,false", "model.qk_norm", Choice([True, False])),
        ("model.num_key_value_heads=none,2", "model.num_key_value_heads", Choice([None, 2])),
    ],
)
def test_a_dimension_is_parsed_and_described(argument: str, name: str, distribution: BaseDistribution) -> None:
    assert parse_dimension(argument) == (name, distribution)
    assert parse_dimension(f"{name}={describe(distribution)}") == (name, distribution)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model.width=1..2", "unknown field 'model.width': expected model.hidden_size, model.intermediate_size"),
        ("width=1..2", "unknown field 'width': expected section.field, such as optimizer.learning_rate"),
        ("model.hidden_size", "--space: expected FIELD=LOW..HIGH, with :log or :STEP behind it, or FIELD=A,B,C, got"),
        ("model.hidden_size=8..8", "expected a range from a lower to a higher number, got 8..8"),
        ("optimizer.beta1=0.1..inf", "optimizer.beta1: expected less than 1, got 'inf'"),
        ("model.hidden_size=8..x", "model.hidden_size: expected a whole number, got 'x'"),
        ("model.hidden_size=8..16:lin", "expected nothing, :log or :STEP behind the range, got :lin"),
        ("optimizer.beta1=0.1..0.9:2", "expected nothing or :log behind the range, got :2"),
        ("optimizer.beta1=0..0.9:log", "expected a log range above 0, got one from 0.0"),
        ("model.norm=a..b", "expected choices A,B,C for model.norm, got a range; it has no numbers"),
        ("model.norm=layernorm,x", "model.norm: expected 'layernorm' or 'rmsnorm', got 'x'"),
        ("model.norm=layernorm", "expected at least two values to choose from, got one"),
        ("run.steps=10..20", "trials are compared on the same text, after the same number of steps"),
        ("data.evaluation_windows=1..2", "got data.evaluation_windows: trials are compared on the same text"),
        ("optimizer.eps=0.1..0.8", "each field once, got optimizer.eps twice"),
        ("optimizer.beta2=0.1..0.9", "expected a field that is free, got optimizer.beta2, which a flag fixes"),
        ("tokenizer.vocab_size=300..400", "leaves the validation loss comparable, got tokenizer.vocab_size"),
    ],
)
def test_a_mistake_is_named(argument: str, message: str) -> None:
    masked = with_fields(get_recipe("debug"), data__objective="masked")
    with pytest.raises(ValueError, match=re.escape(message)):
        build_space(masked, ["optimizer.eps=0.1..0.9", argument], {"optimizer.beta2"})


@pytest.mark.parametrize(
    ("changed", "argument", "message"),
    [
        ({}, "optimizer.muon_momentum=0.9..0.99", "expected it with --optimizer.name muon only, got it with adamw"),
        ({}, "schedule.decay_fraction=0.1..0.5", "expected it with --schedule.name wsd only"),
        ({"tokenizer__kind": "characters"}, "tokenizer.vocab_size=300,400", "expected it with --tokenizer.kind bpe or"),
        (
            {"data__teacher": "somewhere"},
            "tokenizer.vocab_size=300,400",
            "with --teacher, whose tokenizer all trials have",
        ),
    ],
)
def test_a_field_that_changes_nothing_is_no_dimension(changed: dict[str, str], argument: str, message: str) -> None:
    config = with_fields(get_recipe("scifi"), data__split="text", tokenizer__path=None, **changed)
    with pytest.raises(ValueError, match=re.escape(message)):
        build_space(config, [argument], set())


def test_a_field_that_counts_in_some_trials_is_one() -> None:
    given = ["optimizer.name=adamw,muon", "optimizer.muon_momentum=0.9..0.99"]
    assert len(build_space(get_recipe("scifi"), given, set()).distributions) == 2


@pytest.mark.parametrize("name", sorted({*RECIPES} - {"chat"}))  # chat keeps the shape of the model that it tunes
@pytest.mark.parametrize("high", [False, True])
def test_every_corner_of_a_default_space_is_a_config(name: str, high: bool) -> None:
    recipe = get_recipe(name)
    space = build_space(recipe, [], set())
    assert {"model.hidden_size", "model.num_hidden_layers", "optimizer.learning_rate"} <= set(space.distributions)
    values = {}
    for field, distribution in space.distributions.items():
        if isinstance(distribution, Choice):
            values[field] = distribution.choices[-high]
        else:
            assert isinstance(distribution, Int | Float)
            values[field] = distribution.high if high else distribution.low
    config = space.apply(recipe, values)
    validate(config)
    model, base = config.model, recipe.model
    assert model.hidden_size == values["model.hidden_size"]
    ratio = model.hidden_size / base.hidden_size
    assert model.num_attention_heads == pytest.approx(base.num_attention_heads * ratio, abs=1)
    if base.num_key_value_heads is not None:
        groups = base.num_attention_heads // base.num_key_value_heads
        assert model.num_attention_heads == groups * (model.num_key_value_heads or 0)
    if base.intermediate_size is not None:
        assert model.intermediate_size == round(base.intermediate_size * ratio)


def test_fixed_fields_leave_the_default_space_and_keep_their_values() -> None:
    recipe = get_recipe("debug")
    fixed = given_fields(["--model.num-attention-heads", "2", "--data.batch-size=8", "--steps", "3"])
    assert fixed == {"model.num_attention_heads", "data.batch_size", "run.steps"}
    space = build_space(recipe, [], fixed)
    assert "data.batch_size" not in space.distributions
    assert space.apply(recipe, {"model.hidden_size": 64}).model.num_attention_heads == 2
    with pytest.raises(ValueError, match="got every field of the default space fixed by a flag"):
        build_space(recipe, [], set(default_space(recipe)))


def test_suggestions_come_from_the_space() -> None:
    given = ["model.hidden_size=8..24:8", "optimizer.eps=1e-9..1e-3:log", "model.qk_norm=true,false"]
    space = build_space(get_recipe("debug"), given, set())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = [space.suggest(study.ask()) for _ in range(30)]
    assert {values["model.hidden_size"] for values in seen} == {8, 16, 24}
    assert {values["model.qk_norm"] for values in seen} == {True, False}
    assert sum(values["optimizer.eps"] < 1e-6 for values in seen) == pytest.approx(15, abs=8)
