"""One training step of the science-fiction recipe's model against transformers' GPT2LMHeadModel.

Both models are 6 layers, 256 wide, context 256, vocabulary 8,257, dropout 0.2 everywhere. Ours has the recipe's 6 heads
of 42, ReLU and an output layer of its own; GPT-2 has 4 heads of 64, since its heads must divide its width. A step is
forward, loss, backward, and fused AdamW, in the same precision for both. The two take turns.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from transformers import GPT2LMHeadModel

from benchmarks._rounds import CONTEXT, VOCABULARY, gpt2_config, take_turns
from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from train.kernels import use_kernels
from train.objective import ModelWithLoss


def build_ours(dropout: float, device: str = "cpu") -> torch.nn.Module:
    """The model of the recipe with its loss, as `python -m train` trains it."""
    config = ScratchGPTConfig(
        vocab_size=VOCABULARY, embedding_dropout=dropout, attention_dropout=dropout, residual_dropout=dropout
    )
    model = ScratchGPTForCausalLM(config)
    use_kernels(model, device)
    return ModelWithLoss(model)


def make_step(model: torch.nn.Module, inputs: dict[str, Any], precision: str) -> Callable[[], float]:
    """A function that takes one step and returns the loss in nats a token."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    device = next(model.parameters()).device.type

    def step() -> float:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            outputs = model(**inputs)
            loss = outputs if isinstance(outputs, torch.Tensor) else outputs.loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def run(
    *,
    batch_size: int = 32,
    sequence_length: int = CONTEXT,
    steps: int = 7,
    dropout: float = 0.2,
    precision: str = "fp32",
    device: str = "cpu",
    threads: int | None = None,
) -> dict[str, Any]:
    """Time `steps` steps of each model, after one unmeasured step of each.

    batch_size is in sequences of sequence_length tokens; precision is fp32, or bf16 (autocast); threads defaults to
    torch's own choice. Returns seconds a step (medians), tokens a second, and `speedup`, ours over GPT-2's.
    """
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision must be fp32 or bf16; got {precision!r}.")
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    ids_BL = torch.randint(VOCABULARY, (batch_size, sequence_length + 1), device=device)
    ours = {"input_BL": ids_BL[:, :-1], "target_BL": ids_BL[:, 1:]}
    theirs = {"input_ids": ids_BL[:, :-1], "labels": ids_BL[:, :-1], "use_cache": False}
    gpt2: Any = GPT2LMHeadModel(gpt2_config(dropout))
    takers = {
        "scratchgpt": make_step(build_ours(dropout, device).to(device), ours, precision),
        "gpt2": make_step(gpt2.to(device), theirs, precision),
    }
    seconds = take_turns(takers, steps)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    tokens = batch_size * sequence_length
    return {
        "batch_size": batch_size,
        "sequence_length": sequence_length,
        "dropout": dropout,
        "precision": precision,
        "device": device,
        "threads": torch.get_num_threads(),
        **{f"{name}_seconds": median for name, median in medians.items()},
        **{f"{name}_tokens_per_second": tokens / median for name, median in medians.items()},
        "speedup": medians["gpt2"] / medians["scratchgpt"],
    }
