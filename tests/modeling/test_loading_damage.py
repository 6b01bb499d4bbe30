"""A model folder whose files changed since they were written is refused when it is loaded, and the file is named."""

import json
import logging
from pathlib import Path

import pytest
import torch

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.loading import load_model
from storage.checksums import file_checksum, write_checksums


def make_model(folder: Path) -> Path:
    torch.manual_seed(0)
    config = ScratchGPTConfig(vocab_size=17, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    ScratchGPTForCausalLM(config).save_pretrained(folder)
    return folder


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 1
    path.write_bytes(raw)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two checkpoints."""
    for step in (4, 8):
        folder = make_model(tmp_path / "run" / "checkpoints" / f"step-{step:06}")
        (folder / "training").mkdir()
        (folder / "training" / "state.json").write_text("{} of a length")
        write_checksums(folder)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"best_checkpoint": "checkpoints/step-000008"}))
    return tmp_path / "run"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A model with the record of its check."""
    folder = make_model(tmp_path / "bundle")
    sums = {path.name: file_checksum(path) for path in folder.iterdir()}
    (folder / "proof.json").write_text(json.dumps({"sha256": sums}))
    return folder


def test_a_damaged_checkpoint_is_named_and_the_last_good_one_offered(run: Path) -> None:
    last = run / "checkpoints" / "step-000008"
    assert load_model(last, device="cpu").config.vocab_size == 17
    flip(last / "model.safetensors")
    offered = r"but model\.safetensors does not have the checksum .*Take the last good checkpoint, .*step-000004\. "
    with pytest.raises(ValueError, match=offered):
        load_model(last, device="cpu")


def test_what_only_a_resume_reads_may_be_damaged(run: Path) -> None:
    last = run / "checkpoints" / "step-000008"
    flip(last / "training" / "state.json")
    assert load_model(last, device="cpu").config.vocab_size == 17


def test_a_damaged_bundle_is_named(bundle: Path) -> None:
    assert load_model(bundle, device="cpu").config.vocab_size == 17
    flip(bundle / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"expected the model that was checked, but model\.safetensors does not.*verify"
    ):
        load_model(bundle, device="cpu")


def test_an_edited_config_of_a_bundle_is_logged(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = bundle / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": 0.5}))
    with caplog.at_level(logging.WARNING):
        load_model(bundle, device="cpu")
    assert "generation_config.json does not have the checksum it had when written (changed by hand" in caplog.text


def test_a_record_that_is_damaged_itself_stops_nothing(bundle: Path) -> None:
    for record in ("{", '{"sha256": ["x"]}', '{"sha256": "x"}', "[]"):  # other programs have files of that name too
        (bundle / "proof.json").write_text(record)
        assert load_model(bundle, device="cpu").config.vocab_size == 17


def test_a_loaded_model_does_not_depend_on_its_file(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    model = load_model(folder, device="cpu")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = folder / "model.safetensors"
    size = path.stat().st_size
    with path.open("r+b") as stream:  # in place, as `cp` writes a file that is there
        stream.write(bytes(size))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    path.write_bytes(b"")  # reading what was mapped would end this process with SIGBUS
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
