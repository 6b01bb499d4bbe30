"""Recipes in files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from train.provenance import write_recipe
from train.recipe_file import load_recipe_file

from tests.train.conftest import with_fields
from train.__main__ import main, parse
from train.recipes import get_recipe


def write(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_the_recipe_of_a_run_is_read_back_and_flags_win(tmp_path: Path) -> None:
    config = with_fields(
        get_recipe("scifi"), corpus__paths=(Path("/a b"),), run__dir=Path("r"), run__resume=True, model__hidden_size=64
    )
    write_recipe(config, "scifi", tmp_path)
    name, read = parse([str(tmp_path / "recipe.json"), "--model.num-hidden-layers", "3", "--run-dir", "other"])
    assert name == "scifi"
    assert read == with_fields(config, model__num_hidden_layers=3, run__dir=Path("other"), run__resume=False)


def test_what_a_file_leaves_out_is_the_recipes(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", {"recipe": "debug", "config": {"optimizer": {"learning_rate": 1}}})
    assert load_recipe_file(Path(path)) == ("debug", with_fields(get_recipe("debug"), optimizer__learning_rate=1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "{",
            'expected a recipe file, JSON such as {"recipe": name, "config": {section: {field: value}}}, got a broken',
        ),
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
            "model.hidden_size: expected a whole number, got '64'",
        ),
        ({"recipe": "debug", "config": {"model": {"hidden_size": True}}}, "expected a whole number, got True"),
        ({"recipe": "debug", "config": {"model": {"norm": "x"}}}, "model.norm: expected layernorm, rmsnorm, got 'x'"),
        ({"recipe": "debug", "config": {"corpus": {"paths": "a"}}}, "corpus.paths: expected a list of paths, got 'a'"),
        (
            {"recipe": "debug", "config": {"model": {"head_dim": 1.5}}},
            "model.head_dim: expected a whole number or none, got 1.5",
        ),
        ({"recipe": "debug", "config": {"run": {"steps": 0}}}, "--run.steps: expected at least 1, got 0"),
    ],
)
def test_a_broken_file_is_named(content: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", content)
    with pytest.raises(SystemExit, match=f"error: .*{re.escape(message)}") as stopped:
        main([path, "--run-dir", str(tmp_path / "run")])
    assert path in str(stopped.value) or "--run" in message
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(SystemExit, match=r"error: no/best\.json: expected a recipe file, got a name that does"):
        main(["no/best.json"])


def test_the_list_mentions_files(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list"])
    assert "best.json of a sweep" in capsys.readouterr().out
