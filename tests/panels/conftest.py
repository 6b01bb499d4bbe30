"""One tiny model for all tests of the panels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from panels.context import AppContext
from panels.models import LoadedModel, load_model
from tests.panels.openai_serving import context_of, serving
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


@pytest.fixture(scope="module")
def openai_context(checkpoint: Path) -> AppContext:
    """The page whose OpenAI-compatible API is at `address`."""
    return context_of(checkpoint)


@pytest.fixture(scope="module")
def address(openai_context: AppContext) -> Iterator[str]:
    """Where the OpenAI-compatible API answers."""
    with serving(openai_context) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    """The `openai.OpenAI` that asks it."""
    import openai

    with openai.OpenAI(base_url=address, api_key="any", max_retries=0) as client:
        yield client
