"""A tiny model and its tokenizer in the layout of a checkpoint, made once for all tests of the panels."""

import json
from pathlib import Path

import pytest
import torch

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from tokenization import ScratchGPTTokenizer, save_tokenizer, train_bpe

CONTEXT = 48
TEXT = (
    "The lamp burned low. “Do you hear it?” she asked, and nobody in the café answered. "
    "The sea was quiet, the ship was quiet, and the captain drew a line on the map from Zürich to the stars."
)
PROMPTS = ["The lamp burned", "She asked, and"]


def save_checkpoint(folder: Path, *, end_of_text: bool = False, context: int = CONTEXT) -> Path:
    """A checkpoint folder with a random model. It hardly ever ends a text by itself, or always with `end_of_text`."""
    tokenizer = ScratchGPTTokenizer.from_merges(train_bpe([TEXT], 320))
    torch.manual_seed(0)
    config = ScratchGPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = ScratchGPTForCausalLM(config)
    with torch.no_grad():
        model.lm_head.bias[tokenizer.eos_token_id] = 100.0 if end_of_text else -100.0
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with prompts beside the weights."""
    folder = save_checkpoint(tmp_path_factory.mktemp("models") / "tiny")
    (folder / "prompts.json").write_text(json.dumps(PROMPTS))
    return folder


@pytest.fixture(scope="session")
def loaded(checkpoint: Path):
    """The checkpoint, loaded."""
    from panels.models import load_model

    return load_model(checkpoint)
