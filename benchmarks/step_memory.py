"""Peak memory of a training step of the WikiText recipe (vocabulary 28,144, 8 windows of 512 tokens), ours beside
transformers' GPT2LMHeadModel of that shape.

Each model is a process of its own: fp32, AdamW, dropout 0.1, and the optimizer's state is there before the step. Ours
takes the steps of a run (`forward_backward`, and as many windows at a time as a run computes), with one thread and with
torch's own number. MiB of resident memory: after the imports, with model and optimizer state on top, and at the peak of
a step. The ratios are the peak, that above the imports (all that training holds) and that above model and optimizer
state (the step alone: activations, logits, gradients). The recipe's output layer has weights of its own, 14.4 M
parameters that GPT-2 shares with its embeddings; `ours, tied` shares them too.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import psutil

from benchmarks._report import Goal
from benchmarks.bpe import CHECKOUT

BASE = "GPT2LMHeadModel"
PEERS = (BASE, "ours", "ours, tied", "ours, one thread", "ours, tied, one thread")
VOCABULARY, DROPOUT = 28_144, 0.1
GOALS = (Goal(("ratio", "ours, above_imports"), at_most=0.40),)


def run() -> dict[str, Any]:
    """By peer: MiB and parameters; and `ratio` to GPT2LMHeadModel's, by what is subtracted from the peak."""
    results = {}
    for peer in PEERS:
        command = [sys.executable, "-m", "benchmarks.step_memory", peer]
        environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
        environment.pop("OMP_NUM_THREADS", None)
        done = subprocess.run(
            command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False, timeout=1800
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        results[peer] = json.loads(done.stdout.splitlines()[-1])
        print(f"{peer}: {results[peer]}", file=sys.stderr)
    ratio = {
        f"{peer}, {part.removeprefix('peak_')}": round(results[peer][part] / results[BASE][part], 3)
        for part in ("peak", "peak_above_imports", "peak_above_model_and_optimizer")
        for peer in PEERS
    }
    parameters = {peer: found.pop("parameters") for peer, found in results.items()}
    threads = {peer: found.pop("threads") for peer, found in results.items()}
    return {"vocabulary": VOCABULARY, "threads": threads, "parameters": parameters, "MiB": results, "ratio": ratio}


def measure(peer: str, *, steps: int = 2) -> dict[str, int]:
    """What a process that has done nothing else holds, in MiB.

    Args:
        peer: one of `PEERS`.
        steps: the peak is that of so many.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from modeling import ScratchGPTForCausalLM
    from train.data.batches import Batch
    from train.device import make_accelerator
    from train.kernels import use_kernels
    from train.objective import ModelWithLoss, forward_backward
    from train.pacing.data_parallel import windows_at_a_time
    from train.pacing.plan import peak_memory
    from train.recipes import get_recipe

    recipe = get_recipe("wikitext")
    length, end = recipe.model.max_position_embeddings, VOCABULARY - 1
    section = recipe.model
    if peer == BASE or peer.endswith("one thread"):
        torch.set_num_threads(1)
    if "tied" in peer:
        section = replace(section, tie_word_embeddings=True, initializer="normal")
    shape = section.build(vocab_size=VOCABULARY, end_of_text=end)
    torch.manual_seed(0)
    ids_BL = torch.randint(VOCABULARY, (recipe.data.batch_size, length + 1))
    imported = resident()
    accelerator = make_accelerator(replace(recipe, run=replace(recipe.run, device="cpu", precision="fp32")))
    if peer == BASE:
        config = GPT2Config(
            vocab_size=VOCABULARY, n_positions=length, n_embd=shape.hidden_size, n_layer=shape.num_hidden_layers,
            n_head=shape.num_attention_heads, resid_pdrop=DROPOUT, embd_pdrop=DROPOUT, attn_pdrop=DROPOUT,
            bos_token_id=end, eos_token_id=end,
        )  # fmt: skip
        model: Any = GPT2LMHeadModel(config)
    else:
        unwrapped = ScratchGPTForCausalLM(shape)
        use_kernels(unwrapped, "cpu")
        model = accelerator.prepare(ModelWithLoss(unwrapped))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    built = resident()
    for _ in range(steps):
        if peer == BASE:
            model(input_ids=ids_BL[:, :-1], labels=ids_BL[:, :-1], use_cache=False).loss.backward()
        else:
            windows = windows_at_a_time(accelerator, shape, recipe.data, length)
            forward_backward(accelerator, model, Batch(ids_BL[:, :-1], ids_BL[:, 1:]), windows)
        optimizer.step()
        optimizer.zero_grad()
    peak = peak_memory(torch.device("cpu")) // 2**20
    return {
        "threads": torch.get_num_threads(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "after_the_imports": imported,
        "with_model_and_optimizer": built,
        "peak": peak,
        "peak_above_imports": peak - imported,
        "peak_above_model_and_optimizer": peak - built,
    }


def resident() -> int:
    """MiB of this process."""
    gc.collect()
    return psutil.Process().memory_info().rss // 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    print(json.dumps(measure(parser.parse_args().peer)))
