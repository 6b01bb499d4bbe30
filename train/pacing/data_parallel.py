"""Data parallelism over the threads of one process: each computes some windows of a micro-batch, on the same weights.

OpenMP's threads wait for each other at the end of every operation. Asleep (`modeling.wait_passively`), they take longer
to wake up than most operations of a small model take; awake, they stop each other on a busy machine. Threads that each
do a whole pass wait once a step (docs/log.md has the figures). What is left of torch's threads is shared out among
them, for the operations inside a pass.

The same number of threads gives the same bits: gradients are added in the order of the windows, and dropout draws from
a generator of each pass, whose seed comes from the run's random numbers.
"""

import functools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from modeling import ScratchGPTConfig
from modeling.sizing import activation_bytes
from train.config import DataConfig
from train.data.batches import micro_batch_size
from train.kernels import seed_dropout

MOST_THREADS = 4
"""They hold the interpreter's lock between their operations."""
MOST_GRADIENTS = 2**28
"""Values of the gradients that all threads hold together at most, each those of all parameters."""

ACTIVATIONS = 2**29
"""Bytes of activations that the windows which are computed at a time keep on the CPU, about; more windows are no
faster, and fewer pay more often for what each pass costs: weights in bf16, the gradients of all parameters."""

Part = TypeVar("Part")
Result = TypeVar("Result")


def thread_count(parts: int, parameters: int = 1) -> int:
    """How many threads share so many windows or batches on the CPU: at most `torch.get_num_threads()`.

    Args:
        parts: windows or batches.
        parameters: of the model; a large one is computed in fewer threads, for their gradients' sake.
    """
    return max(1, min(torch.get_num_threads(), parts, MOST_THREADS, MOST_GRADIENTS // max(1, parameters)))


def windows_at_a_time(accelerator: Any, shape: ScratchGPTConfig, data: DataConfig, length: int) -> int:
    """How many windows of a batch, over all processes, are computed at a time.

    On a GPU, and beside other processes, a micro-batch. On the CPU as many as `ACTIVATIONS` has room for, whatever the
    micro-batches are; where that is less than MOST_THREADS, a micro-batch of so few.

    Args:
        shape: of the model.
        length: of a window in tokens.
    """
    micro_batch = micro_batch_size(data)
    if accelerator.device.type != "cpu" or accelerator.num_processes > 1:
        return micro_batch
    itemsize = 4 if accelerator.mixed_precision == "no" else 2
    room = max(ACTIVATIONS // activation_bytes(shape, length, itemsize), min(micro_batch, MOST_THREADS))
    return math.ceil(data.batch_size / math.ceil(data.batch_size / room))


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
    gradients = _GradientSum([parameter for parameter in model.parameters() if parameter.requires_grad])
    seeds = torch.randint(2**62, (threads,)).tolist()
    parts = list(
        zip(range(threads), input_BL.tensor_split(threads), target_BL.tensor_split(threads), seeds, strict=True)
    )

    def run_pass(part: tuple[int, torch.Tensor, torch.Tensor, int]) -> torch.Tensor:
        number, inputs, targets, seed = part
        with seed_dropout(seed):
            loss = model(inputs, targets, num_items_in_batch=divisor)
        gradients.add_pass(number, loss)
        return loss.detach()

    with gradients.hooks():
        return torch.stack(in_threads(run_pass, parts, threads)).sum()


class _GradientSum:
    """Adds the gradients of passes to the parameters' while the passes compute.

    Each is added as soon as it is there and those of the passes before are: the order is always the same, and threads
    that compute at the same pace hold the gradients of few parameters beside the sum.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self.locks = [threading.Lock() for _ in parameters]
        self.waiting: list[dict[int, torch.Tensor | None]] = [{} for _ in parameters]  # by pass
        self.added = [0] * len(parameters)  # passes whose gradient is in the sum
        self.of_thread = threading.local()

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """In the block, autograd hands gradients over as soon as it has them."""
        handles = [
            parameter.register_hook(functools.partial(self._take, index))
            for index, parameter in enumerate(self.parameters)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def add_pass(self, number: int, loss: torch.Tensor) -> None:
        """Compute the gradients of the pass of this number, from 0, in this thread; needs `hooks`."""
        self.of_thread.number, self.of_thread.missing = number, {*range(len(self.parameters))}
        torch.autograd.grad(loss, self.parameters, allow_unused=True)
        for index in self.of_thread.missing:  # what the loss does not depend on
            self._add(index, None)

    def _take(self, index: int, gradient: torch.Tensor) -> torch.Tensor:
        self.of_thread.missing.remove(index)
        self._add(index, gradient)
        return gradient.new_zeros(()).expand_as(gradient)  # in its place, until the pass ends

    def _add(self, index: int, gradient: torch.Tensor | None) -> None:
        parameter, waiting = self.parameters[index], self.waiting[index]
        with self.locks[index]:
            waiting[self.of_thread.number] = gradient
            while self.added[index] in waiting:
                following = waiting.pop(self.added[index])
                self.added[index] += 1
                if following is None:
                    continue
                if parameter.grad is None:  # it may be part of something else: the sum is a tensor of its own
                    parameter.grad = following.clone()
                else:
                    parameter.grad += following
