"""A visitor who asks before the model is there must not disturb its loading."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from panels.context import AppContext
from panels.models import ModelLoader, find_model
from tests.panels.tiny_model import loader_of, save_run


def test_visitors_before_the_model_import_nothing_beside_the_loader(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    command = [sys.executable, "-m", "tests.panels.early_visitors", str(run)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["unguarded"] == []
    refused = {name: got for name, got in told["got"].items() if got != "an answer"}
    assert list(refused) == ["chat"]  # of a model without a chat template
    assert "was not trained to chat" in refused["chat"]
    assert len(told["got"]) == 11


@pytest.mark.parametrize("error", [AttributeError("module 'transformers' has no attribute 'X'"), MemoryError()])
def test_any_failure_of_loading_is_an_error_that_the_page_expects(checkpoint, loaded, monkeypatch, error) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise error

    monkeypatch.setattr("modeling.loading.load_model", fail)
    source = find_model(checkpoint)
    with pytest.raises(ValueError, match=rf"Cannot load .*tiny: .*{error or 'MemoryError'}"):
        ModelLoader(source).start().wait(60)
    context = AppContext(loader=loader_of(loaded))
    with pytest.raises(ValueError, match=r"The page keeps its model"):
        context.switch(source)
    assert context.loader.wait() is loaded
