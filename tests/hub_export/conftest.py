"""A run folder made by hand as training writes it, tiny, and one bundle made from it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hub_export import bundle
from hub_export.bundle import RECORD, checksums
from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from tokenization import save_tokenizer, train_vocabulary

TEXT = "The robot's three moons rose over the naïve café. The sailor said that the moons don't fall.\n\n" * 4
SECRET_TEXT = "a sentence of the training text that nobody may publish"
SAMPLES = ["The moon rose.\n```python\nprint(1)\n````\n# not a heading", "The sailor\x1b[31m said", "Once"]


def save_checkpoint(folder: Path, *, seed: int = 0) -> None:
    """Writes a checkpoint of random weights with its tokenizer and a training state."""
    tokenizer = train_vocabulary("bpe", [TEXT], 300)
    torch.manual_seed(seed)
    config = ScratchGPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=16,
        max_position_embeddings=48,
        hidden_act="silu",
        gated_mlp=True,
        norm="rmsnorm",
        position_embedding="rope",
        qk_norm=True,
        attention_output_bias=False,
        mlp_bias=False,
        lm_head_bias=False,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    ScratchGPTForCausalLM(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    (folder / "training").mkdir()
    save_file({"momentum": torch.ones(3)}, folder / "training" / "optimizer.safetensors")
    (folder / "training" / "batches.json").write_text("{}")


def write_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def make_run(run: Path) -> Path:
    """Writes a finished run of the recipe `stories` with the checkpoints step-000010 (best) and step-000020."""
    save_checkpoint(run / "checkpoints" / "step-000010")
    save_checkpoint(run / "checkpoints" / "step-000020", seed=1)
    best = {"validation_loss": 1.25, "perplexity": 3.490343, "bits_per_byte": 0.55}
    latest = {"validation_loss": 1.5, "perplexity": 4.481689, "bits_per_byte": 0.66}
    state = {
        "status": "finished",
        "recipe": "stories",
        "step": 20,
        "best_checkpoint": "checkpoints/step-000010",
        "latest_checkpoint": "checkpoints/step-000020",
        "best_validation_loss": 1.25,
        "seconds": 7200.0,
        "tokens_seen": 40960,
        "floor_bits_per_byte": 0.5,
        "evaluation": latest,
    }
    config = {
        "corpus": {"source": "stories", "stories": 30000, "books": "any", "paths": [str(run / "corpus.txt")]},
        "data": {"batch_size": 16},
        "run": {"dir": str(run)},
    }
    recipe = {"recipe": "stories", "config": config, "git_commit": None, "versions": {"torch": "2.13.0"}}
    (run / "run.json").write_text(json.dumps(state))
    (run / "recipe.json").write_text(json.dumps(recipe))
    (run / "prompts.json").write_text(json.dumps(["The robot", "Once upon a time"]))
    write_lines(
        run / "metrics.jsonl",
        [
            {"step": 5, "tokens_seen": 10240, "train_loss": 1.6, "learning_rate": 1e-3, "seconds": 1800.1},
            {"step": 10, "tokens_seen": 20480, "train_loss": 1.3, "learning_rate": 1e-3, "seconds": 3725.4, **best},
            {"step": 20, "tokens_seen": 40960, "train_loss": 1.1, "learning_rate": 0.0, "seconds": 7200.0, **latest},
        ],
    )
    samples = [{"step": 10, "prompt": "", "text": text, "seed": 0} for text in SAMPLES]
    write_lines(run / "samples.jsonl", [*samples, {"step": 20, "prompt": "The", "text": " end", "seed": 0}])
    (run / "loss.png").write_bytes(b"\x89PNG\r\n\x1a\n picture")
    (run / "corpus.txt").write_text(SECRET_TEXT)
    (run / "tokens").mkdir()
    (run / "train.log").write_text(f"reading {run / 'corpus.txt'}\n")
    return run


@pytest.fixture(scope="session")
def pristine_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that no test changes."""
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def pristine_bundle(pristine_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `pristine_run`, proved, that no test changes."""
    return bundle(pristine_run, tmp_path_factory.mktemp("out") / "tiny-stories")


@pytest.fixture
def run(pristine_run: Path, tmp_path: Path) -> Path:
    """A copy of the run folder to damage."""
    return Path(shutil.copytree(pristine_run, tmp_path / "run"))


@pytest.fixture
def made(pristine_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle to damage."""
    return Path(shutil.copytree(pristine_bundle, tmp_path / "made"))


def plant(folder: Path, code: str) -> Path:
    """Adds code to a bundle's model, which it may redefine; its weights become strong enough for faults to show."""
    path = folder / "modeling_scratchgpt.py"
    path.write_text(f"{path.read_text(encoding='utf-8')}\n\n{code}", encoding="utf-8")
    torch.manual_seed(0)
    weights = load_file(folder / "model.safetensors")
    weights = {name: weight + 0.2 * torch.randn_like(weight) for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def make_old(folder: Path) -> Path:
    """Makes a bundle or a checkpoint one of the first version: no mark, a third file, a class that few versions know.

    The record of a bundle is then as that version wrote it.
    """
    path = folder / "configuration_scratchgpt.py"
    path.write_text(path.read_text(encoding="utf-8").replace("CODE_VERSION", "NO_MARK"), encoding="utf-8")
    (folder / "kernels_scratchgpt.py").write_text("IGNORE_INDEX = -100\n")
    for name, changes in (
        ("config.json", {"scratchgpt_version": None}),
        ("tokenizer_config.json", {"tokenizer_class": "TokenizersBackend"}),
    ):
        content = json.loads((folder / name).read_text()) | changes
        kept = {key: value for key, value in content.items() if value is not None}
        (folder / name).write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    if (folder / RECORD).is_file():
        record = {"made_by": "scratchgpt", "checks": ["AutoConfig"], "sha256": checksums(folder)}
        (folder / RECORD).write_text(json.dumps(record))
    return folder
