"""Tiny models of both families, random or trained for a moment, in the folders that a checkpoint has."""

from pathlib import Path

import torch

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM
from tests.hub_export.conftest import TEXT
from tests.modeling import families
from tokenization import ScratchGPTTokenizer, save_tokenizer, train_bpe

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 48}
MODERN = {**SMALL, **families.MODERN, "intermediate_size": 48, "norm_eps": 1e-6}
CLASSIC = {**SMALL, "lm_head_bias": False}
GPT2 = {**CLASSIC, "hidden_act": "gelu_new", "attention_bias": True, "tie_word_embeddings": True}


def random_model(vocab_size: int = 300, *, masked: bool = False, **fields) -> ScratchGPTForCausalLM:
    """A model none of whose weights has a special value."""
    torch.manual_seed(0)
    config = ScratchGPTConfig(vocab_size=vocab_size, bos_token_id=1, eos_token_id=1, **fields)
    model = (ScratchGPTForMaskedLM if masked else ScratchGPTForCausalLM)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def save_model(folder: Path, *, steps: int = 0, masked: bool = False, **fields) -> Path:
    """Writes a model and its tokenizer; with `steps` it has learnt to repeat the text of the tests."""
    tokenizer = ScratchGPTTokenizer.from_merges(train_bpe([TEXT], 300))
    model = random_model(len(tokenizer), masked=masked, **fields)
    for name in ("bos_token_id", "eos_token_id"):
        setattr(model.config, name, tokenizer.eos_token_id)
        if not masked:
            setattr(model.generation_config, name, tokenizer.eos_token_id)
    length = model.config.max_position_embeddings
    windows_BL = torch.tensor(tokenizer(TEXT)["input_ids"]).unfold(0, length, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(steps):
        batch_BL = windows_BL[(torch.arange(8) * 7 + step * 13) % len(windows_BL)]
        model(batch_BL, labels=batch_BL).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder
