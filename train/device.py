"""Device, precision and processes, chosen for the machine unless the user says otherwise."""

import gc
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import AutocastKwargs, InitProcessGroupKwargs

from storage.run_folder import RunFolder
from storage.text import first_line
from train.config import Config
from train.data.batches import micro_batch_size

NATIVE_BF16_WIDTH = 64  # the least that was measured: from it on bf16 wins on a CPU that has it (docs/log.md)
OLD_NATIVE_BF16_WIDTH = 256  # what it was while checkpoints did not record their precision; a resume goes by it
PRECISIONS = ("fp32", "bf16", "fp16")
# For each other, of the processes of a run: while one learns a vocabulary and encodes a large text, the others wait.
# Not for one that is gone: `accelerate launch` ends them all, and gloo notices by itself.
LONGEST_WAIT = timedelta(days=2)
C_COMPILERS = (os.environ.get("CXX", "c++"), "g++", "clang++", "cl")
ASSUMED_UTILIZATION = 0.3
"""Share of a device's peak that a training reaches, where nothing was measured."""
MATMUL_SIZE = {"cpu": 1024, "mps": 2048, "cuda": 8192}


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ValueError: for a device that this machine does not have, or one with a number.
    """
    kind, _, number = name.partition(":")
    if number:
        raise ValueError(
            f"--run.device: expected auto, cpu, cuda or mps, got {name!r}; a run takes the first device that it sees: "
            f"choose which one with CUDA_VISIBLE_DEVICES={number}, and several with `accelerate launch`"
        )
    available = [
        *(["cuda"] if torch.cuda.is_available() else []),
        *(["mps"] if torch.backends.mps.is_available() else []),
        "cpu",
    ]
    if name != "auto" and kind not in available:
        raise ValueError(
            f"--run.device: expected auto or one of what this machine has ({', '.join(available)}), got {name!r}"
        )
    return torch.device(available[0] if name == "auto" else name)


def choose_precision(config: Config, device: torch.device) -> str:
    """`fp32`, `bf16` or `fp16`.

    Auto is bf16 on a GPU that computes it natively, and on a CPU with AMX or AVX-512 bf16 instructions when the model
    is at least 64 wide; fp32 elsewhere.

    Raises:
        ValueError: fp16 on a CPU.
    """
    if config.run.precision == "fp16" and device.type == "cpu":
        raise ValueError("--run.precision: expected auto, fp32 or bf16 on a CPU, got fp16, which needs a GPU")
    if config.run.precision != "auto":
        return config.run.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu" and cpu_has_native_bf16() and config.model.hidden_size >= NATIVE_BF16_WIDTH:
        return "bf16"
    return "fp32"


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device, of this machine's memory; a GPU is not waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def cpu_has_native_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware (AMX or AVX-512 bf16)."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def make_accelerator(config: Config, **tracker: Any) -> Any:
    """accelerate's `Accelerator` for the device, precision and processes of a run.

    Args:
        tracker: further arguments, which select an experiment tracker.

    Raises:
        ValueError: for a device that this machine does not have, or processes that cannot share the run.
    """
    device = choose_device(config.run.device)
    precision = choose_precision(config, device)
    if config.run.compile == "yes" and not can_compile(device):
        raise ValueError(
            f"--run.compile yes: expected a C++ compiler ({', '.join(C_COMPILERS)}), which torch.compile needs on a "
            "CPU, got none installed; install one, or leave --run.compile out"
        )
    mixed_precision = "no" if precision == "fp32" else precision
    if is_initialized() and AcceleratorState().mixed_precision != mixed_precision:
        # accelerate has one precision a process, and steps in another one were measured in this (`--minutes`).
        # transformers' Trainer begins anew in the same way.
        AcceleratorState()._reset_state()
    # The cache of weights in bf16 belongs to all threads of the process, and no weight is used twice in a pass.
    handlers: list[Any] = [InitProcessGroupKwargs(timeout=LONGEST_WAIT)]
    if device.type == "cpu":
        handlers.append(AutocastKwargs(cache_enabled=False))
    accelerator = Accelerator(
        cpu=device.type == "cpu", mixed_precision=mixed_precision, kwargs_handlers=handlers, **tracker
    )
    check_processes(config, accelerator)
    return accelerator


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile has the compiler that it needs for a device."""
    return device.type == "cuda" or (device.type == "cpu" and any(map(shutil.which, C_COMPILERS)))


