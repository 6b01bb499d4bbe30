"""A small training run of our model under `accelerate launch`: data-parallel or sharded (FSDP2), on CPUs.

`accelerate launch … sharded.py ddp|fsdp FAMILY OUT.json` writes the losses of eight steps. Started by plain Python it
trains in one process, which is the reference. accelerate shards on GPUs only; here it is told that it may on CPUs.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from tests.modeling.families import MODERN

FAMILIES: dict[str, dict[str, Any]] = {"classic": {}, "modern": MODERN}
STEPS, BATCH, LENGTH, VOCABULARY = 8, 8, 16, 48


def make_accelerator(how: str) -> Accelerator:
    accelerator = Accelerator(cpu=True)
    if how == "fsdp":
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
        )
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin
    return accelerator


def main(how: str, family: str, out: str) -> None:
    accelerator = make_accelerator(how)
    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model: Any = ScratchGPTForCausalLM(ScratchGPTConfig(**shape, max_position_embeddings=LENGTH, **FAMILIES[family]))
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    sharded = sum(isinstance(parameter, DTensor) for parameter in model.parameters())
    losses = []
    for step in range(STEPS):
        starts_B1 = torch.arange(BATCH)[:, None] * 5 + step
        ids_BL = (starts_B1 + torch.arange(LENGTH)) % VOCABULARY
        mine_BL = ids_BL[accelerator.process_index :: accelerator.num_processes]
        loss = model(input_ids=mine_BL, labels=mine_BL).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean: Any = accelerator.reduce(loss.detach(), "mean")
        losses.append(float(mean))
    if accelerator.is_main_process:
        answer = {"losses": losses, "processes": accelerator.num_processes, "sharded": sharded}
        Path(out).write_text(json.dumps(answer), encoding="utf-8")
    model = optimizer = loss = None
    accelerator.free_memory()  # while a reducer owns the process group, ending it can hang: train/distributed.py
    accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
