import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hub_export import bundle
from hub_export.bundle import check_private
from hub_export.code_version import ROOT, installed_transformers, project_code
from tests.hub_export.conftest import make_old

MODEL_FILES = {
    "README.md",
    "config.json",
    "configuration_scratchgpt.py",
    "generation_config.json",
    "loss.png",
    "model.safetensors",
    "modeling_scratchgpt.py",
    "prompts.json",
    "proof.json",
    "tokenization_scratchgpt.py",
    "tokenizer.json",
    "tokenizer_config.json",
}
SLOW_FILES = {
    "merge_counts.json", "merges.txt", "merges.vocab", "tokenization_scratchgpt.py", "tokenizer_config.json",
    "vocab.json",
}  # fmt: skip


def relative_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_holds_what_the_hub_needs_and_nothing_else(pristine_bundle: Path) -> None:
    assert relative_files(pristine_bundle) == MODEL_FILES | {f"slow/{name}" for name in SLOW_FILES}


def test_is_a_copy_of_the_best_checkpoint(pristine_run: Path, pristine_bundle: Path) -> None:
    checkpoint = pristine_run / "checkpoints" / "step-000010"
    copied = relative_files(pristine_bundle) & relative_files(checkpoint)
    assert {"config.json", "model.safetensors", "tokenizer.json", "slow/vocab.json"} <= copied
    for name in copied:
        assert (pristine_bundle / name).read_bytes() == (checkpoint / name).read_bytes(), name
    config = json.loads((pristine_bundle / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM"}


def test_names_no_place_of_this_machine_and_no_training_text(pristine_run: Path, pristine_bundle: Path) -> None:
    private = [str(pristine_run), str(pristine_bundle.parent), str(Path(__file__).parents[2]), "nobody may publish"]
    for name in relative_files(pristine_bundle):
        content = (pristine_bundle / name).read_bytes()
        assert not [text for text in private if text.encode() in content], name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"name_or_path": "/srv/people/alice/run"}', "config.json: .* holds the path /srv/people/alice"),
        (f'{{"token": "hf_{"a" * 34}"}}', "config.json: .* holds an access token"),
    ],
)
def test_refuses_private_content(made: Path, content: str, message: str) -> None:
    (made / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        check_private(made, machine_paths=(Path("/srv/people/alice"), Path("/srv")))


def test_refuses_a_path_noted_beside_the_weights(made: Path) -> None:
    save_file({"w": torch.zeros(2)}, made / "model.safetensors", metadata={"from": "/srv/people/alice/run"})
    with pytest.raises(ValueError, match=r"model\.safetensors: .* holds the path /srv/people/alice"):
        check_private(made, machine_paths=(Path("/srv/people/alice"),))


def test_refuses_the_users_own_token(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "the-token-of-a-user")
    (made / "prompts.json").write_text('["the-token-of-a-user"]')
    with pytest.raises(ValueError, match=r"prompts\.json: .* holds an access token") as caught:
        check_private(made, machine_paths=())
    assert "the-token-of-a-user" not in str(caught.value)


def test_force_replaces_a_bundle_here_by_one_whose_tokenizer_has_no_slow_class(run: Path, made: Path) -> None:
    with pytest.raises(ValueError, match=r"a bundle is there\. Add --force to replace it"):
        bundle(run, made)
    shutil.rmtree(run / "checkpoints" / "step-000020" / "slow")
    (made / "from-before").touch()
    bundle(run, made, checkpoint="latest", force=True)
    assert relative_files(made) == MODEL_FILES - {"tokenization_scratchgpt.py"}
    weights = (made / "model.safetensors").read_bytes()
    assert weights == (run / "checkpoints" / "step-000020" / "model.safetensors").read_bytes()
    card = (made / "README.md").read_text(encoding="utf-8")
    assert "step-000020" in card
    assert "slow" not in card


@pytest.mark.parametrize("has_code", [True, False])
def test_a_checkpoint_of_an_earlier_version_gets_this_projects_code(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, has_code: bool
) -> None:
    checkpoint = make_old(run / "checkpoints" / "step-000010")
    before = {path: path.read_bytes() for path in checkpoint.rglob("*") if path.is_file()}
    if not has_code:
        for path in checkpoint.rglob("*.py"):
            path.unlink()
            del before[path]
    caplog.set_level(logging.INFO, logger="hub_export")
    made = bundle(run, tmp_path / "out")
    ours = project_code().version
    said = f"{checkpoint} was saved with code of version 0.1.0; the bundle gets this project's, {ours}"
    assert (said in caplog.messages) == has_code
    assert relative_files(made) == MODEL_FILES | {f"slow/{name}" for name in SLOW_FILES}
    for name in ("configuration_scratchgpt.py", "modeling_scratchgpt.py"):
        assert (made / name).read_bytes() == (ROOT / "modeling" / name).read_bytes()
    for name in ("tokenization_scratchgpt.py", "slow/tokenization_scratchgpt.py"):
        assert (made / name).read_bytes() == (ROOT / "tokenization" / "tokenization_scratchgpt.py").read_bytes()
    config, record = (json.loads((made / name).read_text()) for name in ("config.json", "proof.json"))
    assert config["scratchgpt_version"] == record["scratchgpt_version"] == ours
    assert record["transformers"] == installed_transformers()
    assert json.loads((made / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert {path: path.read_bytes() for path in checkpoint.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("place", ["a file", "a folder of the user", "the run", "a checkpoint"])
def test_never_replaces_what_is_no_bundle(run: Path, tmp_path: Path, place: str) -> None:
    out = {"the run": run, "a checkpoint": run / "checkpoints" / "step-000010"}.get(place, tmp_path / "out")
    if place == "a file":
        out.write_text("mine")
    if place == "a folder of the user":
        out.mkdir()
    before = relative_files(tmp_path)
    with pytest.raises(ValueError, match="something that is no bundle is there"):
        bundle(run, out, force=True)
    assert relative_files(tmp_path) == before


def _without_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


def _without_weights(run: Path) -> None:
    (run / "checkpoints/step-000010/model.safetensors").unlink()


def _cut_weights(run: Path) -> None:
    weights = run / "checkpoints/step-000010/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _without_tokenizer(run: Path) -> None:
    (run / "checkpoints/step-000010/tokenizer.json").unlink()


def _without_merges(run: Path) -> None:
    (run / "checkpoints/step-000010/slow/merges.txt").unlink()


def _later_code(run: Path) -> None:
    path = run / "checkpoints/step-000010/configuration_scratchgpt.py"
    code = re.sub(r'CODE_VERSION = ".*"', 'CODE_VERSION = "99.0"', path.read_text(encoding="utf-8"))
    path.write_text(code, encoding="utf-8")


def _damaged_code(run: Path) -> None:
    (run / "checkpoints/step-000010/configuration_scratchgpt.py").write_text("CODE_VERSION = (")


def _edit_config(run: Path, **changes: object) -> None:
    path = run / "checkpoints/step-000010/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _other_model(run: Path) -> None:
    _edit_config(run, model_type="gpt2", architectures=["GPT2LMHeadModel"])


def _without_auto_model(run: Path) -> None:
    _edit_config(run, auto_map={"AutoConfig": "configuration_scratchgpt.ScratchGPTConfig"})


def _other_shape(run: Path) -> None:
    _edit_config(run, intermediate_size=64)


def _broken_state(run: Path) -> None:
    (run / "run.json").write_text('{"status": "fini')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "expected a run folder, but there is no such folder"),
        (lambda run: (run / "recipe.json").unlink(), "recipe.json is missing. Give the folder that"),
        (_broken_state, r"run\.json: expected JSON, but it cannot be read"),
        (_without_checkpoints, "expected at least one checkpoint, but this run has none yet. Let it train"),
        (_without_weights, "has no weights: expected model.safetensors, but the file is missing. Export or copy"),
        (_cut_weights, r"model\.safetensors is damaged: expected \d+ bytes, got \d+"),
        (_without_tokenizer, "expected a tokenizer in the checkpoint, but tokenizer.json is missing"),
        (_without_merges, "expected a complete checkpoint, but slow/merges.txt is missing"),
        (
            _later_code,
            r"its code is of version 99\.0, later than this project's .* Update this project and run the same",
        ),
        (_damaged_code, r"configuration_scratchgpt\.py: expected Python, but it cannot be read"),
        (_other_model, "expected a ScratchGPTForCausalLM or a ScratchGPTForMaskedLM, got model_type 'gpt2'"),
        (_without_auto_model, "but AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM are missing"),
        (_other_shape, "expected a checkpoint that loads, but it does not"),
    ],
)
def test_a_damaged_run_is_an_error_and_leaves_nothing(run: Path, tmp_path: Path, damage, message: str) -> None:
    damage(run)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=message):
        bundle(run, tmp_path / "out" / "bundle")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_unknown_checkpoint_is_an_error_that_names_the_known(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"called step-000030, but this run has step-000010, step-000020\. Choose"):
        bundle(run, tmp_path / "out", checkpoint="step-000030")


def test_an_interruption_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(folder: Path, *, checkpoint: Path) -> None:
        assert (folder / "README.md").is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["hub_export.bundle"], "verify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bundle(run, tmp_path / "out" / "bundle")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_is_an_error_and_leaves_nothing(pristine_run: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.name == "nt" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tiny file system")
    try:
        with pytest.raises(OSError, match="the disk has no room for it"):
            bundle(pristine_run, disk / "bundle")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
