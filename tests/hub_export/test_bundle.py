import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hub_export import bundle
from hub_export.bundle import check_private
from hub_export.code_version import ROOT, installed_transformers, project_code
from tests.hub_export.conftest import contents, make_old

MODEL_FILES = {
    "README.md", "config.json", "configuration_scratchgpt.py", "generation_config.json", "loss.png",
    "model.safetensors", "modeling_scratchgpt.py", "prompts.json", "proof.json", "tokenization_scratchgpt.py",
    "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip
SLOW_FILES = {
    "merge_counts.json", "merges.txt", "merges.vocab", "tokenization_scratchgpt.py", "tokenizer_config.json",
    "vocab.json",
}  # fmt: skip


BUNDLE_FILES = MODEL_FILES | {f"slow/{name}" for name in SLOW_FILES}
BEST = "checkpoints/step-000010"


def test_holds_what_the_hub_needs_and_nothing_else(pristine_bundle: Path) -> None:
    assert contents(pristine_bundle).keys() == BUNDLE_FILES


def test_is_a_copy_of_the_best_checkpoint(pristine_run: Path, pristine_bundle: Path) -> None:
    checkpoint = pristine_run / "checkpoints" / "step-000010"
    made, source = contents(pristine_bundle), contents(checkpoint)
    copied = made.keys() & source.keys()
    assert {"config.json", "model.safetensors", "tokenizer.json", "slow/vocab.json"} <= copied
    assert not [name for name in copied if made[name] != source[name]]
    config = json.loads((pristine_bundle / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM"}


def test_names_no_place_of_this_machine_and_no_training_text(pristine_run: Path, pristine_bundle: Path) -> None:
    private = [str(pristine_run), str(pristine_bundle.parent), str(Path(__file__).parents[2]), "nobody may publish"]
    for name, content in contents(pristine_bundle).items():
        assert not [text for text in private if text.encode() in content], name


@pytest.mark.parametrize(
    ("name", "content", "finding"),
    [
        ("config.json", '{"name_or_path": "/srv/people/alice/run"}', "the path /srv/people/alice"),
        ("config.json", f'{{"token": "hf_{"a" * 34}"}}', "an access token"),
        ("prompts.json", '["the-token-of-a-user"]', "an access token"),
        ("model.safetensors", "/srv/people/alice/run", "the path /srv/people/alice"),
    ],
)
def test_private_content_is_refused(
    made: Path, name: str, content: str, finding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "the-token-of-a-user")
    if name == "model.safetensors":
        save_file({"w": torch.zeros(2)}, made / name, metadata={"from": content})
    else:
        (made / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}: .* holds {finding}") as caught:
        check_private(made, machine_paths=(Path("/srv/people/alice"), Path("/srv")))
    assert "the-token-of-a-user" not in str(caught.value)


@pytest.mark.slow
def test_force_replaces_a_bundle_here_by_one_whose_tokenizer_has_no_slow_class(run: Path, made: Path) -> None:
    with pytest.raises(ValueError, match=r"a bundle is there\. Add --force to replace it"):
        bundle(run, made)
    shutil.rmtree(run / "checkpoints" / "step-000020" / "slow")
    (made / "from-before").touch()
    bundle(run, made, checkpoint="latest", force=True)
    assert contents(made).keys() == MODEL_FILES - {"tokenization_scratchgpt.py"}
    weights = (made / "model.safetensors").read_bytes()
    assert weights == (run / "checkpoints" / "step-000020" / "model.safetensors").read_bytes()
    card = (made / "README.md").read_text(encoding="utf-8")
    assert "step-000020" in card
    assert "slow" not in card


@pytest.mark.parametrize("has_code", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_checkpoint_of_an_earlier_version_gets_this_projects_code(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, has_code: bool
) -> None:
    checkpoint = make_old(run / "checkpoints" / "step-000010")
    for path in [] if has_code else checkpoint.rglob("*.py"):
        path.unlink()
    before = contents(checkpoint)
    caplog.set_level(logging.INFO, logger="hub_export")
    made = bundle(run, tmp_path / "out")
    ours = project_code().version
    said = f"{checkpoint} was saved with code of version 0.1.0; the bundle gets this project's, {ours}"
    assert (said in caplog.messages) == has_code
    assert contents(made).keys() == BUNDLE_FILES
    for name in ("configuration_scratchgpt.py", "modeling_scratchgpt.py"):
        assert (made / name).read_bytes() == (ROOT / "modeling" / name).read_bytes()
    for name in ("tokenization_scratchgpt.py", "slow/tokenization_scratchgpt.py"):
        assert (made / name).read_bytes() == (ROOT / "tokenization" / "tokenization_scratchgpt.py").read_bytes()
    config, record = (json.loads((made / name).read_text()) for name in ("config.json", "proof.json"))
    assert config["scratchgpt_version"] == record["scratchgpt_version"] == ours
    assert record["transformers"] == installed_transformers()
    assert json.loads((made / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert contents(checkpoint) == before


@pytest.mark.parametrize("place", ["a file", "a folder of the user", "the run", "a checkpoint"])
def test_never_replaces_what_is_no_bundle(run: Path, tmp_path: Path, place: str) -> None:
    out = {"the run": run, "a checkpoint": run / "checkpoints" / "step-000010"}.get(place, tmp_path / "out")
    if place == "a file":
        out.write_text("mine")
    if place == "a folder of the user":
        out.mkdir()
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="something that is no bundle is there"):
        bundle(run, out, force=True)
    assert contents(tmp_path) == before


LATER = b'CODE_VERSION = "99.0"\nLOWEST_TRANSFORMERS, NEWEST_TRANSFORMERS = "5.0", "9.9"\n'


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("", None, "expected a run folder, but there is no such folder"),
        ("recipe.json", None, "recipe.json is missing. Give the folder that"),
        ("run.json", b'{"status": "fini', r"run\.json: expected JSON, but it cannot be read"),
        ("checkpoints", None, "expected at least one checkpoint, but this run has none yet. Let it train"),
        (f"{BEST}/model.safetensors", None, "has no weights: expected model.safetensors, but the file is missing"),
        (f"{BEST}/model.safetensors", -100, r"model\.safetensors is damaged: expected \d+ bytes, got \d+"),
        (f"{BEST}/tokenizer.json", None, "expected a tokenizer in the checkpoint, but tokenizer.json is missing"),
        (f"{BEST}/slow/merges.txt", None, "expected a complete checkpoint, but slow/merges.txt is missing"),
        (f"{BEST}/configuration_scratchgpt.py", LATER, r"its code is of version 99\.0, later than this project's"),
        (f"{BEST}/configuration_scratchgpt.py", b"CODE_VERSION = (", r"expected Python, but it cannot be read"),
        (f"{BEST}/config.json", {"model_type": "gpt2"}, "a ScratchGPTForMaskedLM, got model_type 'gpt2'"),
        (f"{BEST}/config.json", {"architectures": ["GPT2LMHeadModel"]}, "expected a ScratchGPTForCausalLM or a"),
        (f"{BEST}/config.json", {"auto_map": {"AutoConfig": ""}}, "but AutoModel, AutoModelForCausalLM, AutoModelForM"),
        (f"{BEST}/config.json", {"intermediate_size": 64}, "expected a checkpoint that loads, but it does not"),
    ],
)
def test_a_damaged_run_is_an_error_and_leaves_nothing(
    run: Path, tmp_path: Path, name: str, damage: bytes | int | dict | None, message: str
) -> None:
    path = run / name
    if isinstance(damage, dict):
        path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    elif damage is not None:
        path.write_bytes(damage if isinstance(damage, bytes) else path.read_bytes()[:damage])
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=message):
        bundle(run, tmp_path / "out" / "bundle")
    assert list((tmp_path / "out").iterdir()) == []
