"""One training step of the science-fiction recipe's model against transformers' GPT2LMHeadModel, and the limit: the
matrix products of such a step alone.

Both models are 6 layers, 256 wide, context 256, vocabulary 8,257, with the same dropout everywhere. Ours has the
recipe's 6 heads of 42, ReLU and an output layer of its own; GPT-2 has 4 heads of 64, since its heads must divide its
width. A step is forward, loss, backward, and fused AdamW, in the same precision for both. The two take turns with the
products of a step of ours, computed in buffers made beforehand, with nothing between them. Each is a process of its
own: how often the allocator returns memory to the system, and pays for new pages, depends on what else a process did.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import torch
from transformers import GPT2LMHeadModel

from benchmarks._limits import step_products
from benchmarks._report import Goal
from benchmarks._rounds import CONTEXT, VOCABULARY, gpt2_config, ratio, take_turns
from benchmarks.bpe import CHECKOUT
from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.sizing import flops_per_token
from train.device import cpu_has_native_bf16
from train.kernels import use_kernels
from train.objective import ModelWithLoss

PEERS = ("scratchgpt", "gpt2", "products")
SHARE = "scratchgpt_share_of_that_rate"
GOALS = (
    Goal(("fp32, dropout 0.2", SHARE), at_least=0.85),
    Goal(("fp32, dropout 0.0", SHARE), at_least=0.9),
    Goal(("bf16, dropout 0.2", SHARE), at_least=0.75),
    Goal(("bf16, dropout 0.2", "speedup"), at_least=2.0),
)


def our_config(dropout: float, **fields: Any) -> ScratchGPTConfig:
    """The recipe's shape with this rate of dropout everywhere."""
    return ScratchGPTConfig(
        vocab_size=VOCABULARY, embedding_dropout=dropout, attention_dropout=dropout, residual_dropout=dropout, **fields
    )


def build_ours(config: ScratchGPTConfig) -> torch.nn.Module:
    """A model with its loss, as `python -m train` trains it on the CPU."""
    model = ScratchGPTForCausalLM(config)
    use_kernels(model, "cpu")
    return ModelWithLoss(model)


def make_step(
    model: torch.nn.Module, inputs: dict[str, Any], precision: str, *, reads_loss: bool = True
) -> Callable[[], Any]:
    """A function that takes one step and returns the loss in nats a token: a number, or the tensor, which waits for no
    device, without `reads_loss`."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    device = next(model.parameters()).device.type

    def step() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            outputs = model(**inputs)
            loss = outputs if isinstance(outputs, torch.Tensor) else outputs.loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item() if reads_loss else loss.detach()

    return step


def run(*, batch_size: int = 32, steps: int = 7, threads: int | None = 1) -> dict[str, Any]:
    """`measure` in fp32 with and without dropout, and in bf16 where the CPU multiplies bf16 in hardware."""
    cases: list[tuple[str, float]] = [("fp32", 0.2), ("fp32", 0.0)]
    cases += [("bf16", 0.2)] if cpu_has_native_bf16() else []
    return {
        f"{precision}, dropout {dropout}": measure(
            batch_size=batch_size, steps=steps, threads=threads, dropout=dropout, precision=precision
        )
        for precision, dropout in cases
    }


def measure(
    *,
    batch_size: int = 32,
    sequence_length: int = CONTEXT,
    steps: int = 7,
    dropout: float = 0.2,
    precision: str = "fp32",
    threads: int | None = None,
) -> dict[str, Any]:
    """Time `steps` steps of each model, and as often all matrix products of such a step, after one of each unmeasured.

    batch_size is in sequences of sequence_length tokens; precision is fp32, or bf16 (autocast); threads defaults to
    torch's own choice. Seconds are medians, on one thread CPU seconds, which other work changes less. Returns also
    tokens a second; `speedup`, ours over GPT-2's; the rate of the products alone, in GFLOP/s, and the share of it that
    each step reaches; and `speedup_at_the_limit`, that of a step of nothing but the products over GPT-2's.
    """
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision must be fp32 or bf16; got {precision!r}.")
    threads = threads or torch.get_num_threads()
    case = {"batch_size": batch_size, "length": sequence_length, "dropout": dropout, "precision": precision}
    with ExitStack() as processes:
        peers = {name: _start(processes, {"name": name, "threads": threads, **case}) for name in PEERS}
        seconds = take_turns(peers, steps, clock=None)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    tokens = batch_size * sequence_length
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64}  # GPT-2's
    config = our_config(dropout)
    flops = {
        name: tokens * flops_per_token(shape, sequence_length)
        for name, shape in (("scratchgpt", config), ("gpt2", our_config(dropout, **heads)))
    }
    rate = flops["scratchgpt"] / medians["products"]
    return {
        "batch_size": batch_size,
        "sequence_length": sequence_length,
        "dropout": dropout,
        "precision": precision,
        "threads": threads,
        **{f"{name}_seconds": median for name, median in medians.items()},
        **{f"{name}_tokens_per_second": tokens / medians[name] for name in flops},
        "speedup": ratio(seconds, "scratchgpt", "gpt2"),
        "products_gflops_per_second": rate / 1e9,
        **{
            f"{name}_share_of_that_rate": ratio(seconds, name, "products") * count / flops["scratchgpt"]
            for name, count in flops.items()
        },
        "speedup_at_the_limit": ratio(seconds, "products", "gpt2"),
    }


def make_peer(*, name: str, batch_size: int, length: int, dropout: float, precision: str) -> Callable[[], Any]:
    """A call that takes one step of a peer."""
    torch.manual_seed(0)
    ids_BL = torch.randint(VOCABULARY, (batch_size, length + 1))
    config = our_config(dropout)
    if name == "products":
        return step_products(config, batch_size, length, torch.bfloat16 if precision == "bf16" else torch.float32)
    if name == "gpt2":
        model = GPT2LMHeadModel(gpt2_config(dropout))
        return make_step(model, {"input_ids": ids_BL[:, :-1], "labels": ids_BL[:, :-1], "use_cache": False}, precision)
    return make_step(build_ours(config), {"input_BL": ids_BL[:, :-1], "target_BL": ids_BL[:, 1:]}, precision)


def _start(processes: ExitStack, peer: dict[str, Any]) -> Callable[[], float]:
    """Start the process of a peer; the call has it take one step, and returns its seconds."""
    command = [sys.executable, "-m", "benchmarks.training_step", json.dumps(peer)]
    environment = os.environ | {"OMP_NUM_THREADS": str(peer["threads"])}
    process = processes.enter_context(
        subprocess.Popen(
            command, cwd=CHECKOUT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    )
    assert process.stdin is not None
    assert process.stdout is not None
    to_process, from_process = process.stdin, process.stdout

    def step() -> float:
        line = ""
        with suppress(BrokenPipeError):
            print(file=to_process, flush=True)
            line = from_process.readline()
        if not line:
            raise RuntimeError(f"the process of {peer['name']} ended with status {process.wait()}; its words are above")
        return float(line)

    return step


def main() -> None:
    """The process of a peer: a step for each line of the input, its seconds to the output."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_step", description=main.__doc__)
    parser.add_argument("peer", help="arguments of make_peer, and `threads`, as JSON")
    peer = json.loads(parser.parse_args().peer)
    torch.set_num_threads(peer.pop("threads"))
    step = make_peer(**peer)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in sys.stdin:
        begun = clock()
        step()
        print(clock() - begun, flush=True)


if __name__ == "__main__":
    main()
