"""What a model is trained to predict, its loss, and what an evaluation reports: next tokens (causal), those of answers
(chat) or hidden ones (masked).

Numbers that a masked run reports, in nats per hidden token or as a power of e:
- `validation_loss`: mean cross-entropy at the positions that the masking selected in the validation windows;
- `masked_perplexity`: exp(validation_loss). Many tokens are hidden at once, so it is no property of the text;
- `pseudo_perplexity`: that of Salazar et al. (arXiv:1910.14659, section 2.3), where each token is hidden alone, with
  all others in sight. The loop takes one token of each validation window; `python -m train.evaluate` takes every token.
None of them is the perplexity of a causal model, and no bits per byte follow from them: the probabilities of tokens
that see both sides do not multiply to the probability of a text.

Axes in tensor names: B batch, L tokens, N tokens of all sequences in a row, E hidden_size.
"""

import math
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM
from modeling.generation import SamplingSettings, stream
from modeling.infilling import fill_ids
from storage.shards import MARK_ANSWER
from storage.text import replace_surrogates
from tokenization import plain_ids
from tokenization.chat_template import prompt_ids
from train.config import Config
from train.data.batches import IGNORED, Batch, Batches
from train.data.masking import MaskedBatches, Masking
from train.data.prepare import Prepared
from train.device import to_device
from train.numerics.linear_cross_entropy import linear_cross_entropy
from train.pacing.data_parallel import add_gradients, in_threads, thread_count

SAMPLE_BLANK_EVERY, SAMPLE_FIRST_BLANK = 5, 2


