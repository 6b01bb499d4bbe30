from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hub_export.weights import read_weights
from modeling import ScratchGPTForCausalLM


def test_counts_the_stored_numbers(pristine_run: Path) -> None:
    checkpoint = pristine_run / "checkpoints" / "step-000010"
    weights = read_weights(checkpoint)
    assert weights.parameters == ScratchGPTForCausalLM.from_pretrained(checkpoint).num_parameters()
    assert weights.dtypes == ("F32",)
    assert weights.size_bytes == (checkpoint / "model.safetensors").stat().st_size


def test_names_every_number_format(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    weights = read_weights(tmp_path)
    assert (weights.parameters, weights.dtypes) == (10, ("BF16", "F32"))


@pytest.mark.parametrize("content", [b"", b"no safetensors file at all", b"\xff" * 64])
def test_a_broken_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="expected a whole safetensors file, but it cannot be read"):
        read_weights(tmp_path)


def test_a_file_without_tensors_is_an_error(tmp_path: Path) -> None:
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="the file holds no tensor"):
        read_weights(tmp_path)
