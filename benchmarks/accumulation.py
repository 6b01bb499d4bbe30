"""What gradient accumulation costs on the CPU: the forward and backward passes of a step of one batch, and of the same
batch in 2, 4 and 8 micro-batches.

`computed` are the windows that a run computes at a time (`train.pacing.data_parallel.windows_at_a_time`), `ratio` its
seconds over those of one batch, `apart` the ratio where each micro-batch is computed on its own, as on a GPU. All take
turns in one process, with torch's number of threads, in the recipe's precision here.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from modeling import ScratchGPTForCausalLM
from train.data.batches import Batch, micro_batch_size
from train.device import make_accelerator, precision_of
from train.kernels import use_kernels
from train.objective import ModelWithLoss, forward_backward
from train.pacing.data_parallel import windows_at_a_time
from train.recipes import get_recipe

WINDOWS = 16
MICRO_BATCHES = (1, 2, 4, 8)


def run(*, recipes: Sequence[str] = ("stories", "scifi"), rounds: int = 5) -> dict[str, Any]:
    """By recipe: its precision, seconds of one batch of `WINDOWS` windows, and by micro-batches `computed`, `ratio` and
    `apart`; medians over the rounds."""
    return {"threads": torch.get_num_threads(), **{recipe: _measure(recipe, rounds) for recipe in recipes}}


def _measure(name: str, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    recipe = get_recipe(name)
    recipe = replace(recipe, run=replace(recipe.run, device="cpu"))
    vocabulary, length = recipe.tokenizer.vocab_size, recipe.model.max_position_embeddings
    accelerator = make_accelerator(recipe)
    unwrapped = ScratchGPTForCausalLM(recipe.model.build(vocab_size=vocabulary, end_of_text=vocabulary - 1))
    use_kernels(unwrapped, "cpu")
    model = accelerator.prepare(ModelWithLoss(unwrapped).train())
    ids_BL = torch.randint(vocabulary, (WINDOWS, length))
    batch = Batch(ids_BL, ids_BL.roll(-1, 1))

    def seconds(windows: int) -> float:
        begun = time.perf_counter()
        forward_backward(accelerator, model, batch, windows)
        taken = time.perf_counter() - begun
        model.zero_grad()
        return taken

    plans = [
        replace(recipe.data, batch_size=WINDOWS, gradient_accumulation_steps=micro_batches)
        for micro_batches in MICRO_BATCHES
    ]
    computed = [windows_at_a_time(accelerator, unwrapped.config, plan, length) for plan in plans]
    asked = [micro_batch_size(plan) for plan in plans]
    together, apart = [], []
    for turn in range(rounds + 1):  # the first warms up
        times = [[seconds(windows) for windows in each] for each in (computed, asked)]
        if turn:
            together.append(times[0])
            apart.append(times[1])
    return {
        "precision": precision_of(accelerator),
        "seconds": statistics.median(row[0] for row in together),
        **{
            f"{micro_batches} micro-batches": {
                "computed": computed[index],
                "ratio": statistics.median(row[index] / row[0] for row in together),
                "apart": statistics.median(row[index] / row[0] for row in apart),
            }
            for index, micro_batches in enumerate(MICRO_BATCHES)
            if index
        },
    }
