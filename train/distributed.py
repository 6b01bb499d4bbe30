"""Weights that lie in shards on several processes (FSDP2, by `accelerate launch --use_fsdp --fsdp_version 2`).

Every function is the identity, or costs nothing, where nothing is sharded. A tensor that is gathered needs every
process: they must all call the function, in the same order.
"""

import gc
import os
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def shard_on_cpus(accelerator: Any) -> None:
    """Let the processes shard where the launcher was told so and they run on CPUs.

    accelerate itself reads --use_fsdp on accelerators alone and would, without a word, give each process the whole
    model.
    """
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if asked and accelerator.num_processes > 1 and accelerator.device.type == "cpu":
        plugin = FullyShardedDataParallelPlugin(cpu_ram_efficient_loading=False)
        if accelerator.mixed_precision != "no":
            plugin.set_mixed_precision(accelerator.mixed_precision)
        accelerator.state.fsdp_plugin = plugin
        accelerator.state.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # from here the state is refreshed


def leave_processes() -> None:
    """End the work with the other processes, when the training is over and its model was let go.

    The model goes first: a data-parallel reducer that is the last owner of a gloo process group waits, with the
    interpreter's lock in its hands, for threads that need that lock (torch 2.13), and the process never ends.
    """
    if torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shards."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_as(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, the same on every process, in the shards of another one."""
    if not isinstance(pattern, DTensor):
        return tensor
    there = tensor.to(pattern.device)
    return distribute_tensor(there, pattern.device_mesh, pattern.placements, src_data_rank=None)


def gather(tensors: dict[str, Tensor], accelerator: Any) -> dict[str, Tensor]:
    """The tensors, whole: those that are sharded in the main process' memory, and nowhere else."""
    gathered = {}
    for name, tensor in tensors.items():
        values = whole(tensor)
        if accelerator.is_main_process:
            gathered[name] = values.cpu() if isinstance(tensor, DTensor) else tensor
    return gathered


def whole_model(model: Any, accelerator: Any, build: Any) -> Any:
    """The model with all its weights: itself, or where it is sharded a new one on the main process, None elsewhere.

    Args:
        model: a `PreTrainedModel`.
        build: makes a model of the same class from a config.
    """
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return model
    weights = gather(model.state_dict(), accelerator)
    if not accelerator.is_main_process:
        return None
    with torch.random.fork_rng(devices=[]):
        made = build(model.config)
    made.load_state_dict(weights)
    return made.to(accelerator.device)
