"""On a GPU: training steps beside a compiled GPT2LMHeadModel and the GPU's own matrix rate, then the recipes at their
full length.

`python -m benchmarks.gpu --corpus FOLDER [--minutes 12] [--out runs/gpu]`. First each shape (the sci-fi recipe's, the
WikiText recipe's, one that is wide enough to fill the GPU) in bf16: tokens a second of our model as `python -m train`
runs it, with torch.compile, and of GPT-2 of that size, compiled; and which share of the rate of a bf16 matrix product
they reach, measured in the same run. The rest of the time is the recipes' in equal parts, on the text of FOLDER; one
that its part does not suffice for is cut short and resumed by the same command. `--device cpu --tiny` is the same
program in small, which a test runs.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks._rounds import take_turns
from benchmarks.bpe import BOOKS
from benchmarks.systems import SYSTEMS, sized
from benchmarks.training_step import make_step
from corpus.local import find_files
from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.sizing import flops_per_token
from storage.run_folder import RunFolder
from train.config import replace_fields
from train.device import choose_device, measure_peak_flops
from train.kernels import use_kernels
from train.loop import train
from train.objective import ModelWithLoss
from train.recipes import get_recipe

ROUNDS = 20
STEPS_PER_ROUND = 10
"""The device is waited for once a round, not in each step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Sizes of a model, and windows of a step."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    length: int
    windows: int


SHAPES = {
    "scifi": Shape(vocabulary=8257, width=256, layers=6, heads=4, length=256, windows=256),
    "wikitext": Shape(vocabulary=28_144, width=512, layers=6, heads=8, length=512, windows=128),
    "wide": Shape(vocabulary=32_768, width=1536, layers=12, heads=12, length=1024, windows=16),
}
TINY = {"tiny": Shape(vocabulary=300, width=32, layers=2, heads=2, length=16, windows=4)}


def our_model(shape: Shape, device: torch.device) -> torch.nn.Module:
    """GPT-2's architecture as our model, with its loss; without dropout, as theirs."""
    config = ScratchGPTConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        head_dim=shape.width // shape.heads,
        max_position_embeddings=shape.length,
        embedding_dropout=0.0,
        attention_dropout=0.0,
        residual_dropout=0.0,
    )
    model = ScratchGPTForCausalLM(config)
    use_kernels(model, device)
    return ModelWithLoss(model).to(device)