def check_processes(config: Config, accelerator: Any) -> None:
    """Raise a ValueError where the processes of `accelerate launch` cannot share this run's batches or weights."""
    size = micro_batch_size(config.data)
    if size < accelerator.num_processes:
        raise ValueError(
            f"expected at least one text of a micro-batch for each of {accelerator.num_processes} processes, got "
            f"{size}: raise --data.batch-size or lower --data.gradient-accumulation-steps"
        )
    kind = accelerator.distributed_type.value
    if kind != "NO" and not kind.startswith("MULTI_") and not (kind == "FSDP" and accelerator.is_fsdp2):
        raise ValueError(
            f"expected data parallelism or FSDP2 from accelerate launch, got {kind}: leave out --use_deepspeed and the "
            "like, and with --use_fsdp give --fsdp_version 2 and --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP"
        )
    if kind == "FSDP" and config.run.compile == "yes":
        raise ValueError("--run.compile: expected no with --use_fsdp, got yes: the two were not tried together")
    # accelerate shards on accelerators alone, and would give each process the complete model without a word.
    if kind == "MULTI_CPU" and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise ValueError("--use_fsdp: expected processes on GPUs, got CPUs: leave it out, and they share the batches")


def precision_of(accelerator: Any) -> str:
    """`fp32`, `bf16` or `fp16`: what an accelerator computes in."""
    return "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision


def describe(accelerator: Any) -> str:
    """The device, how many processes share the run, and the precision."""
    text, count = accelerator.device.type, accelerator.num_processes
    if count > 1:
        text += f" in {count} processes ({'sharded' if accelerator.distributed_type.value == 'FSDP' else 'DDP'})"
    return f"{text}, {precision_of(accelerator)}"


def measure_peak_flops(accelerator: Any, seconds: float = 0.15) -> float:
    """The most floating-point operations a second that square matrix products reach on this process' device.

    It draws no random numbers: those of the run stay what they are without it.

    Args:
        accelerator: names the device and the precision.
        seconds: time to spend, after one product that is not counted.
    """
    size = MATMUL_SIZE[accelerator.device.type]
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision, torch.float32)
    matrix = torch.full((size, size), 1e-3, device=accelerator.device, dtype=dtype)
    best, end = 0.0, None
    while end is None or time.perf_counter() < end:
        started = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # reading a value waits for the device
        done = time.perf_counter()
        if end is not None:
            best = max(best, 2.0 * size**3 / (done - started))
        end = end or done + seconds
    return best


def muon_dtype(accelerator: Any) -> torch.dtype:
    """What Muon orthogonalises in: bf16 on GPUs, and on a CPU where the run computes in it, which is then native."""
    is_half = accelerator.device.type != "cpu" or accelerator.mixed_precision == "bf16"
    return torch.bfloat16 if is_half else torch.float32


def leave_process_group() -> None:
    """Destroy the process group, after the training is over and its model was freed.

    The model goes first: a data-parallel reducer that is the last owner of a gloo process group waits, holding the
    interpreter's lock, for threads that need that lock (torch 2.13), and the process never ends.
    """
    if torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()


def is_lost_process(error: RuntimeError) -> bool:
    """Whether an error of torch says that another process of this run does not answer any more.

    gloo's errors have no type of their own; each names its source file, in a folder of that name.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return False
    return isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that a GPU or this machine has too little memory; a CPU's has no type of its
    own."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def failure_reason(error: BaseException) -> str:
    """What an error says of a run that it ends, for its state: a short phrase without a path of the machine."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and is_out_of_memory(error)):
        return "out of memory"
    if isinstance(error, RuntimeError) and is_lost_process(error):
        return "another process of the run ended"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    name = type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name}: {os.strerror(error.errno)}"
    line = first_line(error)[:200]
    return name if line == name or os.sep in line else f"{name}: {line}"


@contextmanager
def torch_errors_explained(folder: RunFolder) -> Iterator[None]:
    """Rewords what torch raises in the block when memory is short, or another process of this run is gone.

    Raises:
        MemoryError: memory is; the message says what to do.
        ConnectionError: a process is; the message says what is saved and what to do.
    """
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            reason = str(error).partition(" GPU ")[0].partition("\n")[0].strip()
            way = "End other programs and start the same command again, with --resume where there is a checkpoint, or"
            way += " give a smaller model or context in another --run-dir"
            if isinstance(error, torch.OutOfMemoryError):
                way = "Raise --data.gradient-accumulation-steps, which takes a batch in so many parts, one after the"
                way += " other, or lower --data.batch-size, in another --run-dir"
            raise MemoryError(
                f"expected a step that fits into memory, got {reason!r}. {way}; --plan says how much a run will take"
            ) from error
        if not is_lost_process(error):
            raise
        reason = re.sub(r"^\[[^]]*\] ", "", str(error)).partition(". ")[0].partition("\n")[0]
        good = folder.good_checkpoint()
        saved = f"the last good checkpoint is {good.name}" if good else "there is no checkpoint yet"
        raise ConnectionError(
            f"expected {torch.distributed.get_world_size()} processes until the end of the run, but another one ended "
            f"or cannot be reached ({reason}); what it wrote says why. {folder.path}: {saved}; when no process of the "
            "run is left, the same command with --resume continues from there"
        ) from error


@contextmanager
def catch_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """In the block, the first SIGINT or SIGTERM calls `stop` with its name; a second SIGINT ends the program."""

    def handle(number: int, _: Any) -> None:
        stop(signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
