"""Loading a model folder: what its files say of other versions than those that are here."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, loading
from modeling.configuration_scratchgpt import CODE_VERSION
from modeling.loading import load_model

HERE = transformers.__version__


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = ScratchGPTConfig(vocab_size=17, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    ScratchGPTForCausalLM(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    loading._log_other_transformers.cache_clear()
    return caplog


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | values))


def test_a_bundle_that_another_transformers_checked_says_so_once(folder: Path, said: pytest.LogCaptureFixture) -> None:
    change(folder / "proof.json", transformers="5.1.0", scratchgpt_version=CODE_VERSION)
    load_model(folder)
    load_model(folder)
    assert said.messages == [
        f"{folder} was checked with transformers 5.1.0, and transformers {HERE} is installed: to check it with that, "
        f"run `python -m hub_export verify {folder}`"
    ]


@pytest.mark.parametrize("record", [None, "{}", '{"made_by": "scratchgpt"}', f'{{"transformers": "{HERE}"}}', "[", "3"])
def test_no_record_or_the_same_transformers_is_nothing_to_say(
    folder: Path, said: pytest.LogCaptureFixture, record: str | None
) -> None:
    if record is not None:
        (folder / "proof.json").write_text(record)
    load_model(folder)
    assert not said.messages


def test_a_config_of_a_newer_scratchgpt_says_which_is_needed(folder: Path) -> None:
    change(folder / "config.json", scratchgpt_version="7.2.0", mixture_of_depths=3)
    message = (
        rf"^cannot load the model in {folder}: ScratchGPT 7\.2\.0 wrote it, and this is ScratchGPT {CODE_VERSION} "
        r"\(ScratchGPTConfig has no field 'mixture_of_depths'\); get ScratchGPT 7\.2\.0 or a newer one, and run the "
        r"same command there$"
    )
    with pytest.raises(ValueError, match=message):
        load_model(folder)


@pytest.mark.parametrize("wrong", ["missing", "more", "larger"])
def test_weights_of_a_newer_scratchgpt_say_which_is_needed(folder: Path, wrong: str) -> None:
    weights = load_file(folder / "model.safetensors")
    if wrong == "missing":
        del weights["model.layers.0.mlp.up_proj.weight"]
    elif wrong == "more":
        weights["model.layers.0.mlp.router.weight"] = torch.zeros(2, 8)
    else:
        weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(99, 8)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    change(folder / "config.json", scratchgpt_version="7.2.0")
    message = rf"ScratchGPT 7\.2\.0 wrote it, and this is ScratchGPT {CODE_VERSION} \(.*model\.layers\.0\.mlp\.\w+"
    with pytest.raises(ValueError, match=message):
        load_model(folder)


def test_a_newer_scratchgpt_whose_model_is_as_ours_loads(folder: Path, said: pytest.LogCaptureFixture) -> None:
    change(folder / "config.json", scratchgpt_version="7.2.0")
    load_model(folder)
    assert not said.messages


@pytest.mark.parametrize("version", [None, CODE_VERSION, "0.1.0"])
def test_an_unknown_field_of_no_newer_version_is_told_as_it_is(folder: Path, version: str | None) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.pop("scratchgpt_version", None)
    config |= {"hiden_size": 8} | ({"scratchgpt_version": version} if version else {})
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"ScratchGPTConfig has no field 'hiden_size'; did you mean hidden_size"):
        load_model(folder)


def test_a_folder_of_version_0_1_0_loads_without_a_word(folder: Path, said: pytest.LogCaptureFixture) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.pop("scratchgpt_version", None)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "kernels_scratchgpt.py").write_text("raise ImportError('code of another version is not run')\n")
    load_model(folder)
    assert not said.messages
