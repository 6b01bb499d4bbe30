"""On a GPU: training steps beside a compiled GPT2LMHeadModel and the GPU's own matrix rate, then the recipes at their
full length.

`python -m benchmarks.gpu --corpus FOLDER [--minutes 12] [--out runs/gpu]`. First each shape (the sci-fi recipe's, the
WikiText recipe's, one that is wide enough to fill the GPU) in bf16: tokens a second of our model as `python -m train`
runs it, with torch.compile, and of GPT-2 of that size, compiled; and which share of the rate of a bf16 matrix product
they reach, measured in the same run. The rest of the time is the recipes' in equal parts, on the text of FOLDER; one
that its part does not suffice for is cut short and resumed by the same command. Each of these sections is a process of
its own that is ended when its share of the time is over; its result, or its error, is printed and appended to
results.jsonl as soon as it has ended, and the next one follows. The command fails if one of them failed, and names
them. `--device cpu --tiny` is the same program in small, which a test runs.
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
from benchmarks._sections import Section, describe_error, run_sections
from benchmarks.bpe import BOOKS
from benchmarks.systems import SYSTEMS, sized
from benchmarks.training_step import make_step
from corpus.local import find_files
from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.sizing import flops_per_token
from storage.records import append_jsonl
from storage.run_folder import RunFolder
from train.checks import kept_fields
from train.config import replace_fields
from train.data.fitting import fit_to_text
from train.data.prepare import prepare
from train.device import choose_device, measure_peak_flops
from train.kernels import use_kernels
from train.loop import train
from train.objective import ModelWithLoss
from train.recipes import get_recipe

ROUNDS = 20
STEPS_PER_ROUND = 10
"""The device is waited for once a round, not in each step."""
STEPS_SHARE = 2.0
"""Of the time for a shape, where a recipe has 1: two models are compiled for it. What is left over is the recipes'."""
OURS, OURS_COMPILED, GPT2_COMPILED = "ours", "ours, compiled", "GPT-2, compiled"


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


def our_config(shape: Shape) -> ScratchGPTConfig:
    """GPT-2's architecture as our model; without dropout, as theirs."""
    return ScratchGPTConfig(
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


def our_model(shape: Shape, device: torch.device) -> torch.nn.Module:
    """Our model of that size with its loss, as `python -m train` steps it."""
    model = ScratchGPTForCausalLM(our_config(shape))
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


def describe_device(device: torch.device, *, seconds: float) -> dict[str, Any]:
    """What the device and the software call themselves."""
    found = {"name": device.type, "torch": torch.__version__}
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        found |= {"name": facts.name, "memory, GiB": round(facts.total_memory / 2**30, 1), "CUDA": torch.version.cuda}
    return found


def compare_steps(shape: Shape, device: torch.device, rounds: int, steps: int, *, seconds: float) -> dict[str, Any]:
    """Tokens a second and model FLOPs utilization of each; `speedup` is ours, the faster way, over GPT-2's.

    One that fails is left out, and its error is under "errors".

    Args:
        rounds: that each takes turns for at most, after those that are not measured.
        steps: of a round.
        seconds: to plan with; the rounds end then.
    """
    end = time.monotonic() + seconds
    bf16: Any = SimpleNamespace(device=device, mixed_precision="bf16")  # an Accelerator would bind what comes after
    peak = measure_peak_flops(bf16, seconds=min(1.0, max(0.02, seconds / 100)))
    torch.manual_seed(0)
    ids_BL = torch.randint(shape.vocabulary, (shape.windows, shape.length + 1), device=device)
    ours = {"input_BL": ids_BL[:, :-1], "target_BL": ids_BL[:, 1:]}
    theirs = {"input_ids": ids_BL[:, :-1], "labels": ids_BL[:, :-1], "use_cache": False}
    peers: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
        OURS: (lambda: our_model(shape, device), ours),
        OURS_COMPILED: (lambda: torch.compile(our_model(shape, device)), ours),
        GPT2_COMPILED: (lambda: torch.compile(gpt2_model(shape, device)), theirs),
    }
    takers: dict[str, Callable[[], None]] = {}
    errors: dict[str, Any] = {}
    for name, (make, inputs) in peers.items():
        try:
            step = make_step(make(), inputs, "bf16", reads_loss=False)
            step().item()
        except Exception as error:  # of a compiler, of the device, or for want of memory: the others are measured
            errors[name] = describe_error(error)
            continue

        def take_round(step: Callable[[], Any] = step) -> None:
            losses = [step() for _ in range(steps)]
            losses[-1].item()  # waits for the device

        takers[name] = take_round
    measured = take_turns(takers, rounds, end=end) if takers else {}
    spent = {name: statistics.median(times) for name, times in measured.items()}
    tokens = steps * shape.windows * shape.length
    per_token = flops_per_token(our_config(shape), shape.length)
    rates = {name: tokens / each for name, each in spent.items()}
    result: dict[str, Any] = {
        "matrix rate, TFLOP/s in bf16": round(peak / 1e12, 3),
        "rounds": max(map(len, measured.values()), default=0),
        **{f"{name}, tokens per second": round(rate) for name, rate in rates.items()},
        **{f"{name}, share of the matrix rate": round(rate * per_token / peak, 3) for name, rate in rates.items()},
    }
    if GPT2_COMPILED in rates and len(rates) > 1:
        fastest = max(rate for name, rate in rates.items() if name != GPT2_COMPILED)
        result["speedup"] = round(fastest / rates[GPT2_COMPILED], 2)
    return result | ({"errors": errors} if errors else {})


