"""What a model is trained to predict: the next token (causal) or hidden tokens (masked); the loop asks for the rest.

Numbers that a masked run reports, in nats per hidden token or as a power of e:
- `validation_loss`: mean cross-entropy at the positions that the masking selected in the validation windows;
- `masked_perplexity`: exp(validation_loss). Many tokens are hidden at once, so it is no property of the text;
- `pseudo_perplexity`: that of Salazar et al. (arXiv:1910.14659, section 2.3), where each token is hidden alone, with
  all others in sight. The loop takes one token of each validation window; `python -m train.evaluate` takes every token.
None of them is the perplexity of a causal model, and no bits per byte follow from them: the probabilities of tokens
that see both sides do not multiply to the probability of a text.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM
from modeling.generation import SamplingSettings, stream
from modeling.infilling import fill_ids
from tokenization import plain_ids
from train.config import Config
from train.data.batches import Batch, Batches
from train.data.masking import MaskedBatches, Masking, check_rate
from train.data.prepare import Prepared
from train.evaluate import evaluate
from train.run_log import perplexity, summary, writable

SAMPLE_BLANK_EVERY, SAMPLE_FIRST_BLANK = 5, 2


class Objective(Protocol):
    """What differs between the objectives."""

    loss_label: str  # the axis of loss.png
    is_of_the_text: bool  # whether the loss is that of the text, so that bits per byte and a floor make sense

    def model(self, config: ScratchGPTConfig) -> Any:
        """The model, freshly initialised."""
        ...

    def training(self, batches: Batches) -> Batches:
        """What is trained on, from windows of the text."""
        ...

    def validation(self, batches: list[Batch]) -> list[Batch]:
        """The fixed batches of `validation_loss`, from windows of the text."""
        ...

    def metrics(self, model: Any, loss: float, device: torch.device) -> dict[str, float]:
        """What an evaluation reports, from its validation loss."""
        ...

    def summary(self, evaluation: dict[str, float], floor_bits_per_byte: float | None) -> str:
        """One sentence on an evaluation."""
        ...

    def sample(self, model: Any, prompt: str, tokens: int) -> tuple[str, str]:
        """What the model is shown, and what it makes of it; the same for the same weights."""
        ...


def check_objective(config: Config) -> None:
    """Raise a ValueError where settings do not fit the objective."""
    if config.data.objective == "masked":
        check_rate(config.data.mask_rate)
        if config.run.output_tokens:
            raise ValueError(
                "--run.output-tokens: expected 0 with --data.objective masked, since a masked model fills blanks and "
                f"writes no text, got {config.run.output_tokens}"
            )


def build_objective(config: Config, prepared: Prepared) -> Objective:
    """The objective that the config names."""
    return (MaskedObjective if config.data.objective == "masked" else CausalObjective)(config, prepared)


def nats_to_bits_per_byte(prepared: Prepared) -> float:
    """What a loss in nats per token of the validation text is multiplied by."""
    split = prepared.validation
    return (len(split) - 1) / max(1, split.bytes) / math.log(2)


class CausalObjective:
    """Predict each next token."""

    loss_label = "loss (nats per token)"
    is_of_the_text = True

    def __init__(self, config: Config, prepared: Prepared):
        self.config, self.prepared = config, prepared

    def model(self, config: ScratchGPTConfig) -> ScratchGPTForCausalLM:
        """The causal model."""
        return ScratchGPTForCausalLM(config)

    def training(self, batches: Batches) -> Batches:
        """The windows as they are."""
        return batches

    def validation(self, batches: list[Batch]) -> list[Batch]:
        """The windows as they are."""
        return batches

    def metrics(self, model: Any, loss: float, device: torch.device) -> dict[str, float]:
        """Loss, perplexity, bits per byte."""
        return {
            "validation_loss": loss,
            "perplexity": perplexity(loss),
            "bits_per_byte": loss * nats_to_bits_per_byte(self.prepared),
        }

    def summary(self, evaluation: dict[str, float], floor_bits_per_byte: float | None) -> str:
        """With the distance to the floor, where that is known."""
        return summary(evaluation, floor_bits_per_byte)

    def sample(self, model: Any, prompt: str, tokens: int) -> tuple[str, str]:
        """The prompt, and the prompt with a completion of up to so many tokens, at temperature 1, with the run's seed.

        The text begins where a document begins, as on the page, and ends where the model ends it.
        """
        tokenizer, end = self.prepared.tokenizer, self.prepared.end_of_text
        ids = plain_ids(tokenizer, prompt)
        settings = SamplingSettings(max_new_tokens=max(1, tokens), seed=self.config.run.seed)
        steps = stream(model, [end, *ids], settings, stop_token_ids=(end,)) if tokens else ()
        new = [step.token_id for step in steps]
        return prompt, writable(tokenizer.decode([*ids, *new]))


class MaskedObjective:
    """Predict hidden tokens from both sides."""

    loss_label = "masked loss (nats per hidden token)"
    is_of_the_text = False

    def __init__(self, config: Config, prepared: Prepared):
        self.masking = Masking.of(prepared.tokenizer, config.data.mask_rate)
        self.config, self.prepared = config, prepared
        self.one_hidden: list[Batch] = []

    def model(self, config: ScratchGPTConfig) -> ScratchGPTForMaskedLM:
        """The masked model."""
        return ScratchGPTForMaskedLM(config)

    def training(self, batches: Batches) -> Batches:
        """The windows under new masks."""
        return MaskedBatches(batches, self.masking, seed=self.config.run.seed)

    def validation(self, batches: list[Batch]) -> list[Batch]:
        """The windows under fixed masks; kept besides: the same windows with one token hidden in each."""
        self.one_hidden = self.masking.hide_one(batches)
        return self.masking.hide_fixed(batches)

    def metrics(self, model: Any, loss: float, device: torch.device) -> dict[str, float]:
        """Masked loss, its exponential, and the pseudo-perplexity of one token of each validation window."""
        alone, _ = evaluate(model, self.one_hidden, device)
        return {
            "validation_loss": loss,
            "masked_perplexity": perplexity(loss),
            "pseudo_perplexity": perplexity(alone),
        }

    def summary(self, evaluation: dict[str, float], floor_bits_per_byte: float | None) -> str:
        """Names each number."""
        return (
            f"validation loss {evaluation['validation_loss']:.4f} nats per hidden token "
            f"({self.config.data.mask_rate:.0%} hidden; masked perplexity {evaluation['masked_perplexity']:.2f}), "
            f"pseudo-perplexity {evaluation['pseudo_perplexity']:.2f} (one token hidden in each window)"
        )

    def sample(self, model: Any, prompt: str, tokens: int) -> tuple[str, str]:
        """A text in which every fifth token is hidden, and the same text with the model's likeliest tokens there."""
        tokenizer, end = self.prepared.tokenizer, self.prepared.end_of_text
        ids = plain_ids(tokenizer, prompt)
        blanks = range(min(SAMPLE_FIRST_BLANK, len(ids) - 1), len(ids), SAMPLE_BLANK_EVERY) if ids else ()
        hidden = [self.masking.mask_token_id if index in blanks else token for index, token in enumerate(ids)]
        hidden = hidden[: self.config.model.max_position_embeddings - 2]
        filled = fill_ids(model, [end, *hidden, end], self.masking.mask_token_id)[1:-1]
        return writable(tokenizer.decode(hidden)), writable(tokenizer.decode(filled))


def sample_prompts(prompts: Sequence[str], objective: Objective) -> list[str]:
    """The prompts of the samples at each checkpoint: three, and the empty one where the model writes."""
    return ["", *prompts[:3]] if objective.is_of_the_text else list(prompts[:4])
