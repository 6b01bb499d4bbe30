"""The model that another one learns from (`--teacher`, knowledge distillation: Hinton et al., arXiv:1503.02531)."""

from typing import Any

import torch

from modeling.loading import load_model
from tokenization import load_tokenizer
from train.base.base_model import find_causal
from train.config import Config


def load_teacher(config: Config, device: torch.device, tokenizer: Any = None) -> Any:
    """The model of `data.teacher`, in evaluation mode; None where there is none.

    Args:
        config: of the run.
        device: where the run computes.
        tokenizer: of the run, whose vocabulary the teacher must have; None: it is not there yet.

    Raises:
        ValueError: the model is not there, is no causal ScratchGPT model, or has another vocabulary or a shorter
            context.
    """
    given = config.data.teacher
    if given is None:
        return None
    place = find_causal(str(given), "--teacher")
    teacher = load_model(place, device="cpu").eval().requires_grad_(False)
    if tokenizer is not None and load_tokenizer(place).get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"--teacher {given}: expected the vocabulary of this run, got another one; give --tokenizer.path {given} "
            "too, in a run folder of its own"
        )
    length, needed = teacher.config.max_position_embeddings, config.model.max_position_embeddings
    if length < needed:
        raise ValueError(
            f"--teacher {given}: expected a context of at least the run's {needed} tokens, got {length}; lower "
            "--model.max-position-embeddings"
        )
    return teacher.to(device)
