"""The loss of any text under any language model of transformers; `python -m train.evaluate` explains the numbers."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from modeling.generation import start_ids
from modeling.infilling import surroundings
from modeling.inspection import scoring_context, text_windows
from storage.text import count_bytes
from tokenization import encode_corpus
from train.data.batches import IGNORED
from train.objective import ModelWithLoss, perplexity

HIDING_TOKENS = 8192  # of a batch of copies of a window, in each of which another token is hidden
NO_TOKENS = "expected a text of at least one token, got an empty one"


@torch.no_grad()
def evaluate_text(model: Any, tokenizer: Any, texts: Iterable[str]) -> dict[str, float]:
    """`loss`, `perplexity`, `bits_per_byte`, `tokens` and `bytes` of texts under any causal LM of transformers.

    Raises:
        ValueError: for texts without a token, or a tokenizer without a token to begin with.
    """
    start = start_ids(model, tokenizer)
    if not start:
        raise ValueError("expected a tokenizer with a beginning- or end-of-text token, got one with neither")
    context = scoring_context(model)
    model.eval()
    total, tokens, size = 0.0, 0, ByteCounter()
    for ids in encode_corpus(tokenizer, size.count(texts)):
        for window, scored in text_windows([*start, *ids.tolist()], context):
            input_1L = torch.tensor([window], device=model.device)
            logits_LV = model(input_ids=input_1L, use_cache=False).logits[0, -scored - 1 : -1].float()
            total += F.cross_entropy(logits_LV, input_1L[0, -scored:], reduction="sum").item()
            tokens += scored
    if not tokens:
        raise ValueError(NO_TOKENS)
    loss = total / tokens
    return {
        "loss": loss,
        "perplexity": perplexity(loss),
        "bits_per_byte": total / math.log(2) / size.bytes,
        "tokens": tokens,
        "bytes": size.bytes,
    }


@dataclass(slots=True)
class ByteCounter:
    """Counts the UTF-8 bytes of the texts that pass through it."""

    bytes: int = 0

    def count(self, texts: Iterable[str]) -> Iterator[str]:
        """The texts, counted."""
        for text in texts:
            self.bytes += count_bytes(text)
            yield text


def middle_windows(length: int, context: int) -> Iterator[tuple[int, int, range]]:
    """Windows over `length` tokens, overlapping by half, in which every token is once near the middle.

    Yields:
        (start and end of a window, the tokens that are scored in it); a token that is not near an end of the text has
        at least a quarter of the context on each side.
    """
    done = 0
    while done < length:
        start = max(0, min(done - context // 4, length - context))
        end = min(length, start + context)
        border = length if end == length else start + context - context // 4
        yield start, end, range(done, border)
        done = border


@torch.no_grad()
def evaluate_masked_text(
    model: Any, tokenizer: Any, texts: Iterable[str], *, limit: int | None = None, progress: bool = False
) -> dict[str, float]:
    """`loss`, `pseudo_perplexity`, `tokens` and `bytes` of texts under any masked LM of transformers.

    Args:
        limit: hide so many tokens at most, evenly spread over all of them; None: every one.
        progress: show a progress bar.

    Raises:
        ValueError: for texts without a token to hide, a tokenizer without a mask token, or a limit below 1.
    """
    if tokenizer.mask_token_id is None:
        raise ValueError("expected the tokenizer of a masked language model, got one without a mask token")
    if limit is not None and limit < 1:
        raise ValueError(f"--tokens: expected at least 1, got {limit}")
    context = scoring_context(model)
    before, after = (np.array(ids, dtype=np.int64) for ids in surroundings(model, tokenizer))
    size = ByteCounter()
    sequences = [np.concatenate([before, ids, after]) for ids in encode_corpus(tokenizer, size.count(texts))]
    special = list(tokenizer.all_special_ids)
    scored = [~np.isin(sequence, special) for sequence in sequences]
    count = sum(int(places.sum()) for places in scored)
    if not count:
        raise ValueError(NO_TOKENS)
    chosen = np.ones(count, dtype=bool)
    if limit is not None and limit < count:
        chosen = np.isin(np.arange(count), np.linspace(0, count - 1, limit).round().astype(int))
    ends = np.cumsum([places.sum() for places in scored])[:-1]
    for places, kept in zip(scored, np.split(chosen, ends), strict=True):
        places[places] = kept
    model.eval()
    total, done = 0.0, 0
    with tqdm(total=int(chosen.sum()), desc="hiding", unit="token", dynamic_ncols=True, disable=not progress) as bar:
        for sequence, places in zip(sequences, scored, strict=True):
            for start, end, candidates in middle_windows(len(sequence), context):
                positions = candidates.start + np.flatnonzero(places[candidates.start : candidates.stop])
                for part in np.split(positions, range(rows := max(1, HIDING_TOKENS // context), len(positions), rows)):
                    if len(part):
                        total += hidden_loss(model, sequence[start:end], part - start, tokenizer.mask_token_id)
                        done += len(part)
                        bar.update(len(part))
    return {
        "loss": total / done,
        "pseudo_perplexity": perplexity(total / done),
        "tokens": done,
        "bytes": size.bytes,
    }


def hidden_loss(model: Any, window: np.ndarray, positions: np.ndarray, mask_token_id: int) -> float:
    """Sum of the losses, in nats, of the tokens at `positions` of a window, each hidden alone in a copy of it."""
    input_BL = torch.from_numpy(window).long().repeat(len(positions), 1)
    target_BL = torch.full_like(input_BL, IGNORED)
    rows, columns = torch.arange(len(positions)), torch.from_numpy(positions)
    target_BL[rows, columns] = input_BL[rows, columns]
    input_BL[rows, columns] = mask_token_id
    input_BL, target_BL = input_BL.to(model.device), target_BL.to(model.device)
    if model.config.model_type == "scratchgpt":
        return ModelWithLoss(model)(input_BL, target_BL).item() * len(positions)
    return model(input_ids=input_BL, labels=target_BL).loss.item() * len(positions)
