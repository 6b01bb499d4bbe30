"""Which settings of `modern` matter: each changed alone, on three texts of about a megabyte, at equal tokens.

`python -m benchmarks.ablations [NAME…] [--list]`. A variant is trained once on each text, with another seed on each:
the mean of its differences to `as it is`, and their spread, say more than three seeds of one text. Each run is a line
of ablations.jsonl; those that are there are not trained again, so that a study that was stopped goes on. Losses are
nats per token of held-out text (the last tenth of each part, as in the recipe), and bits per byte; time is the CPU
seconds of the run over those of `as it is` on the same machine (`base_seconds_a_step` where it was another one). What
`train` does not offer is written in `_variants.py`, with its source.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._variants import (
    CautiousMuon,
    Distilled,
    EmbeddingShortcut,
    FixedNormMuon,
    MeanWeights,
    NorMuon,
    TorchMuon,
    TwoTokens,
    ValueEmbeddings,
    ensemble_loss,
)
from benchmarks.bpe import CHECKOUT
from modeling import ScratchGPTForCausalLM
from storage.run_folder import RunFolder
from train.config import Config, replace_fields
from train.data.batches import Batch, evaluation_batches, training_batches
from train.data.prepare import Prepared, prepare
from train.device import cpu_has_native_bf16
from train.kernels import use_kernels
from train.objective import ModelWithLoss, mean_loss
from train.optimizer import Schedule, build_optimizers, set_learning_rate
from train.recipes import get_recipe

RUNS = CHECKOUT / "benchmarks" / "ablations.jsonl"
DATA = CHECKOUT.parent / "shared" / "data"
TEXTS = {
    "books": [f"scifi/{name}.txt" for name in ("war_of_the_worlds_36", "first_men_in_the_moon_1013", "lost_world_139")],
    "wikitext": ["wikitext-2/valid.txt"],
    "shakespeare": ["shakespeare.txt"],
}
"""Files in shared/data, 1.1 to 1.2 MB each; the seed of a text's runs is its place here."""
SHAPE = {
    "tokenizer.vocab_size": 2048, "model.hidden_size": 128, "model.intermediate_size": 352,
    "model.num_hidden_layers": 4, "model.num_attention_heads": 2, "model.residual_dropout": 0.1,
    "model.embedding_dropout": 0.1, "data.batch_size": 4, "run.threads": 1, "run.steps": 400,
}  # fmt: skip
"""`as it is`: the recipe at 128 in width with the dropout of the model in the box, 4 windows a step, 0.41 M tokens,
a reading or a little more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One change."""

    fields: Mapping[str, Any] = field(default_factory=dict)  # of the config
    optimizers: Callable[..., list[torch.optim.Optimizer]] = build_optimizers
    module: Callable[[ModelWithLoss], nn.Module] = lambda model: model
    batches: Callable[[Batch, float], list[Batch]] = lambda batch, done: [batch]  # one step each, by the share done
    averaged: float = 0.0  # share of the steps, at the end, whose weights are averaged


def muon(kind: Callable[..., torch.optim.Optimizer], **settings: Any) -> Callable[..., list[torch.optim.Optimizer]]:
    """Build the recipe's optimizers, with another one in Muon's place."""

    def build(model: nn.Module, config: Any, *, muon_dtype: torch.dtype) -> list[torch.optim.Optimizer]:
        adamw, ours = build_optimizers(model, config, muon_dtype=muon_dtype)
        (group,) = ours.param_groups
        same = {name: group[name] for name in ("lr", "momentum", "weight_decay")}
        return [adamw, kind(group["params"], dtype=muon_dtype, **same | settings)]

    return build


def halves(batch: Batch, done: float, *, until: float = 0.3) -> list[Batch]:
    """Batch warm-up: two steps with half the windows each, in the first part of the run."""
    parts = list(zip(batch.input_BL.chunk(2), batch.target_BL.chunk(2), strict=True)) if done < until else []
    return [Batch(*part) for part in parts] or [batch]


