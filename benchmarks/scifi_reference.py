"""The recipe `scifi` beside a plain re-implementation of its tutorial, on the same shards, batches and windows.

`python -m benchmarks.scifi_reference --corpus FOLDER [--steps 500] [--batch-size 32] [--seed 1337] [--out DIR]
[--side both|reference|ours|table]`.
The reference is the tutorial's model and training written out in PyTorch (LucaT2/LLM_Tokenizer-project-from-scratch,
LLM_code/LLM.py and Train&Generate.py): torch's default initialisation, attention scores divided by sqrt(width), dropout
on the attention weights and on each branch but not on the embeddings, AdamW with decay on every parameter, a constant
learning rate (its plateau schedule falls after the sixth evaluation without an improvement, step 5,200 at the earliest
in its own log). It uses nothing of `modeling` and of `train`'s loop; only text, tokens and windows are ours. Each side
is a process with one thread; both are resumed by the same command.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.bpe import BOOKS
from storage.files import atomic_file
from storage.run_folder import RunFolder
from train.config import Config, replace_fields
from train.data.batches import Batch, evaluation_batches, training_batches
from train.data.prepare import prepare
from train.device import choose_precision
from train.recipes import get_recipe

WIDTH, HEADS, LAYERS, CONTEXT, DROPOUT = 256, 6, 6, 256, 0.2
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.01
SHOWN_STEPS = (100, 200, 300, 500)
SEED = 1337
SAVE_EVERY = 50
OUT = Path("runs/scifi-reference")


def run() -> dict[str, Any]:
    """What `python -m benchmarks scifi_reference` measures: both sides, 500 steps."""
    train_both(BOOKS, OUT, 500, 32, SEED)
    return {"validation_loss": compare(OUT)}


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.head_width = WIDTH // HEADS
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        # torch's default bound, 1 / sqrt(inputs), is the same for one linear layer a head and for all in one.
        self.queries_keys_values = nn.Linear(WIDTH, 3 * HEADS * self.head_width, bias=False)
        self.projection = nn.Linear(HEADS * self.head_width, WIDTH)
        self.feed_forward = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.ReLU(), nn.Linear(4 * WIDTH, WIDTH))
        self.dropout = nn.Dropout(DROPOUT)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Causal attention of x (B, L, E)."""
        batch, length, _ = x.shape
        by_head = self.queries_keys_values(x).view(batch, length, 3, HEADS, self.head_width).permute(2, 0, 3, 1, 4)
        query, key, value = by_head
        scores = query @ key.transpose(-2, -1) * WIDTH**-0.5  # the tutorial's scale: its width, not the head's
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = self.dropout(scores.masked_fill(later, -torch.inf).softmax(-1))
        return self.projection((weights @ value).transpose(1, 2).flatten(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.dropout(self.attend(self.norm1(x)))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class Reference(nn.Module):
    """The tutorial's decoder, with the initial values that PyTorch gives it."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.output = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocab_size)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy in nats a token."""
        x = self.tokens(batch.input_BL) + self.positions.weight[: batch.input_BL.shape[1]]
        logits = self.output(self.norm(self.blocks(x)))
        return functional.cross_entropy(logits.flatten(0, 1).float(), batch.target_BL.flatten())


def recipe(corpus: Path, folder: Path, steps: int, batch_size: int, seed: int = SEED) -> Config:
    """The recipe that both sides take text, tokens and windows from."""
    fields = {"corpus.source": "local", "corpus.paths": (corpus,), "run.dir": folder, "run.steps": steps}
    return replace_fields(get_recipe("scifi"), {**fields, "data.batch_size": batch_size, "run.seed": seed})


def train_reference(corpus: Path, folder: RunFolder, steps: int, batch_size: int, seed: int = SEED) -> None:
    """Train the reference; metrics.jsonl of its folder gets the same fields as a run's, where both have them."""
    config = recipe(corpus, folder.path, steps, batch_size, seed)
    torch.set_num_threads(1)
    prepared = prepare(config, folder, print)
    sizes = dict(batch_size=config.data.batch_size, length=CONTEXT, end_of_text=prepared.end_of_text)
    batches = training_batches(prepared.train, config.data.windows, **sizes, seed=config.run.seed)
    validation = evaluation_batches(prepared.validation, **sizes, windows=config.data.evaluation_windows)
    torch.manual_seed(config.run.seed)
    model = Reference(len(prepared.tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    saved_at, step = folder.path / "reference.pt", 0
    if saved_at.is_file():
        saved = torch.load(saved_at, weights_only=True)
        step = saved["step"]
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        batches.load_state_dict(saved["batches"])
        torch.set_rng_state(saved["random"])
    folder.rewind(step)
    half = torch.autocast("cpu", torch.bfloat16, choose_precision(config, torch.device("cpu")) == "bf16")
    losses: list[float] = []
    while step < steps:
        with half:
            loss = model(batches.next())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        losses.append(loss.item())
        if step % 10 == 0 or step == steps:
            record = {"step": step, "train_loss": sum(losses) / len(losses)}
            losses = []
            if step % config.run.evaluate_every == 0 or step == steps:
                record["validation_loss"] = evaluate(model, validation, half)
            folder.append_metrics(record)
            print(record, flush=True)
        if step % SAVE_EVERY == 0 or step == steps:
            states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            with atomic_file(saved_at, "wb") as file:
                torch.save(
                    {**states, "step": step, "batches": batches.state_dict(), "random": torch.get_rng_state()}, file
                )


@torch.no_grad()
def evaluate(model: Reference, validation: list[Batch], half: torch.autocast) -> float:
    """Mean loss over the validation windows, in nats a token, without dropout."""
    model.eval()
    with half:
        losses = [(model(batch).item(), batch.target_BL.numel()) for batch in validation]
    model.train()
    return sum(loss * count for loss, count in losses) / sum(count for _, count in losses)


def our_command(corpus: Path, folder: Path, steps: int, batch_size: int, seed: int) -> list[str]:
    """The command that trains the recipe."""
    flags = {"--corpus": corpus, "--run-dir": folder, "--steps": steps, "--data.batch-size": batch_size, "--seed": seed}
    flags |= {"--run.threads": 1, "--run.checkpoint-every": SHOWN_STEPS[0], "--run.sample-tokens": 0}
    return [sys.executable, "-m", "train", "scifi", *(str(word) for flag in flags.items() for word in flag), "--resume"]


def train_both(corpus: Path, out: Path, steps: int, batch_size: int, seed: int) -> None:
    """Both sides at the same time, each in a process with one thread."""
    own = [sys.executable, "-m", "benchmarks.scifi_reference", "--side", "reference"]
    own += ["--corpus", str(corpus), "--out", str(out), "--steps", str(steps), "--batch-size", str(batch_size)]
    own += ["--seed", str(seed)]
    commands = {"reference": own, "ours": our_command(corpus, out / "ours", steps, batch_size, seed)}
    out.mkdir(parents=True, exist_ok=True)
    started = {}
    for side, command in commands.items():
        with (out / f"{side}.log").open("a") as log:
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            started[side] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    if failed := [side for side, process in started.items() if process.wait()]:
        sys.exit(f"error: {' and '.join(failed)} failed: see the .log files in {out}")


def compare(out: Path) -> dict[int, dict[str, float]]:
    """Validation losses of both sides, as far as they are, by step."""
    losses: dict[int, dict[str, float]] = {}
    for side in ("reference", "ours"):
        for record in RunFolder(out / side).metrics() if (out / side).is_dir() else []:
            if record["step"] in SHOWN_STEPS and "validation_loss" in record:
                losses.setdefault(record["step"], {})[side] = round(record["validation_loss"], 4)
    return losses


def as_table(losses: dict[int, dict[str, float]]) -> str:
    """The comparison as a Markdown table."""
    lines = ["| step | reference | ours | ours - reference |", "|---:|---:|---:|---:|"]
    for step, sides in sorted(losses.items()):
        reference, ours = sides.get("reference"), sides.get("ours")
        gap = "" if reference is None or ours is None else f"{ours - reference:+.3f}"
        lines.append(f"| {step} | {reference or ''} | {ours or ''} | {gap} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scifi_reference", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=BOOKS, help="folder of the books")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=32, help="windows a step, on both sides")
    parser.add_argument("--seed", type=int, default=SEED, help="of windows, weights and dropout, on both sides")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of both sides")
    parser.add_argument("--side", choices=("both", "reference", "ours", "table"), default="both")
    given = parser.parse_args()
    sizes = given.steps, given.batch_size, given.seed
    try:
        if given.side == "reference":
            train_reference(given.corpus, RunFolder(given.out / "reference"), *sizes)
        elif given.side == "ours":
            subprocess.run(our_command(given.corpus, given.out / "ours", *sizes), check=True)
        elif given.side == "both":
            train_both(given.corpus, given.out, *sizes)
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
    print(as_table(compare(given.out)))


if __name__ == "__main__":
    main()
