"""The search space of a sweep: `--space` arguments, the default space, and the config of a trial."""

import math
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from train.checks import COUNTS_WITH, check_effects, validate
from train.config import Config, check_name, numeric_type, parse_field, replace_fields

# Trials are compared on the same text after the same steps, so nothing that changes the measure can be searched.
_SEARCHABLE = ("model", "optimizer", "schedule")
_TOKENIZER = ("tokenizer.kind", "tokenizer.vocab_size")
_SEARCHABLE_FIELDS = ("data.batch_size", "data.gradient_accumulation_steps", "data.windows", *_TOKENIZER)


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """The fields that a sweep searches."""

    distributions: dict[str, BaseDistribution]  # by `section.field`
    fixed: frozenset[str] = frozenset()  # fields given on the command line

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """The trial's value of every field; values that it already has are kept."""
        return {name: trial._suggest(name, distribution) for name, distribution in self.distributions.items()}

    def apply(self, config: Config, values: dict[str, Any]) -> Config:
        """The config of a trial. Heads and MLP keep the recipe's proportions to a searched width, unless they are
        searched or fixed themselves.
        """
        model, follow = config.model, {}
        if "model.hidden_size" in values:
            ratio = values["model.hidden_size"] / model.hidden_size
            base = model.num_key_value_heads or model.num_attention_heads
            heads = max(1, round(base * ratio))
            follow["model.num_attention_heads"] = heads * (model.num_attention_heads // base)
            if model.num_key_value_heads is not None:
                follow["model.num_key_value_heads"] = heads
            if model.intermediate_size is not None:
                follow["model.intermediate_size"] = round(model.intermediate_size * ratio)
        free = {name: value for name, value in follow.items() if name not in self.fixed | self.distributions.keys()}
        return replace_fields(config, free | values)

    def as_json(self) -> dict[str, str]:
        """Each field's values, as `--space` takes them."""
        return {name: describe(distribution) for name, distribution in self.distributions.items()}


def build_space(config: Config, given: list[str], fixed: set[str]) -> Space:
    """The space of `--space` arguments, or the default one.

    Args:
        config: the recipe with its fixed fields.
        given: `FIELD=LOW..HIGH`, with `:log` or (integers) `:STEP` at the end, or `FIELD=A,B,C`.
        fixed: fields that the command line gave a value.

    Raises:
        ValueError: a value of the config is out of range; an argument is malformed; a field is unknown, fixed, or
            cannot be searched; a range is empty.
    """
    validate(config)
    distributions = {} if given else default_space(config)
    for argument in given:
        name, distribution = parse_dimension(argument)
        if name in distributions:
            raise ValueError(f"--space: expected each field once, got {name} twice")
        if name in fixed:
            raise ValueError(f"--space: expected a field that is free, got {name}, which a flag fixes; leave one out")
        if name in _TOKENIZER and config.data.objective == "masked":
            raise ValueError(
                f"--space: expected a field that leaves the validation loss comparable, got {name}; with masked "
                "training the loss is per token, and another tokenizer has other tokens"
            )
        if name in _TOKENIZER and config.data.split == "tokens" and config.corpus.source != "stories":
            raise ValueError(
                f"--space: expected a field that leaves the validation text as it is, got {name} with --data.split "
                "tokens, which cuts another text for each tokenizer; add --data.split text"
            )
        if name in _TOKENIZER and config.data.teacher is not None:
            raise ValueError(
                f"--space: expected a field that changes something, got {name} with --teacher, whose tokenizer all "
                "trials have; leave one out"
            )
        distributions[name] = distribution
    is_open = {name for name, other, _ in COUNTS_WITH if other in distributions}  # a trial may have a value that counts
    check_effects(config, distributions.keys() - is_open if given else ())
    distributions = {name: value for name, value in distributions.items() if name not in fixed}
    if not distributions:
        raise ValueError(
            "expected a field to search, got every field of the default space fixed by a flag; "
            "leave one out or name others with --space FIELD=LOW..HIGH"
        )
    return Space(distributions=distributions, fixed=frozenset(fixed))


def default_space(config: Config) -> dict[str, BaseDistribution]:
    """Width (heads and MLP follow), depth and batch size from half to twice the recipe's, and the learning rates from
    a tenth to ten times the recipe's on a log scale.
    """
    model, batch = config.model, config.data.batch_size
    micro_batches = config.data.gradient_accumulation_steps
    half = model.hidden_size // 2
    space: dict[str, BaseDistribution] = {
        "model.hidden_size": IntDistribution(half, 4 * half, step=half),
        "model.num_hidden_layers": IntDistribution(max(1, model.num_hidden_layers // 2), 2 * model.num_hidden_layers),
        "optimizer.learning_rate": _around(config.optimizer.learning_rate),
        "data.batch_size": CategoricalDistribution(
            [size for size in (batch // 2, batch, 2 * batch) if size >= micro_batches and size % micro_batches == 0]
        ),
    }
    if config.optimizer.name == "muon":
        space["optimizer.muon_learning_rate"] = _around(config.optimizer.muon_learning_rate)
    return space


def parse_dimension(argument: str) -> tuple[str, BaseDistribution]:
    """The field and the values of a `--space` argument; ValueError where it is malformed or cannot be searched."""
    field, equals, values = argument.partition("=")
    if not equals or not values:
        raise ValueError(
            f"--space: expected FIELD=LOW..HIGH, with :log or :STEP behind it, or FIELD=A,B,C, got {argument!r}"
        )
    name = check_name(field)
    if name.split(".")[0] not in _SEARCHABLE and name not in _SEARCHABLE_FIELDS:
        raise ValueError(
            f"--space: expected a field of {', '.join(_SEARCHABLE)} or one of {', '.join(_SEARCHABLE_FIELDS)}, got "
            f"{name}: trials are compared on the same text, after the same number of steps"
        )
    if ".." not in values:
        choices = [parse_field(name, text) for text in values.split(",")]
        if len(set(choices)) < 2:
            raise ValueError(f"--space {argument}: expected at least two values to choose from, got one")
        return name, CategoricalDistribution(choices)
    limits, _, scale = values.partition(":")
    number = numeric_type(name)
    if number is None:
        raise ValueError(f"--space {argument}: expected choices A,B,C for {name}, got a range; it has no numbers")
    if scale not in ("", "log") and not (number is int and scale.isdecimal() and int(scale)):
        expected = "nothing, :log or :STEP" if number is int else "nothing or :log"
        raise ValueError(f"--space {argument}: expected {expected} behind the range, got :{scale}")
    low, high = (parse_field(name, text) for text in limits.split("..", 1))
    if low is None or high is None or not low < high < math.inf:
        raise ValueError(f"--space {argument}: expected a range from a lower to a higher number, got {low}..{high}")
    if scale == "log" and low <= 0:
        raise ValueError(f"--space {argument}: expected a log range above 0, got one from {low}")
    if number is float:
        return name, FloatDistribution(low, high, log=scale == "log")
    step = int(scale) if scale.isdecimal() else 1
    return name, IntDistribution(low, high - (high - low) % step, log=scale == "log", step=step)


def describe(distribution: BaseDistribution) -> str:
    """A range or choices, as `--space` takes them."""
    if isinstance(distribution, CategoricalDistribution):
        return ",".join(str(value).lower() if isinstance(value, bool) else str(value) for value in distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    step = f":{distribution.step}" if distribution.step not in (None, 1) else ""
    return f"{distribution.low}..{distribution.high}{':log' if distribution.log else step}"


def _around(value: float) -> FloatDistribution:
    return FloatDistribution(float(f"{value / 10:.6g}"), float(f"{value * 10:.6g}"), log=True)