def short_windows(batch: Batch, done: float, *, until: float = 0.3) -> list[Batch]:
    """Warm-up of the sequence length: four times the windows, a quarter as long, in the first part of the run."""
    if done >= until:
        return [batch]
    quarter = batch.input_BL.shape[1] // 4
    return [Batch(*(ids_BL.reshape(-1, quarter) for ids_BL in (batch.input_BL, batch.target_BL)))]


ADAMW = {"optimizer.name": "adamw"}
VARIANTS: dict[str, Variant] = {
    "as it is": Variant(),
    **{
        f"AdamW alone, {rate}": Variant(fields=ADAMW | {"optimizer.learning_rate": rate})
        for rate in (3e-4, 1e-3, 3e-3)
    },
    "torch.optim.Muon": Variant(optimizers=muon(TorchMuon)),
    "NorMuon": Variant(optimizers=muon(NorMuon)),
    **{
        f"MuonH, fixed norms, {rate}": Variant(
            fields={"model.output_projection_init": "scaled"}, optimizers=muon(FixedNormMuon, lr=rate)
        )
        for rate in (0.02, 0.05)
    },
    "cautious weight decay 0.3": Variant(optimizers=muon(CautiousMuon, weight_decay=0.3)),
    "Muon's rate 0.01": Variant(fields={"optimizer.muon_learning_rate": 0.01}),
    "Muon's rate 0.04": Variant(fields={"optimizer.muon_learning_rate": 0.04}),
    "embeddings' rate 3e-3": Variant(fields={"optimizer.learning_rate": 3e-3}),
    "embeddings' rate 3e-2": Variant(fields={"optimizer.learning_rate": 3e-2}),
    **{
        f"Muon's weight decay {decay}": Variant(fields={"optimizer.muon_weight_decay": decay})
        for decay in (0.0, 0.3, 0.8, 1.6)
    },
    "no dropout": Variant(fields={"model.residual_dropout": 0.0, "model.embedding_dropout": 0.0}),
    "dropout 0.2": Variant(fields={"model.residual_dropout": 0.2, "model.embedding_dropout": 0.2}),
    "windows at random places": Variant(fields={"data.windows": "random"}),
    "rate falls over the last 0.2": Variant(fields={"schedule.decay_fraction": 0.2}),
    "rate falls over the last 0.8": Variant(fields={"schedule.decay_fraction": 0.8}),
    "rate falls, weights of the last 0.1 averaged": Variant(averaged=0.1),
    "constant rate, weights of the last 0.3 averaged": Variant(fields={"schedule.decay_fraction": 0.0}, averaged=0.3),
    "batches of 2": Variant(fields={"data.batch_size": 2, "run.steps": 800}),
    "batches of 8": Variant(fields={"data.batch_size": 8, "run.steps": 200}),
    "batch warm-up, 2 then 4": Variant(batches=halves),
    "length warm-up, 64 then 256": Variant(batches=short_windows),
    "no QK-norm": Variant(fields={"model.qk_norm": False}),
    "squared ReLU": Variant(
        fields={"model.gated_mlp": False, "model.hidden_act": "relu2", "model.intermediate_size": 528}
    ),
    "output projections not zero": Variant(fields={"model.output_projection_init": "scaled"}),
    "untied": Variant(fields={"model.tie_word_embeddings": False}),
    "value embeddings": Variant(module=ValueEmbeddings),
    "embedding shortcut": Variant(module=EmbeddingShortcut),
    "next two tokens": Variant(module=TwoTokens),
    "2 layers of 176": Variant(
        fields={"model.num_hidden_layers": 2, "model.hidden_size": 176, "model.head_dim": 88,
                "model.intermediate_size": 496}
    ),
    "8 layers of 88": Variant(
        fields={"model.num_hidden_layers": 8, "model.hidden_size": 88, "model.head_dim": 44,
                "model.intermediate_size": 248}
    ),
    **{
        f"vocabulary {size:,}": Variant(fields={"tokenizer.vocab_size": size})
        for size in (1024, 4096, 8192, 16384)
    },
    "half the steps": Variant(fields={"run.steps": 200}),
    "twice the steps": Variant(fields={"run.steps": 800}),
}  # fmt: skip


