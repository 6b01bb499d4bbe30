"""What the project's own environment computes from a bundle, for the checks to compare with.

`python -m tests.compat.reference FOLDER` writes FOLDER.safetensors and FOLDER.json beside the bundle; the folder's name
is its kind (modern, classic or masked). It uses the project's own classes, eager attention, and no cache.
"""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM

PROBE = "A tale of Ädä 🦊, the 42 millers;\n\n\tand it's  <|endoftext|> done. \r\n"
"""A text with what tokenizers get wrong."""
PROMPTS = ("About Albert the gardener", "A tale of Ada")
LENGTH = {"modern": 90, "classic": 60, "masked": 60}
"""Tokens of a text: beyond the debug recipe's context of 64 where positions are rotary."""
NEW_TOKENS = {"modern": 60, "classic": 36, "masked": 0}
SCALED: dict[str, dict[str, Any]] = {
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    "dynamic": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
    "yarn": {
        "max_position_embeddings": 128,
        "rope_parameters": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64},
    },
    "llama3": {
        "max_position_embeddings": 128,
        "rope_parameters": {
            **{"rope_type": "llama3", "factor": 2.0, "original_max_position_embeddings": 64},
            **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
        },
    },
}
"""Fields of a config.json that scale the rotary positions to a longer context."""
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id")
CONFIG_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim"),
    *("num_key_value_heads", "max_position_embeddings", "hidden_act", "initializer_range", "tie_word_embeddings"),
    *("norm", "norm_position", "position_embedding", "qk_norm", "gated_mlp", "attention_bias", "mlp_bias"),
    *("lm_head_bias", "use_cache", "bos_token_id", "eos_token_id"),
)


def make_reference(folder: Path) -> None:
    """Write what the checks compare with, beside the bundle `folder`."""
    kind = folder.name
    head, other = ScratchGPTForCausalLM, ScratchGPTForMaskedLM
    if kind == "masked":
        head, other = other, head
    torch.manual_seed(0)
    model: Any = head.from_pretrained(folder, attn_implementation="eager").eval()
    tensors, facts = texts_of(model, kind), tokens_of(folder, model, kind)
    with torch.no_grad():
        opposite: Any = other.from_pretrained(folder, attn_implementation="eager").eval()
        tensors["other_head"] = opposite(tensors["input_ids"]).logits
        for rope_type, settings in SCALED.items() if kind == "modern" else ():
            config = ScratchGPTConfig.from_pretrained(folder, **copy.deepcopy(settings))
            scaled: Any = head.from_pretrained(folder, config=config, attn_implementation="eager").eval()
            tensors[f"scaled.{rope_type}"] = scaled(tensors["input_ids"]).logits
    facts |= {"scaled": SCALED, "fresh": fresh_statistics(head(model.config))}
    facts["config"] = {name: getattr(model.config, name) for name in CONFIG_FIELDS}
    facts["new_tokens"] = NEW_TOKENS[kind]
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder.with_suffix(".safetensors")
    )
    folder.with_suffix(".json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def texts_of(model: Any, kind: str) -> dict[str, torch.Tensor]:
    """Random ids and what the model makes of them: logits, hidden states, loss, and the loss after a step of SGD."""
    ordinary = model.config.vocab_size - 4  # without the special tokens at the end
    ids = torch.randint(ordinary, (2, LENGTH[kind]))
    labels = ids if kind != "masked" else torch.where(torch.rand(ids.shape) < 0.3, ids, -100)
    mask = torch.ones_like(ids)
    mask[0, 40:] = 0
    with torch.no_grad():
        outputs = model(ids, labels=labels, output_hidden_states=True)
        alone = [model(row[keep.bool()][None]).logits[0] for row, keep in zip(ids, mask, strict=True)]
    stepped = copy.deepcopy(model)
    stepped(ids, labels=labels).loss.backward()
    torch.optim.SGD(stepped.parameters(), lr=0.01).step()
    with torch.no_grad():
        after = stepped(ids, labels=labels).loss
    return {
        "input_ids": ids, "labels": labels, "logits": outputs.logits, "loss": outputs.loss, "loss_after_step": after,
        "hidden": outputs.hidden_states[-1], "hidden_first": outputs.hidden_states[0],
        "padded_ids": ids, "padded_mask": mask, "padded_logits": torch.cat(alone),
    }  # fmt: skip


def tokens_of(folder: Path, model: Any, kind: str) -> dict[str, Any]:
    """Texts and their ids, by tokenizer.json; of a masked model what it fills a blank with."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    facts = {
        "kind": kind,
        "prompts": PROMPTS,
        "prompt_ids": [tokenizer(prompt)["input_ids"] for prompt in PROMPTS],
        "probe": PROBE,
        "probe_ids": tokenizer(PROBE)["input_ids"],
        "special_ids": {name: getattr(tokenizer, name) for name in SPECIAL if getattr(tokenizer, name) is not None},
    }
    if kind == "masked":
        blank = f"About Albert{tokenizer.mask_token} gardener"
        batch = tokenizer(blank, return_tensors="pt")
        place = batch["input_ids"][0].tolist().index(tokenizer.mask_token_id)
        with torch.no_grad():
            logits = model(batch["input_ids"]).logits[0, place]
        facts |= {"blank": blank, "filled": logits.topk(3).indices.tolist()}
    return facts


def fresh_statistics(model: Any) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each parameter of a model that was not loaded."""
    named = ((name, weight.detach().double()) for name, weight in model.named_parameters())
    return {name: (weight.mean().item(), weight.std(correction=0).item()) for name, weight in named}


if __name__ == "__main__":
    make_reference(Path(sys.argv[1]).resolve())
