"""The model that another one learns from (`--teacher`, knowledge distillation: Hinton et al., arXiv:1503.02531)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from modeling.loading import load_model
from tokenization import load_tokenizer
from train.base.base_model import find_causal
from train.config import Config


def with_teacher(config: Config) -> Config:
    """The config with the teacher's tokenizer, unless it names one, and the checkpoint that a run folder stands for.

    Raises:
        ValueError: the teacher is not there, is no causal ScratchGPT model, or has another vocabulary.
    """
    given = config.data.teacher
    if given is None:
        return config
    place = find_causal(given, "--teacher")
    path = config.tokenizer.path or place
    if load_tokenizer(path).get_vocab() != load_tokenizer(place).get_vocab():
        raise ValueError(
            f"--teacher {given}: expected the vocabulary of the tokenizer in {path}, got another one; leave out "
            "--tokenizer.path and --from, or choose a model of that tokenizer"
        )
    teacher = str(place) if Path(given).exists() else given
    return replace(config, data=replace(config.data, teacher=teacher), tokenizer=replace(config.tokenizer, path=path))


def load_teacher(config: Config) -> Any:
    """The teacher of a config that `with_teacher` made, on the CPU, in evaluation mode; None where there is none.

    Raises:
        ValueError: it has a shorter context than the run, or other tokens than its tokenizer.
    """
    given = config.data.teacher
    if given is None:
        return None
    place = find_causal(given, "--teacher")
    teacher = load_model(place, device="cpu").eval().requires_grad_(False)
    length, needed = teacher.config.max_position_embeddings, config.model.max_position_embeddings
    if length < needed:
        raise ValueError(
            f"--teacher {given}: expected a context of at least the run's {needed} tokens, got {length}; lower "
            "--model.max-position-embeddings"
        )
    tokens = len(load_tokenizer(place))
    if teacher.config.vocab_size != tokens:
        raise ValueError(
            f"--teacher {given}: expected a tokenizer of {teacher.config.vocab_size} tokens, as the model has, got one "
            f"of {tokens}; put the tokenizer of this model into its folder"
        )
    return teacher
