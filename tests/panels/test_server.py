"""What the command line says of the page: its run, its port, its tools."""

import argparse
import importlib.util
import os
import re
import shutil
import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

import app
from panels.context import AppContext, find_run
from panels.models import ModelLoader, ModelSource, find_model
from panels.openai_api.server import offered, wanted_key
from panels.server import add_flags, check_port, check_training, given_run, mcp_options, serve
from tests.panels.tiny_model import save_run


def test_the_run_of_a_model_is_found_by_its_place_or_by_its_weights(tmp_path: Path) -> None:
    run = save_run(tmp_path / "runs" / "mine")
    checkpoint = run / "checkpoints" / "step-000020"
    bundle = shutil.copytree(checkpoint, tmp_path / "bundle")
    other = shutil.copytree(checkpoint, tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    (tmp_path / "runs" / "empty").mkdir()
    assert find_run(find_model(run), tmp_path / "elsewhere") == run
    assert find_run(find_model(checkpoint), tmp_path / "elsewhere") == run
    assert find_run(find_model(bundle), tmp_path) == run
    assert find_run(find_model(bundle), tmp_path / "elsewhere") is None
    assert find_run(find_model(other), tmp_path) is None
    assert find_run(ModelSource(given="gpt2", name="gpt2"), tmp_path) is None
    assert given_run(str(run)) == run
    with pytest.raises(ValueError, match=r"--run-dir .*/bundle: expected a run folder, got one without a run.json"):
        given_run(str(bundle))


def test_a_port_that_cannot_be_used_is_explained_with_one_that_can() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for port in (taken.getsockname()[1], 80808):
            with pytest.raises(ValueError, match=rf"Port {port} on 127.0.0.1 cannot be used") as caught:
                check_port("127.0.0.1", port)
            suggested = re.search(r"make demo PORT=(\d+)", str(caught.value))
            assert suggested
            check_port("127.0.0.1", int(suggested[1]))


def test_a_name_that_is_not_on_the_hub_fails_before_the_page_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    parser = argparse.ArgumentParser()
    add_flags(parser)
    with pytest.raises(ValueError, match=r"^nope is no folder here, and fetching a model of that name .* failed"):
        serve(find_model("nope"), parser.parse_args(["--port", "0"]))
    assert capsys.readouterr().out == ""


def test_mcp_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'gradio\[mcp\]'"):
        mcp_options()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert mcp_options() == {"mcp_server": True}


def test_the_api_for_other_programs_is_on_except_on_a_public_space(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = ModelLoader(find_model(checkpoint))
    local, public = (AppContext(loader=loader, is_public=is_public) for is_public in (False, True))
    assert offered(local, None, None)
    assert offered(public, None, None) is None
    assert offered(public, True, None)
    assert offered(local, False, None) is None
    monkeypatch.setenv("SCRATCHGPT_OPENAI", "1")
    assert offered(public, None, None)
    monkeypatch.setenv("SCRATCHGPT_OPENAI", "0")
    assert offered(local, None, None) is None
    monkeypatch.setenv("SCRATCHGPT_OPENAI", "maybe")
    with pytest.raises(ValueError, match="SCRATCHGPT_OPENAI: expected 1 or 0 in the environment, got 'maybe'"):
        offered(local, None, None)
    with pytest.raises(ValueError, match="--api-key: only where the API is offered: add --openai"):
        offered(public, False, "sk-1")
    for wrong in ("", "two words", "schlüssel"):
        with pytest.raises(ValueError, match="--api-key: expected letters, digits and signs without spaces"):
            offered(local, True, wrong)
    monkeypatch.setenv("SCRATCHGPT_API_KEY", "sk-2")
    assert (wanted_key(None), wanted_key("sk-1")) == ("sk-2", "sk-1")


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    parser = argparse.ArgumentParser()
    add_flags(parser)
    arguments = parser.parse_args([])
    assert (arguments.host, arguments.port, arguments.mcp, arguments.allow_training) == ("0.0.0.0", 7860, False, False)


def test_what_is_to_be_trained_comes_last() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    assert parser.parse_args([]).train is None
    arguments = parser.parse_args(["--port", "1", "--train", "stories", "--corpus", "a b", "--seed=3"])
    assert (arguments.port, arguments.train) == (1, ["stories", "--corpus", "a b", "--seed=3"])
    check_training(arguments.train)
    with pytest.raises(ValueError, match="--train: expected a recipe, such as stories, got none"):
        check_training([])
    with pytest.raises(ValueError, match="--port=7: expected before --train"):
        check_training(["stories", "--port=7"])


def test_the_threads_of_a_page_sleep_while_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must be chosen before torch is imported; a training beside the page needs the cores."""
    own = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name not in own})
    seen: dict[str, str] = {}
    monkeypatch.setattr(app.server, "open_page", lambda arguments: seen.update(os.environ))
    app.main([])
    assert [seen[name] for name in own] == ["PASSIVE", "0"]


def test_the_page_is_on_this_machine_alone_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADIO_SERVER_NAME", raising=False)
    parser = argparse.ArgumentParser()
    add_flags(parser)
    assert parser.parse_args([]).host == "127.0.0.1"
    assert parser.parse_args(["--host", "0.0.0.0"]).host == "0.0.0.0"
    assert parser.parse_args([]).allow_host == []
    assert parser.parse_args(["--allow-host", "a.example", "--allow-host", "b"]).allow_host == ["a.example", "b"]
