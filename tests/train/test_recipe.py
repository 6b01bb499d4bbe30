"""The config tree, the recipes and the command line."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.sizing import count_parameters
from tests.train.conftest import with_fields
from train.__main__ import main, parse
from train.config import Config, ModelConfig, as_json, from_json, validate
from train.recipes import RECIPES, get_recipe

# Golden parameter counts, from the formulas of each architecture; the first is the tutorial's 9,010,752 plus
# `<|endoftext|>` in the embedding, in the output layer and in its bias (256 + 256 + 1).
# GPT-2 small has 124,439,808. 47,987,712 is the WikiText tutorial's own number, at the vocabulary that it came to.
PARAMETERS = {
    "scifi": 9_011_265,
    "bookcorpus": 124_439_808,
    "openwebtext": 14_313_316,
    "wikitext": 47_987_712,
    "wiki": 15_691_776,
    "modern": 6_934_784,
    "stories": 1_197_696,
}
VOCABULARIES = {"openwebtext": 100, "wikitext": 28_144}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_valid_and_documented(name: str) -> None:
    validate(get_recipe(name))
    documentation = RECIPES[name].__doc__ or ""
    for word in ("Source:", "Command:", "Cost", "xpected"):
        assert word in documentation, f"{name} does not say its {word}"


@pytest.mark.parametrize("name", PARAMETERS)
def test_golden_parameter_counts(name: str) -> None:
    recipe = get_recipe(name)
    size = VOCABULARIES.get(name, recipe.tokenizer.vocab_size)
    config = recipe.model.build(vocab_size=size, end_of_text=0)
    assert count_parameters(config) == PARAMETERS[name]
    with torch.device("meta"):
        assert ScratchGPTForCausalLM(config).num_parameters() == PARAMETERS[name]


@pytest.mark.parametrize("name", RECIPES)
def test_json_round_trip(name: str) -> None:
    recipe = with_fields(get_recipe(name), corpus__paths=(Path("a.txt"), Path("b")), run__dir=Path("runs/x"))
    assert from_json(json.loads(json.dumps(as_json(recipe)))) == recipe


def test_json_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match=r"recipe section 'model'.*got also \['layers'\]"):
        from_json({"model": {"layers": 3}})


def test_model_fields_and_defaults_are_those_of_the_model(tmp_path: Path) -> None:
    config = ScratchGPTConfig()
    for field in dataclasses.fields(ModelConfig):
        if field.default is not None:
            assert getattr(config, field.name) == field.default, field.name


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("run__steps", 0, "--run.steps: expected at least 1, got 0"),
        ("data__batch_size", -1, "--data.batch-size: expected at least 1, got -1"),
        ("data__validation_fraction", 1.0, "--data.validation-fraction: expected more than 0 and less than 1, got 1.0"),
        ("optimizer__beta2", 1.5, "--optimizer.beta2: expected a number from 0 to 1, got 1.5"),
        ("optimizer__learning_rate", float("nan"), "--optimizer.learning-rate: expected at least 0, got nan"),
        (
            "data__gradient_accumulation_steps",
            3,
            "--data.gradient-accumulation-steps: expected a divisor of the batch size 8, got 3",
        ),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        validate(with_fields(get_recipe("debug"), **{field: value}))


def test_flags_and_their_short_names() -> None:
    name, config = parse(
        ["scifi", "--corpus", "a.txt", "b", "--run-dir", "r", "--steps", "7", "--seed", "3", "--resume",
         "--model.num-hidden-layers", "2", "--tokenizer.path", "t"]
    )  # fmt: skip
    assert name == "scifi"
    assert config.corpus.source == "local"
    assert config.corpus.paths == (Path("a.txt").resolve(), Path("b").resolve())
    assert (config.run.dir, config.run.steps, config.run.seed, config.run.resume) == (Path("r"), 7, 3, True)
    assert (config.model.num_hidden_layers, config.tokenizer.path) == (2, Path("t"))


def test_the_command_line_is_frozen() -> None:
    """Every flag, so that none is renamed by accident."""
    flags = sorted(f"{section}.{field.name}" for section, part in _sections() for field in dataclasses.fields(part))
    assert flags == (Path(__file__).parent / "flags.txt").read_text().split()


def _sections() -> list[tuple[str, object]]:
    config = Config()
    return [(field.name, getattr(config, field.name)) for field in dataclasses.fields(config)]


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(SystemExit, match=r"error: unknown recipe 'sify': expected one of stories, scifi"):
        main(["sify"])


def test_an_unknown_field_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["debug", "--model.num-layers", "2"])
    assert stopped.value.code
    assert "num-layers" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--list"], ["--help"]])
def test_the_list_names_every_recipe(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if arguments == ["--help"]:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
    else:
        main(arguments)
    printed = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", printed, re.MULTILINE) for name in RECIPES)


def test_help_explains_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["scifi", "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    for section, part in _sections():
        for field in dataclasses.fields(part):
            assert f"--{section}.{field.name.replace('_', '-')}" in printed
    for short in ("--corpus", "--run-dir", "--resume", "--steps", "--seed"):
        assert short in printed
    assert "RMSNorm on queries and keys" in printed