def config_of(variant: Variant, text: str, run: Path) -> Config:
    """The config of a variant's run on a text."""
    config = get_recipe("modern")
    paths = tuple(DATA / name for name in TEXTS[text])
    seed = {"run.seed": list(TEXTS).index(text), "run.dir": run}
    config = replace_fields(config, {"corpus.source": "local", "corpus.paths": paths, **SHAPE, **seed})
    steps = variant.fields.get("run.steps", config.run.steps)
    return replace_fields(config, {"schedule.warmup_steps": 30 * steps // config.run.steps, **variant.fields})


def train_variant(variant: Variant, config: Config, prepared: Prepared, **loss: Any) -> tuple[nn.Module, float]:
    """A `ModelWithLoss` after the run, and its CPU seconds a step of the config.

    Args:
        loss: of `_variants.Distilled`: the teachers.
    """
    torch.manual_seed(config.run.seed)
    length = config.model.max_position_embeddings
    model = ScratchGPTForCausalLM(
        config.model.build(vocab_size=len(prepared.tokenizer), end_of_text=prepared.end_of_text)
    )
    use_kernels(model, "cpu")
    trained = ModelWithLoss(model)
    module = Distilled(trained, **loss) if loss else variant.module(trained)
    half = cpu_has_native_bf16()
    optimizers = (
        variant.optimizers(module, config.optimizer, muon_dtype=torch.bfloat16 if half else torch.float32)
        if config.optimizer.name == "muon"
        else build_optimizers(module, config.optimizer)
    )
    schedule, masters = Schedule(config.schedule, config.run.steps), MeanWeights()
    batches = training_batches(
        prepared.train, config.data.windows, batch_size=config.data.batch_size, length=length,
        seed=config.run.seed, end_of_text=prepared.end_of_text,
    )  # fmt: skip
    begun = time.process_time()
    module.train()
    for step in range(config.run.steps):
        set_learning_rate(optimizers, schedule.factor(step))
        done = step / config.run.steps
        for batch in variant.batches(batches.next(), done):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss_of_batch = module(batch.input_BL, batch.target_BL)
            loss_of_batch.backward()
            nn.utils.clip_grad_norm_(module.parameters(), config.optimizer.max_grad_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        if done >= 1 - variant.averaged:
            masters.add(module)
    seconds = (time.process_time() - begun) / config.run.steps
    masters.put_into(module)
    return module, seconds


def validation(config: Config, prepared: Prepared) -> list[Batch]:
    """All windows of the held-out text, once."""
    return evaluation_batches(
        prepared.validation, batch_size=16, length=config.model.max_position_embeddings, windows=1000,
        end_of_text=prepared.end_of_text,
    )  # fmt: skip


def measured(loss: float, prepared: Prepared, seconds: float) -> dict[str, float]:
    """What a line of ablations.jsonl says of a run, beside its names."""
    split = prepared.validation
    per_byte = (len(split) - 1) / split.bytes / torch.log(torch.tensor(2.0)).item()
    return {"loss": round(loss, 5), "bits_per_byte": round(loss * per_byte, 5), "seconds_a_step": round(seconds, 4)}


def run_one(name: str, text: str, folder: Path) -> dict[str, float]:
    """Train a variant on a text."""
    variant = VARIANTS[name]
    config = config_of(variant, text, folder)
    prepared = prepare(config, RunFolder(folder), lambda line: None)
    module, seconds = train_variant(variant, config, prepared)
    with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_native_bf16()):
        loss = mean_loss(module, validation(config, prepared), torch.device("cpu"))
    return measured(loss, prepared, seconds)


def run_ensembles(text: str, folder: Path, models: int = 4) -> Iterator[tuple[str, dict[str, float]]]:
    """Models that differ in their seed: the mean of their probabilities, and one model distilled from them, or from a
    chain of one another (each from the one before it)."""
    variant = VARIANTS["as it is"]
    config = config_of(variant, text, folder)
    prepared = prepare(config, RunFolder(folder), lambda line: None)
    batches, teachers, total = validation(config, prepared), [], 0.0
    for number in range(models):
        seeded = replace_fields(config, {"run.seed": 100 + 10 * config.run.seed + number})
        module, seconds = train_variant(variant, seeded, prepared)
        teachers.append(module)
        total += seconds
        if number + 1 in (2, models):
            yield f"mean of {number + 1} models", measured(ensemble_loss(teachers, batches), prepared, total)
    student, seconds = train_variant(variant, config, prepared, teachers=teachers)
    yield f"distilled from {models} models", measured(ensemble_loss([student], batches), prepared, total + seconds)
    chain = teachers[:1]
    for number in range(2):
        seeded = replace_fields(config, {"run.seed": 200 + 10 * config.run.seed + number})
        student, seconds = train_variant(variant, seeded, prepared, teachers=chain)
        chain = [student]
        total = (total / models if number == 0 else total) + seconds
        yield f"chain of distillations, {number + 1}", measured(ensemble_loss(chain, batches), prepared, total)


def read_runs() -> dict[tuple[str, str], dict[str, Any]]:
    """The lines of ablations.jsonl by variant and text."""
    lines = [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.exists() else []
    return {(line["variant"], line["text"]): line for line in lines}


def write_run(name: str, text: str, result: dict[str, float]) -> None:
    """Add a line."""
    with RUNS.open("a") as file:
        file.write(json.dumps({"variant": name, "text": text, **result}) + "\n")


def table_of(runs: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """What each variant changes, as Markdown, the best first: nats for a token of the vocabulary of `as it is`."""
    base = {text: runs["as it is", text] for text in TEXTS if ("as it is", text) in runs}
    rows = []
    for name in dict.fromkeys(name for name, text in runs if text in base):
        texts = [text for text in base if (name, text) in runs]
        changes = {}
        for text in texts:  # of one vocabulary that is the difference of the losses
            bits = runs[name, text]["bits_per_byte"] - base[text]["bits_per_byte"]
            changes[text] = bits * base[text]["loss"] / base[text]["bits_per_byte"]
        steps = VARIANTS[name].fields.get("run.steps", SHAPE["run.steps"]) if name in VARIANTS else SHAPE["run.steps"]
        slower = steps / SHAPE["run.steps"]
        slower *= statistics.mean(
            run["seconds_a_step"] / run.get("base_seconds_a_step", base[text]["seconds_a_step"])
            for text in texts
            for run in [runs[name, text]]
        )
        rows.append((statistics.mean(changes.values()), name, changes, slower))
    lines = [f"| change | mean | {' | '.join(TEXTS)} | CPU time |", "|---" + "|---:" * (len(TEXTS) + 2) + "|"]
    for mean, name, changes, slower in sorted(rows, key=lambda row: row[0]):
        cells = [f"{changes[text]:+.3f}" if text in changes else "" for text in TEXTS]
        lines.append(f"| {name} | {mean:+.3f} | {' | '.join(cells)} | {slower:.2f} |")
    return "\n".join(lines)


def run() -> dict[str, Any]:
    """All that is missing; the lines of ablations.jsonl by variant and text."""
    main([])
    return {f"{name}, {text}": line for (name, text), line in read_runs().items()}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="variants, or `ensembles` (default: all)")
    parser.add_argument("--texts", nargs="*", choices=list(TEXTS), default=list(TEXTS))
    parser.add_argument("--list", action="store_true", help="print the table of what there is, and train nothing")
    given = parser.parse_args(arguments)
    names = given.names or [*VARIANTS, "ensembles"]
    if unknown := sorted(set(names) - {*VARIANTS, "ensembles"}):
        parser.error(f"unknown variant {', '.join(unknown)}: expected some of {', '.join(VARIANTS)}, ensembles")
    if not given.list and not DATA.is_dir():
        parser.error(f"{DATA}: expected the texts of the study, got no such folder")
    torch.set_num_threads(1)
    for name in [] if given.list else names:
        for text in given.texts:
            with tempfile.TemporaryDirectory() as folder:
                if name == "ensembles" and ("chain of distillations, 2", text) not in read_runs():
                    for label, result in run_ensembles(text, Path(folder)):
                        write_run(label, text, result)
                elif name != "ensembles" and (name, text) not in read_runs():
                    write_run(name, text, run_one(name, text, Path(folder)))
                    print(name, text, read_runs()[name, text]["loss"], flush=True)
    print(table_of(read_runs()))


if __name__ == "__main__":
    main()
