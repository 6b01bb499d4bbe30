"""Loss, perplexity and bits per byte; `python -m train.evaluate MODEL --text FILE…` prints them as JSON.

The loss of a text is that of its tokens after a beginning-of-text token, in windows of the model's context with half
of it as overlap. Bits per byte do not depend on the tokenizer: total loss in bits over the bytes of the text.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from corpus.local import read_local
from modeling.loading import fetch, find_folder, load_causal_lm
from tokenization import load_tokenizer
from train.batches import IGNORED, Batch
from train.report import perplexity

DEFAULT_CONTEXT = 1024  # for models that know no limit


@torch.no_grad()
def evaluate(
    model: Any, batches: Iterable[Batch], device: torch.device, *, label_name: str = "shift_labels"
) -> tuple[float, int]:
    """Mean loss over all targets of the batches; a batch without a target is left out.

    Args:
        model: called with `input_ids`, `skip_logits` and the targets; in evaluation mode while this runs.
        label_name: the model's argument that takes targets: `shift_labels` (causal) or `labels` (masked).

    Returns:
        (nats per token, number of targets).
    """
    was_training = model.training
    model.eval()
    total, count = torch.zeros((), dtype=torch.float64), 0
    for batch in batches:
        targets = int((batch.target_BL != IGNORED).sum())
        if not targets:
            continue
        labels = {label_name: batch.target_BL.to(device)}
        loss = model(input_ids=batch.input_BL.to(device), skip_logits=True, **labels).loss
        total += loss.double().cpu() * targets
        count += targets
    model.train(was_training)
    return total.item() / max(1, count), count


def text_windows(ids: list[int], context: int) -> Iterable[tuple[list[int], int]]:
    """Windows over a text whose first id is the beginning-of-text token.

    Yields:
        (ids of a window, how many of its last ids are scored); every id but the first is scored once.
    """
    scored = 1
    while scored < len(ids):
        start = 0 if scored == 1 else max(0, scored - context // 2)
        end = min(len(ids), start + context)
        yield ids[start:end], end - scored
        scored = end


@torch.no_grad()
def evaluate_text(model: Any, tokenizer: Any, texts: Iterable[str]) -> dict[str, float]:
    """`loss`, `perplexity`, `bits_per_byte`, `tokens` and `bytes` of texts under any causal LM of transformers.

    Raises:
        ValueError: for texts without a token, or a tokenizer without a token to begin with.
    """
    beginning = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if beginning is None:
        raise ValueError("expected a tokenizer with a beginning- or end-of-text token, got one with neither")
    context = getattr(model.config, "max_position_embeddings", None) or DEFAULT_CONTEXT
    model.eval()
    total, tokens, size = 0.0, 0, 0
    for text in texts:
        size += len(text.encode("utf-8", errors="surrogatepass"))
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        for window, scored in text_windows([beginning, *ids], context):
            input_1L = torch.tensor([window], device=model.device)
            logits_LV = model(input_ids=input_1L, use_cache=False).logits[0, -scored - 1 : -1].float()
            total += F.cross_entropy(logits_LV, input_1L[0, -scored:], reduction="sum").item()
            tokens += scored
    if not tokens:
        raise ValueError("expected a text of at least one token, got an empty one")
    loss = total / tokens
    return {
        "loss": loss,
        "perplexity": perplexity(loss),
        "bits_per_byte": total / math.log(2) / size,
        "tokens": tokens,
        "bytes": size,
    }


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description=__doc__)
    parser.add_argument("model", help="a bundle, a checkpoint, a run folder or a Hub id")
    parser.add_argument("--text", nargs="+", required=True, type=Path, help="text files or folders of .txt")
    given = parser.parse_args(arguments)
    try:
        folder = find_folder(given.model) or fetch(given.model)
        model, tokenizer = load_causal_lm(folder), load_tokenizer(folder)
        result = evaluate_text(model, tokenizer, (document.text for document in read_local(given.text)))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
