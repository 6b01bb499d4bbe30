"""A model folder, for the tests of loading."""

from pathlib import Path

import pytest
import torch

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny causal model as `save_pretrained` writes it; change it as you like."""
    torch.manual_seed(0)
    config = ScratchGPTConfig(vocab_size=17, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    ScratchGPTForCausalLM(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"
