import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, GPT2LMHeadModel

import hub_export.exports.stock
from hub_export import card
from hub_export.exports.native import native, render_card
from storage.run_folder import RunFolder
from tests.hub_export.families import CLASSIC, MODERN, save_model


@pytest.fixture(scope="module")
def made_folder(pristine_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `native` makes of the run of the tests, in a folder that no test changes."""
    out = tmp_path_factory.mktemp("native") / "tiny"
    words = native(pristine_run, out)
    assert words.startswith(
        f"{out}: Qwen3ForCausalLM, which transformers loads without remote code. Checked in an isolated"
    )
    return out


def test_the_folder_holds_a_stock_model_its_tokenizer_and_a_card(made_folder: Path, pristine_run: Path) -> None:
    names = {path.relative_to(made_folder).as_posix() for path in made_folder.rglob("*")}
    assert names == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    config = json.loads((made_folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert "auto_map" not in config
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10000
    tokenizer_config = json.loads((made_folder / "tokenizer_config.json").read_text())
    assert tokenizer_config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer_config["model_max_length"] == config["max_position_embeddings"]
    text = (made_folder / "README.md").read_text()
    for words in ("**Qwen3ForCausalLM**", "1.2500 | 3.4903 | 0.5500", "step-000010", "pipeline_tag: text-generation"):
        assert words in text
    assert str(pristine_run) not in text
    assert "parameters and its tokenizer, both trained from scratch on 30,000 short English stories" in text
    assert "It is a base model" in text
    assert "Not trained to its end" not in text


def test_the_card_of_a_chat_model_that_goes_on_from_another(made_folder: Path, run: Path, made: Path) -> None:
    """Exported from its run, and from its bundle, whose card states the same."""
    path = made_folder.parent / "chats" / "tokenizer_config.json"
    shutil.copytree(made_folder, path.parent)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": "{{ messages }}"}))
    base = {"name": "alice/moons", "repository": "alice/moons", "trained_on": "three books"}
    RunFolder(run).write_state(RunFolder(run).state | {"base_model": base, "cut_short": "the time limit ended the run"})
    folder = RunFolder(run)
    checkpoint = folder.checkpoint("best")
    bundle_card = card.render_card(made, folder, checkpoint, repo="alice/answers")
    (made / "README.md").write_text(bundle_card)
    for source, run_folder, origin in (
        (checkpoint, folder, ", which was trained from scratch on three books"),
        (made, None, ""),
    ):
        text = render_card(path.parent, source, run_folder, "tiny", "mit", "en")
        assert (
            f"parameters. It goes on from the model `alice/moons`{origin}: its tokenizer is kept, and its weights were "
            "trained further on 30,000 short English stories made by ScratchGPT's own generator. It comes in the form"
        ) in text
        assert "both trained from scratch" not in text
        assert "It was tuned on chats, with the loss on the answers" in text
        assert 'chat = [{"role": "user", "content": "The robot"}]' in text
        assert "It is a base model" not in text
        assert "**Not trained to its end**: the time limit ended the run.\n" in text
        data: Any = ModelCard(text).data
        assert data.base_model == "alice/moons"
        for program in re.findall("```python\n(.*?)```", text, re.DOTALL):
            ast.parse(program)


@pytest.mark.slow
def test_a_classic_model_of_a_bundle_becomes_gpt2(tmp_path: Path) -> None:
    source = save_model(tmp_path / "classic", **CLASSIC)
    assert "GPT2LMHeadModel" in native(source, tmp_path / "out")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert isinstance(stock, GPT2LMHeadModel)
    assert stock.config.activation_function == "relu"
    assert not stock.config.tie_word_embeddings


def test_a_bundle_keeps_its_license_and_language(tmp_path: Path) -> None:
    source = save_model(tmp_path / "classic", **CLASSIC)
    (source / "README.md").write_text("---\nlicense: cc-by-nc-4.0\nlanguage: [de, fr]\n---\n# Mine\n")
    native(source, tmp_path / "out")
    stated = ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()
    assert (stated["license"], stated["language"]) == ("cc-by-nc-4.0", ["de", "fr"])
    native(source, tmp_path / "out", force=True, license="mit", language="de")
    stated = ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()
    assert (stated["license"], stated["language"]) == ("mit", "de")


def test_another_folder_is_never_replaced_and_ours_only_by_force(made_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(ValueError, match=r"something that is no folder of `native` is there \(so not even --force"):
        native("run", tmp_path / "mine", force=True)
    with pytest.raises(ValueError, match=r"a folder of `native` is there\. Add --force to replace it"):
        native("run", made_folder)


def test_a_folder_that_computes_otherwise_does_not_get_its_name(
    pristine_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = hub_export.exports.stock.stock_model

    def crooked(model):
        stock = honest(model)
        stock.config.rms_norm_eps = 0.1
        return stock

    monkeypatch.setattr(hub_export.exports.stock, "stock_model", crooked)
    with pytest.raises(ValueError, match="the check 'equal logits' failed: they differ from the checkpoint's by up to"):
        native(pristine_run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_other_models_are_refused(made_folder: Path, tmp_path: Path) -> None:
    masked = save_model(tmp_path / "masked", masked=True, **MODERN)
    with pytest.raises(ValueError, match="holds a ScratchGPTForMaskedLM, which cannot write: expected a causal"):
        native(masked, tmp_path / "out")
    with pytest.raises(ValueError, match="expected a model of ours, model_type 'scratchgpt', got 'qwen3'"):
        native(made_folder, tmp_path / "out")
    with pytest.raises(ValueError, match="expected a run folder, but there is no such folder"):
        native(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ValueError, match="5 x 6 = 30 and must be hidden_size, 32"):
        native(save_model(tmp_path / "heads", **{**CLASSIC, "num_attention_heads": 5}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