class ModelWithLoss(nn.Module):
    """A causal or masked ScratchGPT model and its loss as one module, for DDP, FSDP2 and torch.compile to wrap.

    The loss is that of the model's own forward with labels, computed from the hidden states and the output layer's
    weights: the logits of `cross_entropy_rows` tokens at most exist at a time. The output layer must be a plain
    `nn.Linear`, whose weights are used without calling it.

    Args:
        model: a causal or masked ScratchGPT model.
        teacher: a causal one of the same vocabulary whose probabilities are half of what is learnt in training.
    """

    def __init__(self, model: Any, teacher: Any = None) -> None:
        super().__init__()
        assert type(model.lm_head) is nn.Linear
        self.model = model
        self.teacher = (teacher,)  # a tuple hides it from what trains, moves or saves modules
        self.is_masked = isinstance(model, ScratchGPTForMaskedLM)
        # accelerate reads these off what it is given: the layers that FSDP2 shards one by one, and how to tie weights.
        self._no_split_modules = model._no_split_modules
        self.tie_weights = model.tie_weights

    def forward(
        self, input_BL: torch.Tensor, target_BL: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Mean cross-entropy in nats a target; a scalar.

        Args:
            input_BL: token ids.
            target_BL: the token to predict at each position: the next one, or for a masked model the one that was
                hidden; -100 is left out.
            num_items_in_batch: divides the sum of the losses in place of the number of targets.
        """
        hidden_BLE = self.model.model(input_ids=input_BL, use_cache=False, is_causal=not self.is_masked)[0]
        if self.is_masked:  # few positions have a target: only those go through the output layer
            selected_BL = target_BL != IGNORED
            hidden_NE, target_N = hidden_BLE[selected_BL], target_BL[selected_BL]
        else:
            hidden_NE, target_N = hidden_BLE.flatten(0, 1), target_BL.flatten()
        head, (teacher,), taught = self.model.lm_head, self.teacher, None
        if teacher is not None and self.training:
            with torch.no_grad():
                taught_BLE = teacher.model(input_ids=input_BL, use_cache=False)[0]
            taught = (taught_BLE.flatten(0, 1), teacher.lm_head.weight, teacher.lm_head.bias)
        return linear_cross_entropy(hidden_NE, head.weight, head.bias, target_N, num_items_in_batch, taught)


@torch.no_grad()
def mean_loss(model: Any, batches: Iterable[Batch], device: torch.device) -> float:
    """Mean loss over all targets of the batches, in nats; a batch without a target is left out.

    Args:
        model: a `ModelWithLoss`, as it is or wrapped; in evaluation mode while this runs.
    """
    was_training = model.training
    model.eval()

    def sum_of(batch: Batch) -> tuple[torch.Tensor | float, int]:
        targets = int((batch.target_BL != IGNORED).sum())
        if not targets:
            return 0.0, 0
        return model(batch.input_BL.to(device), batch.target_BL.to(device)).double().cpu() * targets, targets

    batches = list(batches)
    sums = in_threads(sum_of, batches, threads_of(model, device, len(batches)))
    model.train(was_training)
    return float(sum(loss for loss, _ in sums)) / max(1, sum(targets for _, targets in sums))


def threads_of(model: Any, device: torch.device, parts: int) -> int:
    """How many threads share the work: 1 on a GPU, under torch.compile, beside other processes, and with gradient
    checkpointing, which computes dropout again when the pass' generator is gone."""
    if device.type != "cpu" or type(model) is not ModelWithLoss or model.model.model.gradient_checkpointing:
        return 1
    return thread_count(parts, sum(parameter.numel() for parameter in model.parameters()))


def forward_backward(accelerator: Any, model: Any, batch: Batch, micro_batch: int) -> torch.Tensor:
    """Gradients of a batch, over this process' share in micro-batches; return the loss over all processes, a scalar
    on the device, which is not waited for.

    Args:
        model: a `ModelWithLoss` that `accelerator` has prepared.
        micro_batch: windows that are computed at a time, over all processes (`windows_at_a_time`).
    """
    micro_batches = list(zip(batch.input_BL.split(micro_batch), batch.target_BL.split(micro_batch), strict=True))
    # Each micro-batch' sum of losses is divided by the targets of the complete batch, not by its own: parts with
    # unequal numbers of targets then add up to the gradient of one big batch. DDP and FSDP average gradients over
    # the processes where we need their sum, hence the further division of the divisor by their number.
    targets = torch.full((), max(1.0, float((batch.target_BL != IGNORED).sum())), device=accelerator.device)
    per_process = targets / accelerator.num_processes
    total = torch.zeros((), device=accelerator.device)
    rows = slice(accelerator.process_index, None, accelerator.num_processes)
    for index, (input_BL, target_BL) in enumerate(micro_batches):
        input_BL, target_BL = (to_device(ids_BL[rows], accelerator.device) for ids_BL in (input_BL, target_BL))
        # Gradients are exchanged once a step: with the last micro-batch.
        is_last = index == len(micro_batches) - 1
        threads = threads_of(model, accelerator.device, len(input_BL))
        if threads > 1:
            total += add_gradients(model, input_BL, target_BL, per_process, threads)
            continue
        with nullcontext() if is_last else accelerator.no_sync(model):
            loss = model(input_BL, target_BL, num_items_in_batch=per_process)
            accelerator.backward(loss)
        total += loss.detach()
    return accelerator.reduce(total, "mean")  # the mean, since each was multiplied by their number


def perplexity(loss: float) -> float:
    """exp(loss), for a finite loss at most the largest float that JSON readers take; one that is not finite remains."""
    return math.exp(min(loss, 700.0)) if math.isfinite(loss) else loss


class Objective:
    """What differs between the objectives.

    Args:
        config: of the run.
        prepared: its tokenizer and text.
    """

    # The scale of the loss; `run_log.LossScale` explains it.
    loss_label: str
    floor: float | None = None
    bits_per_byte: float = 0.0

    def __init__(self, config: Config, prepared: Prepared) -> None:
        self.config, self.prepared = config, prepared

    @staticmethod
    def model(config: ScratchGPTConfig) -> Any:
        """The model, freshly initialised."""
        raise NotImplementedError

    def training(self, batches: Batches) -> Batches:
        """What is trained on, from windows of the text."""
        return batches

    def evaluation(self, batches: list[Batch]) -> list[Batch]:
        """What is fixed for evaluations, from windows of the training text or of the validation text."""
        return batches

    def validation(self, batches: list[Batch]) -> list[Batch]:
        """The fixed batches of `validation_loss`, from windows of the text."""
        return self.evaluation(batches)

    def metrics(self, model: Any, loss: float, device: torch.device) -> dict[str, float]:
        """What an evaluation reports, from its validation loss."""
        raise NotImplementedError

    def summary(self, evaluation: dict[str, float]) -> str:
        """One sentence on an evaluation."""
        raise NotImplementedError

    def sample_prompts(self) -> list[str]:
        """The prompts of the samples at each checkpoint."""
        raise NotImplementedError

    def sample(self, model: Any, prompt: str, tokens: int) -> tuple[str, str]:
        """What the model is shown, and what it makes of it; the same for the same weights.

        Args:
            tokens: the most that a model which writes may add.
        """
        raise NotImplementedError

    def _decode(self, ids: list[int]) -> str:
        return replace_surrogates(self.prepared.tokenizer.decode(ids))


class CausalObjective(Objective):
    """Predict each next token."""

    loss_label = "loss (nats per token)"

    def __init__(self, config: Config, prepared: Prepared) -> None:
        super().__init__(config, prepared)
        split = prepared.validation
        self.bits_per_byte = (len(split) - 1) / max(1, split.bytes) / math.log(2)
        if split.log_probability is not None:
            self.floor = -split.log_probability / (len(split) - 1)

    @staticmethod
    def model(config: ScratchGPTConfig) -> ScratchGPTForCausalLM:
        return ScratchGPTForCausalLM(config)

    def metrics(self, model: Any, loss: float, device: torch.device) -> dict[str, float]:
        return {
            "validation_loss": loss,
            "perplexity": perplexity(loss),
            "bits_per_byte": loss * self.bits_per_byte,
        }

    def summary(self, evaluation: dict[str, float]) -> str:
        text = (
            f"validation loss {evaluation['validation_loss']:.4f} nats per token, "
            f"perplexity {evaluation['perplexity']:.2f}, {evaluation['bits_per_byte']:.4f} bits per byte"
        )
        if self.floor is None:
            return text
        floor = self.floor * self.bits_per_byte
        return f"{text}; the floor is {floor:.4f}: {evaluation['bits_per_byte'] / floor - 1:.1%} above it"

    def sample_prompts(self) -> list[str]:
        return ["", *self.prepared.prompts[:3]]

    def sample(self, model: Any, prompt: str, tokens: int) -> tuple[str, str]:
        """The prompt, and the prompt with a completion at temperature 1, with the run's seed.

        The text begins where a document begins, as on the page, and ends where the model ends it.
        """
        ids, end = plain_ids(self.prepared.tokenizer, prompt), self.prepared.end_of_text
        settings = SamplingSettings(max_new_tokens=max(1, tokens), seed=self.config.run.seed)
        steps = stream(model, [end, *ids], settings, stop_token_ids=(end,)) if tokens else ()
        return prompt, self._decode([*ids, *(step.token_id for step in steps)])


class ChatObjective(CausalObjective):
    """Predict each next token of the answers in chats; what users say is read only (instruction tuning).

    Loss, perplexity and bits per byte are those of the answers, the end of each answer included.
    """

    loss_label = "loss of the answers (nats per token)"

    def __init__(self, config: Config, prepared: Prepared) -> None:
        Objective.__init__(self, config, prepared)
        marks = prepared.validation.marks
        assert marks is not None
        self.bits_per_byte = len(marks.positions_of(MARK_ANSWER)) / max(1, marks.bytes) / math.log(2)

    def summary(self, evaluation: dict[str, float]) -> str:
        return f"answers: {super().summary(evaluation)}"

    def sample_prompts(self) -> list[str]:
        return self.prepared.prompts[:4]

    def sample(self, model: Any, prompt: str, tokens: int) -> tuple[str, str]:
        """A user's message, and the message with the likeliest answer on a line of its own."""
        ids, end = prompt_ids(self.prepared.tokenizer, [{"role": "user", "content": prompt}]), self.prepared.end_of_text
        settings = SamplingSettings(max_new_tokens=max(1, tokens), temperature=0.0)
        steps = stream(model, ids, settings, stop_token_ids=(end,)) if tokens else ()
        return prompt, f"{prompt}\n{self._decode([step.token_id for step in steps]).strip()}"


class MaskedObjective(Objective):
    """Predict hidden tokens from both sides."""

    loss_label = "masked loss (nats per hidden token)"

    def __init__(self, config: Config, prepared: Prepared) -> None:
        super().__init__(config, prepared)
        self.masking = Masking.of(prepared.tokenizer, config.data.mask_rate)
        self.one_hidden: list[Batch] = []  # the validation windows with one token hidden in each

    @staticmethod
    def model(config: ScratchGPTConfig) -> ScratchGPTForMaskedLM:
        return ScratchGPTForMaskedLM(config)

    def training(self, batches: Batches) -> Batches:
        return MaskedBatches(batches, self.masking, seed=self.config.run.seed)

    def evaluation(self, batches: list[Batch]) -> list[Batch]:
        return self.masking.hide_fixed(batches)

    def validation(self, batches: list[Batch]) -> list[Batch]:
        self.one_hidden = self.masking.hide_one(batches)
        return super().validation(batches)

    def metrics(self, model: Any, loss: float, device: torch.device) -> dict[str, float]:
        return {
            "validation_loss": loss,
            "masked_perplexity": perplexity(loss),
            "pseudo_perplexity": perplexity(mean_loss(model, self.one_hidden, device)),
        }

    def summary(self, evaluation: dict[str, float]) -> str:
        return (
            f"validation loss {evaluation['validation_loss']:.4f} nats per hidden token "
            f"({self.config.data.mask_rate:.0%} hidden; masked perplexity {evaluation['masked_perplexity']:.2f}), "
            f"pseudo-perplexity {evaluation['pseudo_perplexity']:.2f} (one token hidden in each window)"
        )

    def sample_prompts(self) -> list[str]:
        return self.prepared.prompts[:4]

    def sample(self, model: Any, prompt: str, tokens: int) -> tuple[str, str]:
        """A text in which every fifth token is hidden, and the same text with the model's likeliest tokens there."""
        ids, end = plain_ids(self.prepared.tokenizer, prompt), self.prepared.end_of_text
        blanks = range(min(SAMPLE_FIRST_BLANK, len(ids) - 1), len(ids), SAMPLE_BLANK_EVERY) if ids else ()
        hidden = [self.masking.mask_token_id if index in blanks else token for index, token in enumerate(ids)]
        hidden = hidden[: self.config.model.max_position_embeddings - 2]
        filled = fill_ids(model, [end, *hidden, end], self.masking.mask_token_id)[1:-1]
        return self._decode(hidden), self._decode(filled)


OBJECTIVES: dict[str, type[Objective]] = {"causal": CausalObjective, "masked": MaskedObjective, "chat": ChatObjective}
"""By `data.objective`."""
