"""A run of a few seconds, made once; and the config that it has."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from train.config import Config, replace_fields
from train.loop import train
from train.recipes import get_recipe

TEXT = "The lamp stood on the table. Rosa the miller took it home, and nobody saw it again.\n" * 40


def with_fields(config: Config, **fields: Any) -> Config:
    """The config with `section__field` values replaced."""
    return replace_fields(config, {name.replace("__", ".", 1): value for name, value in fields.items()})


@pytest.fixture(scope="session")
def tiny() -> Config:
    """The debug recipe, smaller still; nothing is written but what a run must write."""
    return with_fields(
        get_recipe("debug"),
        corpus__stories=3,
        corpus__validation_stories=2,
        tokenizer__vocab_size=300,
        model__hidden_size=16,
        model__intermediate_size=32,
        model__head_dim=8,
        model__max_position_embeddings=32,
        model__residual_dropout=0.1,
        data__batch_size=4,
        run__steps=12,
        run__evaluate_every=4,
        run__checkpoint_every=4,
        run__sample_tokens=3,
        run__threads=1,
    )


@pytest.fixture(scope="session")
def finished_run(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken run of `tiny`; read it, do not change it."""
    return train(with_fields(tiny, run__dir=tmp_path_factory.mktemp("runs") / "unbroken"), recipe="debug")


@pytest.fixture(scope="session")
def going_on(tiny: Config, finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """`debug` on a new text, going on from the run of `tiny`; the sizes are the recipe's, which do not count."""
    text = tmp_path_factory.mktemp("text") / "lamps.txt"
    text.write_text(TEXT, encoding="utf-8")
    recipe = get_recipe("debug")
    config = replace(tiny, model=recipe.model, tokenizer=recipe.tokenizer)
    return with_fields(config, corpus__source="local", corpus__paths=(text,), run__base_model=str(finished_run))


@pytest.fixture
def fresh_run_dir(finished_run: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes run folders whose tokenizer is there already."""

    def make(name: str) -> Path:
        shutil.copytree(finished_run / "tokenizer", tmp_path / name / "tokenizer")
        return tmp_path / name

    return make
