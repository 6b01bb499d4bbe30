import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from hub_export import verify
from hub_export.code_version import installed_transformers
from hub_export.verify import CHECKS, PROBE_TEXT, run_isolated
from tests.hub_export.conftest import plant

SWALLOWED = """
def take_cache(arguments, cache, implementation):
    return arguments.pop("cache", None) and None


def check_beginning(*_):
    pass
"""
"""transformers 5.24 hands a cache over as `cache`, and the first version of the model's code did not look for it."""
EMPTIED = """
attend = ScratchGPTAttention.forward


def forward(self, *arguments, **options):
    for cache in (*arguments, *options.values()):
        if type(cache).__name__ == "StaticCache":
            for layer in cache.layers:
                if getattr(layer, "values", None) is not None:
                    layer.values.zero_()
    return attend(self, *arguments, **options)


ScratchGPTAttention.forward = forward
"""
"""A static cache whose values are lost."""
SAMPLED = """
write = ScratchGPTForCausalLM.generate


def generate(self, *arguments, **options):
    options.update({"use_cache": False, "num_beams": 1} if options.get("do_sample") else {})
    written = write(self, *arguments, **options)
    if options.get("do_sample"):
        written.logits[-1].neg_()
    return written


ScratchGPTForCausalLM.generate = generate
"""
"""Only what is sampled is wrong, and only its last token."""
PLACES = """
import json, os
from huggingface_hub import constants, get_token
from transformers.utils import HF_MODULES_CACHE

caches = [constants.HF_HUB_CACHE, constants.HF_ASSETS_CACHE, constants.HF_XET_CACHE, HF_MODULES_CACHE]
with open("report.json", "w") as file:
    found = {"home": constants.HF_HOME, "caches": caches, "offline": constants.HF_HUB_OFFLINE, "token": get_token()}
    json.dump(found | {"variables": [name for name, value in os.environ.items() if "hf_secret" in value]}, file)
"""
"""A check that says where the process keeps what it downloads, whether it asks the Hub, and what token it has."""


def test_a_bundle_is_checked_without_the_users_environment(
    pristine_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HF_TOKEN", "HF_HOME", "PYTHONPATH", "HF_ENDPOINT"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    before = {path: path.stat().st_mtime_ns for path in pristine_bundle.rglob("*")}
    verification = verify(pristine_bundle)
    assert verification.checks == (
        "AutoConfig", "AutoModelForCausalLM", "AutoModel", "finite weights", "tied weights", "equal logits",
        "generation config", "AutoTokenizer without remote code", "AutoTokenizer with default trust",
        "AutoTokenizer with remote code", "from-scratch tokenizer", "generation with a cache",
        "generation without a cache", "generation with a static cache", "generation of a padded batch", "pipeline",
    )  # fmt: skip
    assert verification.transformers == installed_transformers()
    assert verification.parameters > 25_000
    assert str(verification).startswith("verified in ")
    assert {path: path.stat().st_mtime_ns for path in pristine_bundle.rglob("*")} == before
    assert not (tmp_path / "nowhere").exists()
    assert os.environ["HF_TOKEN"]


def test_one_changed_bit_of_the_weights_is_found(made: Path, pristine_run: Path) -> None:
    weights = load_file(made / "model.safetensors")
    weights["model.norm.weight"][0] *= 1 + 2**-20
    save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="the check 'equal logits' failed: they differ from the checkpoint's by up to"):
        verify(made, checkpoint=pristine_run / "checkpoints" / "step-000010")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            SWALLOWED,
            r"with a cache' failed: after a prompt of 3 tokens \(greedy\), the logits of new token 2 of 16 differ by "
            r"up to .* \(tolerance 0\.0001\): what `generate` and `pipeline` write with this model is wrong\. Nothing",
        ),
        pytest.param(
            EMPTIED,
            r"with a static cache' failed: after a prompt of 32 tokens \(greedy\), the logits of new token 2 of 16",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            SAMPLED,
            r"with a cache' failed: .* \(sampled with seed 1\), the logits of new token 16 of 16",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["swallowed", "static", "sampled"],
)
def test_a_model_that_generates_wrongly_is_refused(made: Path, code: str, message: str) -> None:
    plant(made, code)
    installed = installed_transformers()
    with pytest.raises(ValueError, match=f"with transformers {installed} the check 'generation {message}"):
        verify(made, trust_remote_code=True)


def test_a_published_model_must_generate_too(made: Path) -> None:
    folder = str(made)
    task = {"check": "published", "repo": folder, "revision": "main", "folder": folder, "snapshot": folder}
    task["probe"] = PROBE_TEXT
    plant(made, "")
    assert run_isolated(task)["checks"] == [
        "config", "logits, bit for bit", "generation", "tokenizer", "from-scratch tokenizer",
    ]  # fmt: skip
    plant(made, SWALLOWED)
    report = run_isolated(task)
    assert report["failed"] == "generation"
    assert "differ by up to" in report["error"]


@pytest.mark.parametrize("given", [True, False])
def test_an_isolated_process_has_caches_of_its_own_and_no_token(
    given: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "report.py").write_text(PLACES)
    monkeypatch.setattr(sys.modules[run_isolated.__module__], "CHECKS", tmp_path / "report.py")
    mine = str(tmp_path / "mine")
    for name in (
        "HF_HOME", "HF_HUB_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE", "HF_MODULES_CACHE", "HUGGINGFACE_HUB_CACHE",
        "HUGGINGFACE_ASSETS_CACHE", "TRANSFORMERS_CACHE", "PYTORCH_TRANSFORMERS_CACHE", "PYTORCH_PRETRAINED_BERT_CACHE",
    ):  # fmt: skip
        monkeypatch.setenv(name, mine)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, "hf_secret")
    found = run_isolated({}, hub_cache=tmp_path / "downloaded" if given else None)
    assert not found["home"].startswith(mine)
    downloads, *others = found["caches"]
    assert downloads == (str(tmp_path / "downloaded") if given else f"{found['home']}/hub")
    assert all(cache.startswith(found["home"]) for cache in others)
    assert (found["offline"], found["token"], found["variables"]) == (True, None, [])


@pytest.mark.parametrize("begun", ["", "open('report.json', 'w').write('{')\n"], ids=["no report", "half a report"])
def test_a_process_that_ends_early_is_a_failed_check(begun: str, made: Path) -> None:
    plant(made, f"{begun}import os\nos._exit(3)")
    with pytest.raises(ValueError, match=r"'isolated process' failed: the process ended with status 3: no message"):
        verify(made, trust_remote_code=True)


def test_tokenizers_that_disagree_are_found(made: Path) -> None:
    merges = (made / "slow" / "merges.txt").read_text(encoding="utf-8").splitlines()
    (made / "slow" / "merges.txt").write_text("\n".join(merges[:-20]) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="the check 'from-scratch tokenizer' failed: expected the ids of"):
        verify(made)


def test_a_folder_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a model folder, but it has no config\.json. Give a folder that"):
        verify(tmp_path)


@pytest.mark.parametrize("package", ["modeling", "tokenization"])
def test_the_check_does_not_find_an_installed_project(package: str) -> None:
    code = f"import runpy; runpy.run_path({str(CHECKS)!r}, run_name='checks'); import {package}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKS.parents[1], capture_output=True, text=True, check=False
    )
    assert f"ModuleNotFoundError: import of {package} halted" in done.stderr
