"""Device, precision and threads, chosen for the machine unless the user says otherwise; and what processes share."""

from typing import Any

import torch

from train.config import Config

NATIVE_BF16_WIDTH = 256  # below this width bf16 loses on a CPU even where it is native


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ValueError: for a device that this machine does not have.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available.get(name.split(":")[0], False):
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise ValueError(f"--run.device: expected auto or one of what this machine has ({there}), got {name!r}")
    return torch.device(name)


def choose_precision(config: Config, device: torch.device) -> str:
    """`fp32`, `bf16` or `fp16`.

    Auto is bf16 on a GPU that computes it natively, and on a CPU with AMX or AVX-512 bf16 instructions when the model
    is at least 256 wide; fp32 elsewhere.
    """
    if config.run.precision != "auto":
        return config.run.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu" and cpu_has_native_bf16() and config.model.hidden_size >= NATIVE_BF16_WIDTH:
        return "bf16"
    return "fp32"


def cpu_has_native_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware (AMX or AVX-512 bf16)."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def check_processes(config: Config, accelerator: Any) -> None:
    """Raise a ValueError where the processes of `accelerate launch` cannot share this run's batches or weights."""
    size = config.data.batch_size // config.data.gradient_accumulation_steps
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
    if kind == "FSDP" and config.run.compile:
        raise ValueError("--run.compile: expected False with --use_fsdp, got True: the two were not tried together")


def describe(accelerator: Any) -> str:
    """The device, and how many processes share the run."""
    kind, count = accelerator.device.type, accelerator.num_processes
    if count == 1:
        return kind
    return f"{kind} in {count} processes ({'sharded' if accelerator.distributed_type.value == 'FSDP' else 'DDP'})"


def over_processes(accelerator: Any, value: float, how: str) -> float:
    """A number over all processes, their `sum` or `mean`; itself where there is one process."""
    if accelerator.num_processes == 1:
        return value
    return float(accelerator.reduce(torch.tensor(value, device=accelerator.device), how))