def gpt2_model(shape: Shape, device: torch.device) -> torch.nn.Module:
    """transformers' GPT-2 of that size."""
    end = shape.vocabulary - 1
    config = GPT2Config(
        vocab_size=shape.vocabulary, n_positions=shape.length, n_embd=shape.width, n_layer=shape.layers,
        n_head=shape.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=end, eos_token_id=end,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel(config)
    return model.to(device)


def compare_steps(shape: Shape, device: torch.device, peak: float, *, rounds: int, steps: int) -> dict[str, Any]:
    """Tokens a second and model FLOPs utilization of each; `speedup` is ours, the faster way, over GPT-2's.

    Args:
        peak: floating-point operations a second of a bf16 matrix product.
        rounds: that each takes turns for, after one that is not measured.
        steps: of a round.
    """
    torch.manual_seed(0)
    ids_BL = torch.randint(shape.vocabulary, (shape.windows, shape.length + 1), device=device)
    ours = {"input_BL": ids_BL[:, :-1], "target_BL": ids_BL[:, 1:]}
    theirs = {"input_ids": ids_BL[:, :-1], "labels": ids_BL[:, :-1], "use_cache": False}
    takers: dict[str, Callable[[], None]] = {}
    models: list[tuple[str, Any, dict[str, Any]]] = [
        ("ours", our_model(shape, device), ours),
        ("ours, compiled", torch.compile(our_model(shape, device)), ours),
        ("GPT-2, compiled", torch.compile(gpt2_model(shape, device)), theirs),
    ]
    for name, model, inputs in models:
        step = make_step(model, inputs, "bf16", reads_loss=False)

        def take_round(step: Callable[[], Any] = step) -> None:
            losses = [step() for _ in range(steps)]
            losses[-1].item()  # waits for the device

        takers[name] = take_round
    seconds = {name: statistics.median(times) for name, times in take_turns(takers, rounds).items()}
    tokens = steps * shape.windows * shape.length
    per_token = flops_per_token(models[0][1].model.config, shape.length)
    rates = {name: tokens / spent for name, spent in seconds.items()}
    return {
        **{f"{name}, tokens per second": round(rate) for name, rate in rates.items()},
        **{f"{name}, share of the matrix rate": round(rate * per_token / peak, 3) for name, rate in rates.items()},
        "speedup": round(max(rates["ours"], rates["ours, compiled"]) / rates["GPT-2, compiled"], 2),
    }


def run_recipes(corpus: Path, out: Path, deadline: float, device: str, *, tiny: bool) -> dict[str, Any]:
    """Train each recipe on the text, in equal parts of the time that is left; what run.json says of each."""
    results = {}
    for index, name in enumerate(SYSTEMS):
        seconds = max(1.0, (deadline - time.monotonic()) / (len(SYSTEMS) - index))
        fields: dict[str, Any] = {"corpus.source": "local", "corpus.paths": tuple(find_files([corpus]))}
        fields |= {"corpus.books": "any", "run.dir": out / name, "run.resume": True, "run.device": device}
        fields |= {"run.max_seconds": seconds, "run.max_stretch": 1.0, "run.output_tokens": 0}
        if tiny:
            fields |= {"run.steps": 2, "model.num_hidden_layers": 1, "data.evaluation_windows": 2}
            fields |= {"tokenizer.vocab_size": 300}
        train(replace_fields(sized(get_recipe(name), "small" if tiny else "full"), fields), recipe=name)
        state, evaluated = RunFolder(out / name).state, RunFolder(out / name).metrics()
        known = [line for line in evaluated if line.get("validation_loss") is not None]
        results[name] = {
            "status": state["status"],
            "steps": f"{state['step']:,} of {state['planned_steps']:,}",
            "seconds": round(state["seconds"]),
            "tokens per second": round(state["tokens_seen"] / state["seconds"]),
            "validation loss": round(known[-1]["validation_loss"], 4),
            "bits per byte": round(known[-1]["bits_per_byte"], 4),
        }
    return results


def measure(*, corpus: Path, out: Path, minutes: float, device_name: str, tiny: bool) -> dict[str, Any]:
    """All of it, within so many minutes."""
    deadline = time.monotonic() + 60 * minutes
    device = choose_device(device_name)
    bf16 = SimpleNamespace(device=device, mixed_precision="bf16")  # an Accelerator would bind the recipes' runs
    peak = measure_peak_flops(bf16, seconds=0.02 if tiny else 1.0)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "matrix rate, TFLOP/s in bf16": round(peak / 1e12, 3),
    }
    rounds, steps = (1, 1) if tiny else (ROUNDS, STEPS_PER_ROUND)
    for name, shape in (TINY if tiny else SHAPES).items():
        result[f"steps of {name}"] = compare_steps(shape, device, peak, rounds=rounds, steps=steps)
    return result | run_recipes(corpus, out, deadline, device.type, tiny=tiny)


def run() -> dict[str, Any]:
    """What `python -m benchmarks gpu` measures.

    Raises:
        ValueError: this machine has no CUDA GPU.
    """
    return measure(corpus=BOOKS, out=Path("runs/gpu"), minutes=12.0, device_name="cuda", tiny=False)


def main() -> None:
    """The command line; prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=BOOKS, help="text for the recipes")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the recipes' runs")
    parser.add_argument("--minutes", type=float, default=12.0, help="for everything (default: %(default)g)")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu with --tiny (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="small shapes and two steps of each recipe")
    given = parser.parse_args()
    try:
        result = measure(
            corpus=given.corpus, out=given.out, minutes=given.minutes, device_name=given.device, tiny=given.tiny
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
