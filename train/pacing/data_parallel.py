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
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch

from train.kernels import seed_dropout

MOST_THREADS = 4
"""Each holds the gradients of all parameters, and the interpreter's lock between its operations."""

Part = TypeVar("Part")
Result = TypeVar("Result")


def thread_count(parts: int) -> int:
    """How many threads share so many windows or batches on the CPU: at most `torch.get_num_threads()`."""
    return max(1, min(torch.get_num_threads(), parts, MOST_THREADS))


def in_threads(function: Callable[[Part], Result], parts: Sequence[Part], threads: int) -> list[Result]:
    """What the function returns for each part, in their order, computed in so many threads; here with one.

    Whether gradients are recorded and what autocast does is as it is here. All parts have ended when the first error is
    raised, so that nothing computes beside what handles it.
    """
    if threads == 1:
        return [function(part) for part in parts]
    all_threads = torch.get_num_threads()
    autocast = {"dtype": torch.get_autocast_dtype("cpu"), "enabled": torch.is_autocast_enabled("cpu")}
    records = torch.is_grad_enabled()

    def compute(part: Part) -> Result:
        torch.set_num_threads(max(1, all_threads // threads))  # each thread has to say so
        with torch.set_grad_enabled(records), torch.autocast("cpu", **autocast, cache_enabled=False):
            return function(part)

    futures = [_pool(threads).submit(compute, part) for part in parts]
    wait(futures)
    torch.set_num_threads(all_threads)
    return [future.result() for future in futures]


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

    losses, gradients = zip(*in_threads(run_pass, parts, threads), strict=True)

    def add(numbers: range) -> None:
        for number in numbers:
            found = [of_pass[number] for of_pass in gradients if of_pass[number] is not None]
            if found:
                before = parameters[number].grad
                parameters[number].grad = sum(found) if before is None else sum(found, before)

    in_threads(add, [range(first, len(parameters), threads) for first in range(threads)], threads)
    return torch.stack(losses).sum()
