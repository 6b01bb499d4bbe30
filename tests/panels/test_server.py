"""What the command line says of the page: its run, its port, its tools."""

import argparse
import importlib.util
import re
import shutil
import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

from panels.models import ModelSource, find_model
from panels.server import add_flags, check_port, find_run, mcp_options, serve
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
    assert find_run(find_model(run), None, tmp_path / "elsewhere") == run
    assert find_run(find_model(checkpoint), None, tmp_path / "elsewhere") == run
    assert find_run(find_model(bundle), None, tmp_path) == run
    assert find_run(find_model(bundle), None, tmp_path / "elsewhere") is None
    assert find_run(find_model(other), None, tmp_path) is None
    assert find_run(find_model(other), str(run), tmp_path) == run
    assert find_run(ModelSource(given="gpt2", name="gpt2"), None, tmp_path) is None
    with pytest.raises(ValueError, match=r"--run .*/bundle: expected a run folder, got one without a run.json"):
        find_run(find_model(bundle), str(bundle), tmp_path)


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


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    parser = argparse.ArgumentParser()
    add_flags(parser)
    arguments = parser.parse_args([])
    assert (arguments.host, arguments.port, arguments.mcp, arguments.allow_training) == ("0.0.0.0", 7860, False, False)
