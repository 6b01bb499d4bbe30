"""Hiding tokens for masked language modelling (BERT, arXiv:1810.04805, section 3.1).

Masks are dynamic (RoBERTa, arXiv:1907.11692, section 4.1): a window that occurs again is masked elsewhere. They depend
on the seed and on the batch's position alone, so that a resumed run draws what an unbroken one would have drawn.

Axes: B windows, L tokens of context.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from train.data.batches import IGNORED, Batch, Batches

MASKED_SHARE = 0.8  # of the selected tokens: these become the mask token …
RANDOM_SHARE = 0.1  # … these a random one, and the rest stays what it is
VALIDATION_SEED = 0  # of the masks of validation windows, whatever the seed of the run
MASK_STREAM, SINGLE_STREAM = 0x6D61736B, 0x6F6E65  # keep draws apart from those of windows, and from each other


def mask_tokens(
    input_BL: torch.Tensor,
    *,
    generator: np.random.Generator,
    mask_token_id: int,
    vocab_size: int,
    special_ids: Sequence[int],
    rate: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Select tokens to predict and hide them: 80 % become the mask token, 10 % a random one, 10 % stay.

    Each token that is not special is selected by itself with probability `rate`; where that selects none, one is drawn,
    so that the loss of a batch is never empty. Random tokens are drawn from those that are not special.

    Args:
        input_BL: ids, int64; left as it is.
        generator: where the random numbers come from; a call advances it.
        mask_token_id: the id that hides.
        vocab_size: ids run from 0 to below this.
        special_ids: ids that are never selected and never drawn.
        rate: share of the tokens selected, more than 0 and less than 1.

    Returns:
        (hidden input (B, L), targets (B, L): the token where one was selected, -100 elsewhere).

    """
    special = np.unique(np.asarray(list(special_ids), dtype=np.int64))
    ids_BL = input_BL.numpy()
    ordinary_BL = ~np.isin(ids_BL, special)
    selected_BL = (generator.random(ids_BL.shape) < rate) & ordinary_BL
    if not selected_BL.any() and ordinary_BL.any():
        selected_BL.flat[generator.choice(np.flatnonzero(ordinary_BL))] = True
    fate_BL = generator.random(ids_BL.shape)
    random_BL = generator.integers(vocab_size - len(special), size=ids_BL.shape)
    for token_id in special:
        random_BL += random_BL >= token_id
    hidden_BL = np.where(selected_BL & (fate_BL < MASKED_SHARE), mask_token_id, ids_BL)
    replaced_BL = selected_BL & (fate_BL >= MASKED_SHARE) & (fate_BL < MASKED_SHARE + RANDOM_SHARE)
    hidden_BL = np.where(replaced_BL, random_BL, hidden_BL)
    target_BL = np.where(selected_BL, ids_BL, IGNORED)
    return torch.from_numpy(hidden_BL), torch.from_numpy(target_BL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Masking:
    """How a run hides tokens."""

    mask_token_id: int  # the id that hides
    vocab_size: int  # of the tokenizer, special tokens included
    special_ids: tuple[int, ...]  # never selected and never drawn
    rate: float  # share of the tokens selected

    @classmethod
    def of(cls, tokenizer: Any, rate: float) -> "Masking":
        """For a tokenizer of transformers.

        Raises:
            ValueError: for a tokenizer without a mask token.
        """
        if tokenizer.mask_token_id is None:
            raise ValueError(
                "data.objective masked: expected a tokenizer with a mask token, got one without; "
                "train a new one, or add it with tokenization.trainers.add_mask_token"
            )
        return cls(
            mask_token_id=tokenizer.mask_token_id,
            vocab_size=len(tokenizer),
            special_ids=tuple(tokenizer.all_special_ids),
            rate=rate,
        )

    def hide(self, input_BL: torch.Tensor, generator: np.random.Generator) -> Batch:
        """`mask_tokens` with these settings."""
        return Batch(
            *mask_tokens(
                input_BL,
                generator=generator,
                mask_token_id=self.mask_token_id,
                vocab_size=self.vocab_size,
                special_ids=self.special_ids,
                rate=self.rate,
            )
        )

    def hide_fixed(self, batches: Sequence[Batch]) -> list[Batch]:
        """Validation windows under masks that are the same in every run, however the windows are batched."""
        sizes = [len(batch.input_BL) for batch in batches]
        generator = np.random.default_rng([VALIDATION_SEED, MASK_STREAM])
        whole = self.hide(torch.cat([batch.input_BL for batch in batches]), generator)
        return [Batch(*pair) for pair in zip(whole.input_BL.split(sizes), whole.target_BL.split(sizes), strict=True)]

    def hide_one(self, batches: Sequence[Batch]) -> list[Batch]:
        """Validation windows with one token hidden in each, the same one in every run.

        A window of special tokens alone has none to hide.
        """
        generator = np.random.default_rng([VALIDATION_SEED, SINGLE_STREAM])
        return [self._hide_one(batch.input_BL, generator) for batch in batches]

    def _hide_one(self, input_BL: torch.Tensor, generator: np.random.Generator) -> Batch:
        ordinary_BL = ~np.isin(input_BL.numpy(), self.special_ids)
        rows = torch.from_numpy(np.flatnonzero(ordinary_BL.any(axis=1)))
        chosen = np.where(ordinary_BL, generator.random(ordinary_BL.shape), -1.0).argmax(axis=1)
        columns = torch.from_numpy(chosen)[rows]
        hidden_BL, target_BL = input_BL.clone(), torch.full_like(input_BL, IGNORED)
        target_BL[rows, columns] = input_BL[rows, columns]
        hidden_BL[rows, columns] = self.mask_token_id
        return Batch(hidden_BL, target_BL)


class MaskedBatches:
    """The inputs of other batches, some of their tokens hidden and to be predicted.

    Args:
        batches: where windows come from; their own targets are not used.
        masking: how tokens are hidden.
        seed: of the masks, together with the position of `batches`.
    """

    def __init__(self, batches: Batches, masking: Masking, *, seed: int):
        self.batches, self.masking, self.seed = batches, masking, seed

    def next(self) -> Batch:
        """The next batch; its mask depends on the seed and on the position before it."""
        position = self.state_dict().values()
        generator = np.random.default_rng([self.seed, *position, MASK_STREAM])
        return self.masking.hide(self.batches.next().input_BL, generator)

    def state_dict(self) -> dict[str, int]:
        """The position of the batches below."""
        return self.batches.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position."""
        self.batches.load_state_dict(state)
