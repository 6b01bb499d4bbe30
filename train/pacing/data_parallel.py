"""Data parallelism over the threads of one process: each computes some windows of a micro-batch, on the same weights.

OpenMP's threads wait for each other at the end of every operation. Asleep (`modeling.wait_passively`), they take longer
to wake up than most operations of a small model take; awake, they stop each other on a busy machine. Threads that each
do a whole pass wait once a step (docs/log.md has the figures). What is left of torch's threads is shared out among
them, for the operations inside a pass.

The same number of threads gives the same bits: gradients are added in the order of the windows, and dropout draws from
a generator of each pass, whose seed comes from the run's random numbers.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch

from train.kernels import seed_dropout

MOST_THREADS = 4
"""They hold the interpreter's lock between their operations."""
MOST_GRADIENTS = 2**28
"""Values of the gradients that all threads hold together, each those of all parameters."""

Part = TypeVar("Part")
Result = TypeVar("Result")


def thread_count(parts: int, parameters: int = 1) -> int:
    """How many threads share so many windows or batches on the CPU: at most `torch.get_num_threads()`.

    Args:
        parts: windows or batches.
        parameters: of the model; a large one is computed in fewer threads, for their gradients' sake.
    """
    return max(1, min(torch.get_num_threads(), parts, MOST_THREADS, MOST_GRADIENTS // max(1, parameters)))


def in_threads(function: Callable[[Part], Result], parts: Sequence[Part], threads: int) -> list[Result]:
    """What the function returns for each part, in their order, computed in so many threads; here with one.

    Whether gradients are recorded and what autocast does is as it is here. After an error no further part begins, and
    those that began have ended when it is raised, so that nothing computes beside what handles it.
    """
    if threads == 1:
        return [function(part) for part in parts]
    count = torch.get_num_threads()
    autocast = {"dtype": torch.get_autocast_dtype("cpu"), "enabled": torch.is_autocast_enabled("cpu")}
    records = torch.is_grad_enabled()

    def compute(index: int) -> Result:
        torch.set_num_threads(
            max(1, count // threads + (index % threads < count % threads))
        )  # each thread has to say so
        # accelerate enters one autocast object in all threads: the state that it keeps to restore must be the same.
        with torch.set_grad_enabled(records), torch.autocast("cpu", **autocast, cache_enabled=False):
            return function(parts[index])

    futures = [_pool(threads).submit(compute, index) for index in range(len(parts))]
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:  # also after Ctrl-C
        for future in futures:
            future.cancel()
        torch.set_num_threads(count)  # new threads of this process take the latest number
    wait(futures)
    return [future.result() for future in sorted(futures, key=Future.cancelled)]  # an error before what it cancelled


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="data-parallel")


def add_gradients(
    model: Any, input_BL: torch.Tensor, target_BL: torch.Tensor, divisor: torch.Tensor, threads: int
) -> torch.Tensor:
    """Add the gradients of a micro-batch to the parameters'; return its loss, a scalar.

    Args:
        model: a `ModelWithLoss`, on the CPU.
        divisor: of the sum of the losses.
        threads: two at least, and no more than windows.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    seeds = torch.randint(2**62, (threads,)).tolist()
    parts = list(zip(input_BL.tensor_split(threads), target_BL.tensor_split(threads), seeds, strict=True))

    def run_pass(part: tuple[torch.Tensor, torch.Tensor, int]) -> tuple[torch.Tensor, Sequence[torch.Tensor | None]]:
        inputs, targets, seed = part
        with seed_dropout(seed):
            loss = model(inputs, targets, num_items_in_batch=divisor)
        return loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)

    passes = in_threads(run_pass, parts, threads)
    losses, gradients = [loss for loss, _ in passes], [list(of_pass) for _, of_pass in passes]
    del passes

    def add(numbers: range) -> None:
        for number in numbers:
            found = [of_pass[number] for of_pass in gradients]
            for of_pass in gradients:
                of_pass[number] = None  # its memory is free as soon as it is added
            found = [gradient for gradient in found if gradient is not None]
            if not found:
                continue
            parameter, first = parameters[number], found.pop(0)
            if parameter.grad is not None:
                parameter.grad += first
            else:  # the first may be part of something else: the sum is a tensor of its own
                parameter.grad = first + found.pop(0) if found else first.clone()
            for gradient in found:
                parameter.grad += gradient

    in_threads(add, [range(first, len(parameters), threads) for first in range(threads)], threads)
    return torch.stack(losses).sum()
