"""One bit flipped in a file that was written: found when it is read, named, and never trained on without a word."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import hub_export.__main__ as export_command
import train.__main__ as train_command
from modeling.loading import load_causal_lm
from tests.faults.injection import run
from tests.faults.stages import TINY, fresh
from tokenization import load_tokenizer


def flip_bits(inputs: Path, work: Path, *, tries: int, seed: int) -> list[str]:
    """Flip bits in every kind of file of a run and a bundle, each `tries` times; the lines of a table."""
    randomness = random.Random(seed)

    def resume(folder: Path) -> None:
        train_command.main(["debug", *TINY, "--steps", "9", "--run-dir", str(folder / "run"), "--resume"])

    def bundle(folder: Path) -> None:
        words = ["bundle", str(folder / "run"), "--checkpoint", "step-000006", "--out", str(folder / "made")]
        export_command.main(words)

    def load(folder: Path) -> None:
        load_tokenizer(folder / "bundle")
        try:
            load_causal_lm(folder / "bundle")
        except ValueError as error:
            raise SystemExit(f"error: {error}") from None

    last = "run/checkpoints/step-000006"
    kinds: list[tuple[str, str, Callable[[Path], None]]] = [
        ("token shards", "run/tokens/train-00000.npy", resume),
        ("manifest of the tokens", "run/tokens/manifest.json", resume),
        ("recipe of a run", "run/recipe.json", resume),
        ("tokenizer", "run/tokenizer/tokenizer.json", resume),
        ("from-scratch tokenizer", "run/tokenizer/slow/merges.txt", resume),
        ("weights", f"{last}/model.safetensors", resume),
        ("optimizer state", f"{last}/training/optimizer.safetensors", resume),
        ("state of the run", f"{last}/training/state.json", resume),
        ("config of a checkpoint", f"{last}/config.json", resume),
        ("checksums of a checkpoint", f"{last}/SHA256SUMS", resume),
        ("metrics", "run/metrics.jsonl", resume),
        ("samples", "run/samples.jsonl", resume),
        ("weights, when bundled", f"{last}/model.safetensors", bundle),
        ("weights of a bundle", "bundle/model.safetensors", load),
        ("tokenizer of a bundle", "bundle/tokenizer.json", load),
    ]
    lines = []
    for kind, name, command in kinds:
        found = 0
        for _ in range(tries):
            folder = fresh(work / "flipped")
            for part in ("run", "bundle"):
                shutil.copytree(inputs / part, folder / part)
            path = folder / name
            raw = bytearray(path.read_bytes())
            place = randomness.randrange(8 * len(raw))
            raw[place // 8] ^= 1 << place % 8
            path.write_bytes(raw)
            ended = run(lambda folder=folder, command=command: command(folder), folder)
            is_record = kind in ("metrics", "samples")
            is_named = Path(name).name in ended.output or (kind.startswith("checksums") and "checksum" in ended.output)
            is_found = is_named and "Traceback" not in ended.output and (bool(ended.status) or is_record)
            if "/checkpoints/" in name and command is resume:
                is_found = is_found and "the last good checkpoint is step-000003" in ended.output
            found += is_found
            if not is_found:
                print(f"{kind}, bit {place} of {name}: {ended.status}: {ended.output[-700:]}", flush=True)
        lines.append(f"| a bit flipped: {kind} | {tries} | {found} | {Path(name).name} |")
        print(lines[-1], flush=True)
    return lines
