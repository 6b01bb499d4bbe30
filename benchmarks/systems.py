"""The five tutorial systems and `modern` on the same books: bits per byte after the same number of training bytes.

`python -m benchmarks.systems --corpus FOLDER --held-out FILE… [--megabytes 3] [--scale small|full] [--out DIR]`. Every
system keeps its own tokenizer, architecture, optimizer and learning rate. At scale `small` they share a width of 128,
four layers, windows of at most 256 tokens and 4,096 tokens a step, so that a CPU does it; `full` leaves all as it is.
Systems that are done are taken from DIR; one that was stopped is resumed.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.bpe import BOOKS
from corpus.local import find_files, read_local
from modeling.loading import load_causal_lm
from storage.records import read_json_object, write_json
from storage.run_folder import RunFolder
from tokenization import load_tokenizer
from train.config import Config, replace_fields
from train.data.prepare import prepare
from train.loop import train
from train.recipes import get_recipe
from train.text_loss import evaluate_text

SYSTEMS = ("scifi", "bookcorpus", "openwebtext", "wikitext", "wiki", "modern")
HELD_OUT = ("time_machine_35.txt", "frankenstein_84.txt")
STEP_TOKENS = 4096  # at scale small
EVALUATIONS = 10  # during a run


def run() -> dict[str, Any]:
    """What `python -m benchmarks systems` measures: three megabytes of the science-fiction books at scale small."""
    return compare(
        corpus=BOOKS,
        held_out=[BOOKS / name for name in HELD_OUT],
        megabytes=3.0,
        scale="small",
        out=Path("runs/systems"),
    )


def compare(*, corpus: Path, held_out: list[Path], megabytes: float, scale: str, out: Path) -> dict[str, Any]:
    """Train every system on `corpus` without the held-out files; bits per byte of each on those.

    Returns:
        By system: parameters, vocabulary, bytes_per_token, steps, tokens_seen, seconds, bits_per_byte.
    """
    hidden = {path.resolve() for path in held_out}
    files = tuple(path for path in find_files([corpus]) if path.resolve() not in hidden)
    texts = [document.text for document in read_local(held_out)]
    results = {}
    for name in SYSTEMS:
        folder = out / name
        result = folder / "held-out.json"
        if not result.is_file():
            fields = {"corpus.source": "local", "corpus.paths": files, "corpus.books": "any"}
            config = replace_fields(sized(get_recipe(name), scale), fields | {"run.dir": folder, "run.resume": True})
            measured = train_for_bytes(name, config, RunFolder(folder), megabytes)
            checkpoint = RunFolder(folder).checkpoint()
            measured |= evaluate_text(load_causal_lm(checkpoint), load_tokenizer(checkpoint), texts)
            write_json(result, measured)
        results[name] = read_json_object(result)
    return {"megabytes": megabytes, "scale": scale, "held_out": [path.name for path in held_out], "systems": results}


def sized(recipe: Config, scale: str) -> Config:
    """The recipe at that scale.

    BookCorpus' own vocabulary comes from the Hub; a byte-level BPE of the same size, trained on the same text as the
    others' vocabularies, stands in for it.
    """
    if recipe.tokenizer.kind == "gpt2":
        recipe = replace_fields(recipe, {"tokenizer.kind": "bpe"})
    if scale == "full":
        return recipe
    context = min(256, recipe.model.max_position_embeddings)
    fields = {"model.hidden_size": 128, "model.num_hidden_layers": 4, "model.max_position_embeddings": context}
    fields |= {"data.batch_size": STEP_TOKENS // context, "data.evaluation_windows": 64}
    if recipe.model.intermediate_size is not None:  # as many times the width as at full size
        fields |= {"model.intermediate_size": recipe.model.intermediate_size * 128 // recipe.model.hidden_size}
    if recipe.model.head_dim is not None:
        fields |= {"model.num_attention_heads": 128 // recipe.model.head_dim}
    return replace_fields(recipe, fields)


def train_for_bytes(name: str, config: Config, run: RunFolder, megabytes: float) -> dict[str, Any]:
    """Train until so many megabytes of text were seen; the run's figures."""
    prepared = prepare(config, run, print)
    bytes_per_token = prepared.train.bytes / prepared.train.tokens
    step_bytes = config.data.batch_size * config.model.max_position_embeddings * bytes_per_token
    steps = max(EVALUATIONS, round(megabytes * 1e6 / step_bytes))
    fields = {"schedule.warmup_steps": min(config.schedule.warmup_steps, steps // 10), "run.steps": steps}
    fields |= {"run.evaluate_every": max(1, steps // EVALUATIONS), "run.checkpoint_every": max(1, steps // 2)}
    train(replace_fields(config, fields | {"run.log_every": 5, "run.output_tokens": 0}), recipe=name)
    state = run.peek_state()
    if state["status"] != "finished":
        sys.exit(f"{name} was stopped; the same command resumes it")
    shutil.rmtree(run.tokens)  # the shards are large, and made again from the same text
    figures = {key: state[key] for key in ("parameters", "tokens_seen", "seconds")}
    size = {"vocabulary": len(prepared.tokenizer), "bytes_per_token": bytes_per_token, "steps": state["step"]}
    return figures | size


def as_table(comparison: dict[str, Any]) -> str:
    """The comparison as a Markdown table, the best system first."""
    lines = [
        "| system | vocabulary | parameters | bytes per token | tokens seen | minutes | held-out bits per byte |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, system in sorted(comparison["systems"].items(), key=lambda item: item[1]["bits_per_byte"]):
        lines.append(
            f"| `{name}` | {system['vocabulary']:,} | {system['parameters']:,} | {system['bytes_per_token']:.2f} "
            f"| {system['tokens_seen']:,} | {system['seconds'] / 60:.1f} | {system['bits_per_byte']:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.systems", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=BOOKS, help="folder of the books")
    parser.add_argument("--held-out", type=Path, nargs="+", help="books of it that no system trains on")
    parser.add_argument("--megabytes", type=float, default=3.0, help="training text that each system sees")
    parser.add_argument("--scale", choices=("small", "full"), default="small")
    parser.add_argument("--out", type=Path, default=Path("runs/systems"))
    given = parser.parse_args()
    held_out = given.held_out or [given.corpus / name for name in HELD_OUT]
    try:
        comparison = compare(
            corpus=given.corpus, held_out=held_out, megabytes=given.megabytes, scale=given.scale, out=given.out
        )
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(as_table(comparison))


if __name__ == "__main__":
    main()
