"""A tiny run folder as training writes it, and one bundle made from it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file, save_file

from hub_export import bundle
from hub_export.bundle import RECORD, checksums
from hub_export.client import HubClient, files_of
from storage.run_folder import RunFolder
from tests.hub_double import Hub
from tests.hub_export.families import MODERN, save_model

SECRET_TEXT = "a sentence of the training text that nobody may publish"
SAMPLES = ["The moon rose.\n```python\nprint(1)\n````\n# not a heading", "The sailor\x1b[31m said", "Once"]


def save_checkpoint(folder: Path, *, seed: int = 0) -> None:
    """Writes a checkpoint of random weights with its tokenizer and a training state."""
    save_model(folder, seed=seed, **MODERN)
    (folder / "training").mkdir()
    save_file({"momentum": torch.ones(3)}, folder / "training" / "optimizer.safetensors")
    (folder / "training" / "batches.json").write_text("{}")


def make_run(run: Path) -> Path:
    """Writes a finished run of the recipe `stories` with the checkpoints step-000010 (best) and step-000020."""
    save_checkpoint(run / "checkpoints" / "step-000010")
    save_checkpoint(run / "checkpoints" / "step-000020", seed=1)
    folder = RunFolder(run)
    best = {"validation_loss": 1.25, "perplexity": 3.490343, "bits_per_byte": 0.55}
    latest = {"validation_loss": 1.5, "perplexity": 4.481689, "bits_per_byte": 0.66}
    checkpoints = {"best_checkpoint": "checkpoints/step-000010", "latest_checkpoint": "checkpoints/step-000020"}
    progress = {"status": "finished", "recipe": "stories", "step": 20, "seconds": 7200.0, "tokens_seen": 40960}
    results = {"best_validation_loss": 1.25, "floor_bits_per_byte": 0.5, "evaluation": latest}
    folder.write_state(checkpoints | progress | results)
    config = {
        "corpus": {"source": "stories", "stories": 30000, "books": "any", "paths": [str(run / "corpus.txt")]},
        "data": {"batch_size": 16},
        "run": {"dir": str(run)},
    }
    folder.write_recipe({"recipe": "stories", "config": config, "git_commit": None, "versions": {"torch": "2.13.0"}})
    folder.write_prompts(["The robot", "Once upon a time"])
    for step, train_loss, seconds, evaluation in (
        (5, 1.6, 1800.1, {}),
        (10, 1.3, 3725.4, best),
        (20, 1.1, 7200.0, latest),
    ):
        record = {"step": step, "tokens_seen": 2048 * step, "train_loss": train_loss, "seconds": seconds}
        folder.append_metrics(record | evaluation)
    for text in SAMPLES:
        folder.append_sample({"step": 10, "prompt": "", "text": text, "seed": 0})
    folder.append_sample({"step": 20, "prompt": "The", "text": " end", "seed": 0})
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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that this process talks to, with an empty cache and no token."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with Hub().serve() as served:
        constants = {
            "ENDPOINT": served.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{served.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in constants.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        yield served


@pytest.fixture
def only_the_config_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A push fetches the config from the Hub in the place of loading the model in an isolated process."""

    def fetch_config(hub: HubClient, repo: str, commit: str, folder: Path) -> None:
        hub.call("loading", hf_hub_download, repo, "config.json", revision=commit, again=False, force_download=True)

    monkeypatch.setattr("hub_export.push.check_published", fetch_config)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by their path in it."""
    return {name: path.read_bytes() for name, path in files_of(folder).items()}


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
    for name, changes in (("config.json", {}), ("tokenizer_config.json", {"tokenizer_class": "TokenizersBackend"})):
        content = json.loads((folder / name).read_text()) | changes
        content.pop("scratchgpt_version", None)
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    if (folder / RECORD).is_file():
        record = {"made_by": "scratchgpt", "checks": ["AutoConfig"], "sha256": checksums(folder)}
        (folder / RECORD).write_text(json.dumps(record))
    return folder
