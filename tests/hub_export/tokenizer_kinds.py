"""A finished run for each kind of tokenizer."""

import json
from pathlib import Path
from typing import Any

from storage.run_folder import RunFolder
from tests.hub_export.families import CLASSIC, TEXT, save_model
from tokenization.trainers import add_mask_token, load_gpt2, train_vocabulary

SIZES = {"bpe": 300, "wordpiece": 120, "sentencepiece": 330, "characters": 0}
KINDS = (*SIZES, "gpt2")


def make_tokenizer(kind: str, scratch: Path) -> Any:
    """A tiny tokenizer of a kind; GPT-2's from a local folder with few merges."""
    if kind != "gpt2":
        return train_vocabulary(kind, [TEXT], SIZES[kind])
    from tokenization.tokenization_scratchgpt import byte_alphabet

    tokens = [*byte_alphabet(), "Ġm", "Ġt", "<|endoftext|>"]
    (scratch / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (scratch / "merges.txt").write_text("#version: 0.2\nĠ m\nĠ t\n")
    return load_gpt2(scratch)


def make_run(run: Path, kind: str, *, masked: bool) -> Path:
    """A finished run with one checkpoint, of random weights."""
    run.mkdir(parents=True)
    tokenizer = make_tokenizer(kind, run)
    if masked:
        tokenizer = add_mask_token(tokenizer)
    save_model(run / "checkpoints" / "step-000010", tokenizer, masked=masked, **CLASSIC)
    evaluation = {"validation_loss": 1.25, "perplexity": 3.490343, "bits_per_byte": 0.55}
    sample = {"step": 10, "prompt": "The", "text": "The moon"}
    if masked:
        evaluation = {"validation_loss": 1.25, "masked_perplexity": 3.490343, "pseudo_perplexity": 2.5}
        sample = {"step": 10, "prompt": "The <|mask|> rose", "text": "The moon rose"}
    folder, best = RunFolder(run), "checkpoints/step-000010"
    folder.write_state({"step": 10, "best_checkpoint": best, "latest_checkpoint": best, "evaluation": evaluation})
    data = {"objective": "masked" if masked else "causal", "mask_rate": 0.2}
    folder.write_recipe({"recipe": "tiny", "config": {"corpus": {}, "data": data}})
    folder.write_prompts(["The robot saw three moons"])
    folder.append_metrics({"step": 10, "tokens_seen": 640, "train_loss": 1.3, **evaluation})
    folder.append_sample(sample)
    return run
