"""Tiny models of both families, random or trained for a moment, in the folders that a checkpoint has."""

from pathlib import Path
from typing import Any

import torch

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM
from tests.modeling import families
from tokenization import save_tokenizer, train_vocabulary

TEXT = "The robot's three moons rose over the naïve café. The sailor said that the moons don't fall.\n\n" * 4
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 48}
MODERN = {**SMALL, **families.MODERN, "intermediate_size": 48, "norm_eps": 1e-6}
CLASSIC = {**SMALL, "lm_head_bias": False}
GPT2 = {**CLASSIC, "hidden_act": "gelu_new", "attention_bias": True, "tie_word_embeddings": True}


def random_model(vocab_size: int = 300, *, seed: int = 0, masked: bool = False, **fields) -> Any:
    """A model none of whose weights has a special value."""
    torch.manual_seed(seed)
    config = ScratchGPTConfig(vocab_size=vocab_size, bos_token_id=1, eos_token_id=1, **fields)
    model = (ScratchGPTForMaskedLM if masked else ScratchGPTForCausalLM)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def save_model(
    folder: Path, tokenizer: Any = None, *, seed: int = 0, steps: int = 0, masked: bool = False, **fields
) -> Path:
    """Writes a model and its tokenizer (default: BPE); after `steps` it repeats the text of the tests."""
    tokenizer = tokenizer or train_vocabulary("bpe", [TEXT], 300)
    model = random_model(len(tokenizer), seed=seed, masked=masked, **fields)
    for config in (model.config,) if masked else (model.config, model.generation_config):
        config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(steps):
        windows_BL = torch.tensor(tokenizer(TEXT)["input_ids"]).unfold(0, model.config.max_position_embeddings, 1)
        batch_BL = windows_BL[(torch.arange(8) * 7 + step * 13) % len(windows_BL)]
        model(batch_BL, labels=batch_BL).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder
