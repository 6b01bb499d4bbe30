"""A tiny model and its tokenizer in the layout of a checkpoint, for the tests of the panels and of the page."""

import json
from pathlib import Path
from typing import Any

import torch

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM
from panels.models import LoadedModel, ModelLoader
from tokenization import ScratchGPTTokenizer, save_tokenizer, train_bpe

CONTEXT = 48
TEXT = (
    "The lamp burned low. “Do you hear it?” she asked, and nobody in the café answered. "
    "The sea was quiet, the ship was quiet, and the captain drew a line on the map from Zürich to the stars."
)
PROMPTS = ["The lamp burned", "She asked, and"]


def save_checkpoint(folder: Path, *, end_of_text_bias: float = -100.0, layers: int = 2, **settings: Any) -> Path:
    """A checkpoint folder of a random model, which with the default bias never ends a text by itself; `settings` go to
    its config."""
    tokenizer: Any = ScratchGPTTokenizer.from_merges(train_bpe([TEXT], 320))
    torch.manual_seed(0)
    config = ScratchGPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **settings,
    )
    model = ScratchGPTForCausalLM(config)
    with torch.no_grad():
        model.lm_head.bias[tokenizer.eos_token_id] = end_of_text_bias
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    (folder / "prompts.json").write_text(json.dumps(PROMPTS))
    return folder


def save_masked_checkpoint(folder: Path) -> Path:
    """A checkpoint folder of a random masked model."""
    tokenizer: Any = ScratchGPTTokenizer.from_merges(
        train_bpe([TEXT], 320), special_tokens=("<|endoftext|>", "<|mask|>")
    )
    torch.manual_seed(0)
    config = ScratchGPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    ScratchGPTForMaskedLM(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    (folder / "prompts.json").write_text(json.dumps(["The lamp burned low on <b>deck</b>", "Short one"]))
    return folder


def loader_of(loaded: LoadedModel) -> ModelLoader:
    """A loader of a model that is there already."""
    loader = ModelLoader(loaded.source)
    loader._future.set_result(loaded)
    loader.done.set()
    return loader


def save_run(folder: Path) -> Path:
    """A run folder with one checkpoint, evaluated."""
    save_checkpoint(folder / "checkpoints" / "step-000020")
    (folder / "checkpoints" / "step-000020" / "prompts.json").rename(folder / "prompts.json")
    state = {
        "status": "finished",
        "step": 20,
        "best_checkpoint": "checkpoints/step-000020",
        "latest_checkpoint": "checkpoints/step-000020",
        "tokens_seen": 12_000,
        "floor_bits_per_byte": 0.25,
        "evaluation": {"validation_loss": 3.0, "perplexity": 20.1, "bits_per_byte": 1.5},
    }
    (folder / "run.json").write_text(json.dumps(state))
    recipe = {"recipe": "stories", "config": {"corpus": {"source": "stories", "stories": 500, "paths": []}}}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder
