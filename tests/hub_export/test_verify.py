import ast
import os
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import hub_export.proof
from hub_export import verify


def test_a_bundle_is_proved_without_the_users_environment(
    pristine_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HF_TOKEN", "HF_HOME", "PYTHONPATH", "HF_ENDPOINT"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    before = {path: path.stat().st_mtime_ns for path in pristine_bundle.rglob("*")}
    proof = verify(pristine_bundle)
    assert proof.checks == (
        "import torch and transformers",
        "AutoConfig",
        "AutoModelForCausalLM",
        "AutoModel",
        "finite weights",
        "tied weights",
        "equal logits",
        "generation config",
        "AutoTokenizer without remote code",
        "AutoTokenizer with no word on remote code",
        "AutoTokenizer with remote code",
        "from-scratch tokenizer",
        "pipeline",
    )
    assert proof.parameters > 25_000
    assert str(proof).startswith("verified in ")
    assert {path: path.stat().st_mtime_ns for path in pristine_bundle.rglob("*")} == before
    assert not (tmp_path / "nowhere").exists()
    assert os.environ["HF_TOKEN"]


@pytest.mark.usefixtures("quick_proofs")
def test_one_changed_bit_of_the_weights_is_found(made: Path, pristine_run: Path) -> None:
    weights = load_file(made / "model.safetensors")
    weights["model.norm.weight"][0] *= 1 + 2**-20
    save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="the check 'equal logits' failed: they differ from the checkpoint's by up to"):
        verify(made, checkpoint=pristine_run / "checkpoints" / "step-000010")


@pytest.mark.usefixtures("quick_proofs")
def test_tokenizers_that_disagree_are_found(made: Path) -> None:
    merges = (made / "slow" / "merges.txt").read_text(encoding="utf-8").splitlines()
    (made / "slow" / "merges.txt").write_text("\n".join(merges[:-20]) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="the check 'from-scratch tokenizer' failed: expected the ids of"):
        verify(made)


def test_a_folder_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a model folder, but it has no config\.json. Give a folder that"):
        verify(tmp_path)


def test_the_proof_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(hub_export.proof.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [node for node in imports if isinstance(node, ast.ImportFrom) and node.level]
    names = {
        name.split(".")[0]
        for node in imports
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert names - set(sys.stdlib_module_names) == {"safetensors", "torch", "transformers"}
