import json
import logging
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from hub_export import bundle
from hub_export.bundle import check_private
from hub_export.code_version import ROOT, installed_transformers, project_code
from storage.checksums import write_checksums
from storage.files import remove_folder
from storage.run_folder import RunFolder
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


def test_rounds_the_weights_to_bfloat16_where_asked(pristine_run: Path, tmp_path: Path) -> None:
    folder = bundle(pristine_run, tmp_path / "small", dtype="bfloat16")
    rounded, trained = (load_file(path / "model.safetensors") for path in (folder, pristine_run / BEST))
    assert rounded.keys() == trained.keys()
    assert all(torch.equal(tensor, trained[name].to(torch.bfloat16)) for name, tensor in rounded.items())
    assert "| number format | BF16 |" in (folder / "README.md").read_text()
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert model.dtype == torch.bfloat16


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


def test_a_place_is_found_as_json_writes_it_and_behind_a_link(made: Path, tmp_path: Path) -> None:
    home = tmp_path / "home" / "jürgen"
    home.mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    for written in (json.dumps({"from": f"{home}/run"}), f"{home}/run", f"{tmp_path / 'link'}/run"):
        (made / "config.json").write_text(written)
        with pytest.raises(ValueError, match=r"config\.json: .* holds the path"):
            check_private(made, machine_paths=(tmp_path / "link",))


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


def remove_while_copied(run: Path, monkeypatch: pytest.MonkeyPatch, steps: list[int]) -> None:
    """Have a run that trains remove its checkpoint while it is copied, after saving a newer one; once for each step."""

    def copy_late(origin: Path, target: Path) -> None:
        if steps and Path(origin).name == "tokenizer.json" and Path(origin).is_relative_to(run):
            newer = run / "checkpoints" / f"step-{steps.pop(0):06d}"
            shutil.copytree(Path(origin).parent, newer)
            folder = RunFolder(run)
            folder.write_state(folder.state | {"latest_checkpoint": f"checkpoints/{newer.name}"})
            remove_folder(Path(origin).parent)
        shutil.copyfile(origin, target)

    monkeypatch.setattr(sys.modules["hub_export.bundle"], "shutil", SimpleNamespace(copyfile=copy_late))


def test_a_checkpoint_that_is_removed_while_it_is_copied_gives_way_to_the_newest(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remove_while_copied(run, monkeypatch, [30, 40])
    caplog.set_level(logging.INFO, "hub_export")
    made = bundle(run, tmp_path / "made", checkpoint="latest")
    newest = run / "checkpoints" / "step-000040"
    assert (made / "model.safetensors").read_bytes() == (newest / "model.safetensors").read_bytes()
    assert contents(made).keys() == BUNDLE_FILES
    for step in (20, 30):
        assert f"step-0000{step} was removed while it was copied; taking the latest one of now" in caplog.text


def test_a_checkpoint_that_is_removed_every_time_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_while_copied(run, monkeypatch, [30])
    with pytest.raises(ValueError, match=r"step-000020: expected a checkpoint that stays while .*keep-checkpoints\)\."):
        bundle(run, tmp_path / "made", checkpoint="step-000020")
    remove_while_copied(run, monkeypatch, [*range(40, 90, 10)])
    with pytest.raises(ValueError, match=r"step-000070: expected a checkpoint that stays while it is copied"):
        bundle(run, tmp_path / "made", checkpoint="latest")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}  # nothing incomplete, nothing hidden


def test_a_copy_that_is_not_what_the_checkpoint_was_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checksums(run / BEST)

    def copy_with_a_flipped_bit(origin: Path, target: Path) -> None:
        content = bytearray(Path(origin).read_bytes())
        content[-1] ^= Path(target).name == "model.safetensors"
        Path(target).write_bytes(content)

    monkeypatch.setattr(sys.modules["hub_export.bundle"], "shutil", SimpleNamespace(copyfile=copy_with_a_flipped_bit))
    with pytest.raises(ValueError, match=r"model\.safetensors .*, in its copy\. Make the bundle again\.$"):
        bundle(run, tmp_path / "made")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
