"""The config tree, the recipes and the command line."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.sizing import count_parameters, flops_per_token
from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from train.__main__ import main, parse
from train.checks import check_same_run, given_fields, validate
from train.config import Config, ModelConfig, as_json, from_json, replace_fields, write_recipe
from train.recipes import RECIPES, get_recipe, load_recipe
from train.recipes.overview import OVERVIEW, recipe_table

# Golden parameter counts, from the formulas of each architecture; the first is the tutorial's 9,010,752 plus
# `<|endoftext|>` in the embedding, in the output layer and in its bias (256 + 256 + 1).
# GPT-2 small has 124,439,808. 47,987,712 is the WikiText tutorial's own number, at the 28,144 tokens of its README.
# 19,837,954 is what the notebook of the wiki.txt tutorial prints.
PARAMETERS = {
    "scifi": 9_011_265,
    "bookcorpus": 124_439_808,
    "openwebtext": 14_313_316,
    "wikitext": 47_987_712,
    "wiki": 19_837_954,
    "modern": 6_934_784,
    "stories": 1_197_696,
}
VOCABULARIES = {"openwebtext": 100}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_valid_and_documented(name: str) -> None:
    recipe = get_recipe(name)
    validate(replace_fields(recipe, {"run.base_model": "runs/stories"}) if name == "chat" else recipe)
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


def test_model_fields_and_defaults_are_those_of_the_model() -> None:
    config = ScratchGPTConfig()
    for field in dataclasses.fields(ModelConfig):
        if field.default is not None:
            assert getattr(config, field.name) == field.default, field.name


def test_the_recipe_of_a_run_of_an_older_version_resumes_it(tmp_path: Path) -> None:
    """It lacks a field that was added since, and its numbers are written as they were."""
    tree = as_json(config := with_fields(get_recipe("debug"), optimizer__weight_decay=0.0))
    del tree["run"]["push"]
    tree["optimizer"]["weight_decay"] = 0
    folder = RunFolder(tmp_path)
    folder.write_recipe({"recipe": "debug", "config": tree, "git_commit": None, "versions": {}})
    check_same_run(with_fields(config, model__norm="layernorm"), folder)  # nothing was made yet: it failed on its text
    folder.tokenizer.mkdir()
    check_same_run(config, folder)
    assert load_recipe(str(folder.recipe_file)) == ("debug", config)
    with pytest.raises(ValueError, match=r"--model\.norm: the run has 'rmsnorm', asked for 'layernorm'"):
        check_same_run(with_fields(config, model__norm="layernorm"), folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("run__steps", 0, "--run.steps: expected at least 1, got 0"),
        ("data__batch_size", -1, "--data.batch-size: expected at least 1, got -1"),
        ("data__validation_fraction", 1.0, "--data.validation-fraction: expected less than 1, got 1.0"),
        ("optimizer__beta2", 1.5, "--optimizer.beta2: expected less than 1, got 1.5"),
        ("optimizer__learning_rate", float("nan"), "--optimizer.learning-rate: expected a finite number, got nan"),
        ("data__mask_rate", 0.0, "--data.mask-rate: expected more than 0, got 0"),
        ("run__steps", 2.5, "--run.steps: expected a whole number, got 2.5"),
        ("run__seed", -1, "--run.seed: expected at least 0, got -1"),
        ("run__seed", 2**64, "--run.seed: expected less than 9.22337e+18, got 18446744073709551616"),
        ("run__precision", "fp8", "--run.precision: expected 'auto', 'fp32', 'bf16' or 'fp16', got 'fp8'"),
        (
            "data__gradient_accumulation_steps",
            3,
            "--data.gradient-accumulation-steps: expected a divisor of the batch size 8, got 3",
        ),
        ("corpus__source", "hub", "--corpus.dataset: expected the id of a data set on the Hub, got none"),
        (
            "tokenizer__vocab_size",
            256,
            "--tokenizer.vocab-size: expected at least 257 (256 bytes and the end of a text",
        ),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        validate(with_fields(get_recipe("debug"), **{field: value}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"corpus__paths": (Path("ids.npy"),)},
            "--tokenizer.path: expected the folder of the tokenizer that encoded the .npy file, got none",
        ),
        (
            {"data__split": "tokens", "tokenizer__kind": "wordpiece"},
            "--data.split: expected text or files with --tokenizer.kind wordpiece, whose tokens do not represent bytes",
        ),
        (
            {"data__objective": "masked", "tokenizer__vocab_size": 257},
            "--tokenizer.vocab-size: expected at least 258 (256 bytes and two special tokens), got 257",
        ),
        (
            {"data__objective": "masked", "run__output_tokens": 5},
            "--run.output-tokens: expected 0 with --data.objective masked, since a masked model fills blanks",
        ),
    ],
)
def test_values_that_do_not_fit_together_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        validate(with_fields(get_recipe("debug"), corpus__source="local", **fields))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "debug --schedule.plateau-patience 2",
            "--schedule.plateau-patience: expected it with --schedule.name plateau only, got it with wsd, where it "
            "changes nothing; leave it out, or give --schedule.name too",
        ),
        ("scifi --optimizer.muon-momentum 0.9", "it with --optimizer.name muon only, got it with adamw"),
        ("debug --data.mask-rate 0.5", "it with --data.objective masked only, got it with causal"),
        ("debug --corpus.dataset x/y", "it with --corpus.source hub only, got it with stories"),
        (
            "wikitext --encoding cp1251",
            "--corpus.encoding: expected it with --corpus.source local only, got it with hub",
        ),
        ("stories --encoding cp1251", "--corpus.encoding: expected it with --corpus.source local only, got it with st"),
        (
            "stories --data.validation-fraction 0.2",
            "it with --corpus.source gutenberg or hub or local only, got it wit",
        ),
        (
            "stories --data.validation-chunk 99",
            "--data.validation-chunk: expected it with --corpus.source gutenberg or",
        ),
        ("stories --data.split text", "--data.split: expected it with --corpus.source gutenberg or hub or local only"),
        *(
            (f"modern --corpus ids.npy --tokenizer.path t {flag}", "expected none with a .npy file of token ids, whose")
            for flag in (
                "--encoding cp1251",
                "--text-field body",
                "--corpus.skip-broken",
                "--corpus.passage-characters 9",
                "--corpus.books scifi",
            )
        ),
        (
            "openwebtext --tokenizer.vocab-size 99",
            "--tokenizer.kind bpe or wordpiece or sentencepiece only, got it with",
        ),
        ("debug --tokenizer.path t --tokenizer.kind gpt2", "--tokenizer.kind: expected none beside --tokenizer.path"),
        (
            "debug --run.precision fp16 --run.device cpu",
            "--run.precision: expected auto, fp32 or bf16 on a CPU, got fp16",
        ),
        ("debug --run.device cuda:1", "got 'cuda:1'; a run takes the first device that it sees: choose which one with"),
    ],
)
def test_a_flag_without_an_effect_is_refused(flags: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"error: .*{re.escape(message)}"):
        main([*flags.split(), "--run-dir", str(tmp_path / "run")])
    assert not list(tmp_path.rglob("tokenizer*"))


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


def test_a_flag_without_an_effect_is_refused_with_the_value_of_the_recipe_too() -> None:
    with pytest.raises(SystemExit, match=r"--corpus\.seed: expected it with --corpus\.source stories only"):
        main(["stories", "--corpus", __file__, "--corpus.seed", "0"])
    with pytest.raises(SystemExit, match=r"--model\.hidden-size: expected none beside --from"):
        main(["modern", "--from", "x/y", "--model.hidden-size", "256"])


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--corpus", ""], "--corpus"),
        (["--corpus="], "--corpus"),
        (["--corpus", "a.txt", "", "--steps", "3"], "--corpus"),
        (["--run-dir", ""], "--run-dir"),
        (["--steps", "3", "--tokenizer.path="], "--tokenizer.path"),
        (["--from", ""], "--from"),
    ],
)
def test_an_empty_value_is_not_the_current_folder(
    words: list[str], flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.txt").write_text("Nobody asked for this text.\n" * 99)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=rf"error: {flag}: expected a value, got an empty text, .* leave {flag} out"):
        main(["debug", *words])
    assert [path.name for path in tmp_path.iterdir()] == ["secret.txt"]


def test_the_fields_that_a_command_line_gives() -> None:
    words = "--corpus a b --run-dir=r --data.batch_size 4 --run.no-resume --no-keep-tokens --plan --model.qk-norm True"
    assert given_fields(words.split()) == {
        "corpus.paths", "run.dir", "data.batch_size", "run.resume", "run.keep_tokens", "model.qk_norm",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "books"),
    [
        ("modern", "scifi"),
        ("modern --corpus notes", "any"),
        ("modern --corpus notes --corpus.books scifi", "scifi"),
        ("scifi --corpus notes", "scifi"),
        ("scifi --corpus notes --corpus.books any", "any"),
    ],
)
def test_a_text_of_ones_own_is_not_taken_for_the_recipes_books(words: str, books: str) -> None:
    assert parse(words.split())[1].corpus.books == books


def test_the_command_line_is_frozen() -> None:
    """Every flag, so that none is renamed by accident."""
    flags = sorted(f"{section}.{field.name}" for section, part in _sections() for field in dataclasses.fields(part))
    assert flags == (Path(__file__).parent / "flags.txt").read_text().split()


def _sections() -> list[tuple[str, Any]]:
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
    rows = [re.search(rf"^{name} +([\d.]+ M) +([\d,]+) +(.*)$", printed, re.MULTILINE) for name in RECIPES]
    assert None not in rows
    assert len({row.end(1) - row.start() for row in rows if row}) == 1
    assert re.search("^recipe +parameters +steps +time +text +about$", printed, re.MULTILINE)
    assert "best.json of a sweep" in printed.replace("\n", " ")


@pytest.mark.parametrize("columns", [200, 120, 80, 40])
def test_the_list_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = recipe_table().splitlines()
    assert max(map(len, lines)) <= max(columns, 92)
    assert all(name in "\n".join(lines) for name in RECIPES)


LEARNED = {
    "stories": 2204,
    "chat": 2204,
    "openwebtext": 123,
    "bookcorpus": 50257,
    "wikitext": 28144,
}  # tokens that their texts have
UNITS = {"min": 60, "h": 3600, "days": 86_400}


@pytest.mark.parametrize("name", RECIPES)
def test_the_list_says_what_the_config_says(name: str) -> None:
    recipe, overview = RECIPES[name](), OVERVIEW[name]
    vocabulary = LEARNED.get(name, recipe.tokenizer.vocab_size)
    model = recipe.model.build(vocab_size=vocabulary, end_of_text=0)
    assert overview.steps == f"{recipe.run.steps:,}"
    parameters = count_parameters(model) / 1e6
    assert overview.parameters == (f"{parameters:.1f} M" if parameters >= 0.1 else f"{parameters:.2f} M")
    tokens = recipe.data.batch_size * model.max_position_embeddings * recipe.run.steps
    seconds = tokens * flops_per_token(model, model.max_position_embeddings) / 0.11e12
    if overview.time == "seconds":
        assert seconds < 10
    else:
        number, unit = overview.time.split()
        assert int(number) * UNITS[unit] == pytest.approx(seconds, rel=0.35)


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
    assert "norm each head's query and key" in printed


def write(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_the_recipe_of_a_run_is_read_back_and_flags_win(tmp_path: Path) -> None:
    config = with_fields(
        get_recipe("scifi"), corpus__paths=(Path("/a b"),), run__dir=Path("r"), run__resume=True, model__hidden_size=64
    )
    write_recipe(config, "scifi", RunFolder(tmp_path))
    name, read = parse([str(tmp_path / "recipe.json"), "--model.num-hidden-layers", "3", "--run-dir", "other"])
    assert name == "scifi"
    assert read == with_fields(config, model__num_hidden_layers=3, run__dir=Path("other"), run__resume=False)


def test_what_a_file_leaves_out_is_the_recipes(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", {"recipe": "debug", "config": {"optimizer": {"learning_rate": 1}}})
    assert load_recipe(path) == ("debug", with_fields(get_recipe("debug"), optimizer__learning_rate=1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected JSON, but it cannot be read"),
        ([1], "got one without a config"),
        ({"recipe": "debug"}, "got one without a config"),
        ({"config": {}}, "unknown recipe 'None'"),
        ({"recipe": "sify", "config": {}}, "unknown recipe 'sify': expected one of stories"),
        ({"recipe": "debug", "config": {"modle": {}}}, "unknown section 'modle': expected corpus, tokenizer"),
        ({"recipe": "debug", "config": {"model": 3}}, "section 'model': expected its fields and their values, got 3"),
        (
            {"recipe": "debug", "config": {"model": {"width": 3}}},
            "unknown field 'model.width': expected model.hidden_size",
        ),
        (
            {"recipe": "debug", "config": {"model": {"hidden_size": "64"}}},
            "--model.hidden-size: expected a whole number, got '64'",
        ),
        ({"recipe": "debug", "config": {"model": {"hidden_size": True}}}, "expected a whole number, got True"),
        (
            {"recipe": "debug", "config": {"model": {"norm": "x"}}},
            "--model.norm: expected 'layernorm' or 'rmsnorm', got 'x'",
        ),
        ({"recipe": "debug", "config": {"corpus": {"paths": "a"}}}, "--corpus.paths: expected a list, got 'a'"),
        (
            {"recipe": "debug", "config": {"model": {"head_dim": 1.5}}},
            "--model.head-dim: expected a whole number, got 1.5",
        ),
        ({"recipe": "debug", "config": {"run": {"steps": 0}}}, "--run.steps: expected at least 1, got 0"),
    ],
)
def test_a_broken_file_is_named(content: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", content)
    with pytest.raises(SystemExit, match=f"error: .*{re.escape(message)}") as stopped:
        main([path, "--run-dir", str(tmp_path / "run")])
    assert path in str(stopped.value)
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(SystemExit, match=r"error: no/best\.json: expected a recipe file, got a name that does"):
        main(["no/best.json"])
