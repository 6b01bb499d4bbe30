"""One tiny model for all tests of the panels."""

from pathlib import Path

import pytest

from panels.models import LoadedModel, load_model
from tests.panels.tiny_model import save_checkpoint, save_masked_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder."""
    return save_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def loaded(checkpoint: Path) -> LoadedModel:
    """The checkpoint, loaded."""
    return load_model(checkpoint)


@pytest.fixture(scope="session")
def masked(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A masked model, loaded."""
    return load_model(save_masked_checkpoint(tmp_path_factory.mktemp("models") / "masked"))