def train_recipe(name: str, corpus: Path, out: Path, device: str, tiny: bool, *, seconds: float) -> dict[str, Any]:
    """Train a recipe on the text for what is left of its time when the text is prepared; what run.json says of it."""
    end = time.monotonic() + seconds
    recipe = sized(get_recipe(name), "small" if tiny else "full")
    fields: dict[str, Any] = {"corpus.source": "local", "corpus.paths": tuple(find_files([corpus]))}
    fields |= {"corpus.books": "any", "run.dir": out / name, "run.resume": True, "run.device": device}
    fields |= {"run.max_stretch": 1.0, "run.output_tokens": 0}
    if tiny:
        fields |= {"run.steps": 2, "model.num_hidden_layers": 1, "data.evaluation_windows": 2}
        fields |= {"tokenizer.vocab_size": 300}
    config, folder = replace_fields(recipe, fields), RunFolder(out / name)
    config, _ = fit_to_text(config, kept_fields(config, get_recipe(name)))
    prepare(config, folder, print)  # no limit of a run counts it
    begun = time.monotonic()
    train(replace_fields(config, {"run.max_seconds": max(1.0, end - begun)}), recipe=name)
    state, evaluated = folder.state, folder.metrics()
    known = [line for line in evaluated if line.get("validation_loss") is not None]
    return {
        "status": state["status"],
        "steps": f"{state['step']:,} of {state['planned_steps']:,}",
        "seconds": round(state["seconds"]),
        "seconds of preparing the text": round(begun - end + seconds, 1),
        "tokens per second": round(state["tokens_seen"] / state["seconds"]),
        "validation loss": round(known[-1]["validation_loss"], 4),
        "bits per byte": round(known[-1]["bits_per_byte"], 4),
    }


def measure(
    *, corpus: Path, out: Path, minutes: float, device_name: str, tiny: bool
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """All of it, within so many minutes: the results by section, and the names of those that failed.

    Each is printed and appended to `results.jsonl` in the folder `out` as soon as it has ended.

    Raises:
        ValueError: this machine does not have the device.
        OSError: the file cannot be written.
    """
    device = choose_device(device_name)
    rounds, steps = (1, 1) if tiny else (ROUNDS, STEPS_PER_ROUND)
    sections = [Section(name="device", measure=describe_device, arguments=(device,), share=0.25)]
    sections += [
        Section(
            name=f"steps of {name}", measure=compare_steps, arguments=(shape, device, rounds, steps), share=STEPS_SHARE
        )
        for name, shape in (TINY if tiny else SHAPES).items()
    ]
    sections += [
        Section(name=name, measure=train_recipe, arguments=(name, corpus, out, device.type, tiny)) for name in SYSTEMS
    ]
    out.mkdir(parents=True, exist_ok=True)

    def report(name: str, result: dict[str, Any]) -> None:
        print(json.dumps({"section": name, **result}), flush=True)
        append_jsonl(out / "results.jsonl", {"section": name, **result})

    return run_sections(sections, 60 * minutes, report)


def run() -> dict[str, Any]:
    """What `python -m benchmarks gpu` measures; `failed` names the sections that failed.

    Raises:
        ValueError: this machine has no CUDA GPU.
    """
    results, failed = measure(corpus=BOOKS, out=Path("runs/gpu"), minutes=12.0, device_name="cuda", tiny=False)
    return results | ({"failed": ", ".join(failed)} if failed else {})


def main() -> None:
    """The command line; prints a JSON object for each section as it ends, and at last one with all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=BOOKS, help="text for the recipes")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/gpu"), help="folder of results.jsonl and of the recipes' runs"
    )
    parser.add_argument("--minutes", type=float, default=12.0, help="for everything (default: %(default)g)")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu with --tiny (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="small shapes and two steps of each recipe")
    given = parser.parse_args()
    try:
        results, failed = measure(
            corpus=given.corpus, out=given.out, minutes=given.minutes, device_name=given.device, tiny=given.tiny
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(results))
    if failed:
        sys.exit(f"error: {len(failed)} of {len(results)} sections failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
