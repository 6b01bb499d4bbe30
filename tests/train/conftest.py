"""A run of a few seconds, made once; and the config that it has."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from train.config import Config, replace_fields
from train.loop import train
from train.recipes import get_recipe


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


@pytest.fixture
def fresh_run_dir(finished_run: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes run folders whose tokenizer is there already."""

    def make(name: str) -> Path:
        shutil.copytree(finished_run / "tokenizer", tmp_path / name / "tokenizer")
        return tmp_path / name

    return make
