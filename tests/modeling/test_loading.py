"""Loading a model folder: what its files say of other versions than those that are here."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from modeling import loading
from modeling.configuration_scratchgpt import CODE_VERSION
from modeling.loading import (
    context_length,
    fetch,
    find_folder,
    has_chat_template,
    load_causal_lm,
    load_model,
    split_hub_id,
)
from modeling.stored.weights import read_weights
from storage.run_folder import RunFolder

HERE = transformers.__version__


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    loading._log_other_transformers.cache_clear()
    return caplog


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | values))


def test_a_bundle_that_another_transformers_checked_says_so_once(folder: Path, said: pytest.LogCaptureFixture) -> None:
    change(folder / "proof.json", transformers="5.1.0", scratchgpt_version=CODE_VERSION)
    load_model(folder)
    load_model(folder)
    assert said.messages == [
        f"{folder} was checked with transformers 5.1.0, and transformers {HERE} is installed: to check it with that, "
        f"run `python -m hub_export verify {folder}`"
    ]


@pytest.mark.parametrize("record", [None, "{}", '{"made_by": "scratchgpt"}', f'{{"transformers": "{HERE}"}}', "[", "3"])
def test_no_record_or_the_same_transformers_is_nothing_to_say(
    folder: Path, said: pytest.LogCaptureFixture, record: str | None
) -> None:
    if record is not None:
        (folder / "proof.json").write_text(record)
    load_model(folder)
    assert not said.messages


def test_a_config_of_a_newer_scratchgpt_says_which_is_needed(folder: Path) -> None:
    change(folder / "config.json", scratchgpt_version="7.2.0", mixture_of_depths=3)
    message = (
        rf"^cannot load the model in {folder}: ScratchGPT 7\.2\.0 wrote it, and this is ScratchGPT {CODE_VERSION} "
        r"\(ScratchGPTConfig has no field 'mixture_of_depths'\); get ScratchGPT 7\.2\.0 or a newer one, and run the "
        r"same command there$"
    )
    with pytest.raises(ValueError, match=message):
        load_model(folder)


def test_a_config_that_cannot_be_loaded_says_what_was_expected_and_what_to_do(folder: Path) -> None:
    change(folder / "config.json", mixture_of_depths=3)
    message = (
        rf"^cannot load the model in {folder}: expected a config\.json and weights that transformers {HERE} takes, got "
        r"an error \(ScratchGPTConfig has no field 'mixture_of_depths'.*\); download, copy or bundle the model again$"
    )
    with pytest.raises(ValueError, match=message):
        load_model(folder)


@pytest.mark.parametrize("wrong", ["missing", "more", "larger"])
def test_weights_of_a_newer_scratchgpt_say_which_is_needed(folder: Path, wrong: str) -> None:
    weights = load_file(folder / "model.safetensors")
    if wrong == "missing":
        del weights["model.layers.0.mlp.up_proj.weight"]
    elif wrong == "more":
        weights["model.layers.0.mlp.router.weight"] = torch.zeros(2, 8)
    else:
        weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(99, 8)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    change(folder / "config.json", scratchgpt_version="7.2.0")
    message = rf"ScratchGPT 7\.2\.0 wrote it, and this is ScratchGPT {CODE_VERSION} \(.*model\.layers\.0\.mlp\.\w+"
    with pytest.raises(ValueError, match=message):
        load_model(folder)


def test_a_newer_scratchgpt_whose_model_is_as_ours_loads(folder: Path, said: pytest.LogCaptureFixture) -> None:
    change(folder / "config.json", scratchgpt_version="7.2.0")
    load_model(folder)
    assert not said.messages


@pytest.mark.parametrize("version", [None, CODE_VERSION, "0.1.0"])
def test_an_unknown_field_of_no_newer_version_is_told_as_it_is(folder: Path, version: str | None) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.pop("scratchgpt_version", None)
    config |= {"hiden_size": 8} | ({"scratchgpt_version": version} if version else {})
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"ScratchGPTConfig has no field 'hiden_size'; did you mean hidden_size"):
        load_model(folder)


def test_a_folder_of_version_0_1_0_loads_without_a_word(folder: Path, said: pytest.LogCaptureFixture) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.pop("scratchgpt_version", None)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "kernels_scratchgpt.py").write_text("raise ImportError('code of another version is not run')\n")
    load_model(folder)
    assert not said.messages


def test_weights_are_counted_from_their_headers(folder: Path, tmp_path: Path) -> None:
    weights = read_weights(folder)
    assert weights.parameters == load_model(folder).num_parameters()
    assert weights.size_bytes == (folder / "model.safetensors").stat().st_size
    split = tmp_path / "split"
    load_model(folder).save_pretrained(split, max_shard_size="1KB")
    assert len(list(split.glob("*.safetensors"))) > 1
    assert read_weights(split).parameters == weights.parameters
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, folder / "model.safetensors")
    weights = read_weights(folder)
    assert (weights.parameters, weights.dtypes) == (10, ("BF16", "F32"))


@pytest.mark.parametrize("content", [b"", b"no safetensors file at all", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"])
def test_a_file_that_holds_no_weights_is_an_error(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: it is no safetensors file"):
        read_weights(folder)


def test_weights_that_are_cut_off_missing_or_empty_are_an_error(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for size in (len(content) - 10, len(content) - 9_000):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=rf"safetensors is damaged: expected {len(content)} bytes, got {size}\. "):
            read_weights(folder)
    save_file({}, path)
    with pytest.raises(ValueError, match=r"has no weights: expected tensors in model\.safetensors, got none"):
        read_weights(folder)
    path.unlink()
    with pytest.raises(ValueError, match=r"has no weights: expected model\.safetensors, but the file is missing"):
        read_weights(folder)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 24}, 24),
        ({"n_positions": 24}, 24),
        ({"max_seq_len": 24}, 24),
        ({"max_position_embeddings": None, "n_positions": 24}, 24),
        ({"text_config": {"max_position_embeddings": 24}}, 24),
        ({"vocab_size": 24}, None),
    ],
)
def test_the_context_length_by_any_of_its_names(config: dict[str, Any], expected: int | None) -> None:
    assert context_length(config) == expected


def test_the_context_length_is_that_of_the_config_and_of_the_model(folder: Path) -> None:
    model = load_model(folder)
    content = json.loads((folder / "config.json").read_text())
    assert context_length(content) == context_length(model.config) == context_length(model) == 256


def test_what_is_missing_or_left_over_is_said_in_a_line_and_not_in_a_table_of_transformers(
    folder: Path, said: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("transformers").addHandler(said.handler)
    verbosity = transformers.logging.get_verbosity()
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"model.extra": torch.ones(1), "model.more": torch.ones(1)}, folder / "model.safetensors")
    try:
        load_model(folder)
        assert [record.getMessage() for record in said.records] == [
            f"{folder}: its weights hold what the model has no place for, and it is left out: model.extra and 1 more"
        ]
        said.clear()
        save_file({name: weights[name] for name in list(weights)[1:]}, folder / "model.safetensors")
        with pytest.raises(ValueError, match="is incomplete: its weights lack"):
            load_model(folder)
        assert said.records == []
    finally:
        logging.getLogger("transformers").removeHandler(said.handler)
    assert transformers.logging.get_verbosity() == verbosity


def test_a_source_is_a_folder_a_run_or_a_hub_id(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run")
    run.checkpoint_folder(5).parent.mkdir(parents=True)
    folder.rename(run.checkpoint_folder(5))
    run.write_state({"best_checkpoint": "checkpoints/step-000005"})
    for source in (run.path, run.checkpoint_folder(5)):
        assert find_folder(source) == run.checkpoint_folder(5)
    monkeypatch.chdir(tmp_path)
    for source, repo, revision in (
        ("gpt2", "gpt2", None),
        ("alice/model", "alice/model", None),
        ("alice/model@v1.0", "alice/model", "v1.0"),
    ):
        assert find_folder(source) is None
        assert split_hub_id(source) == (repo, revision)
    for source in ("run", "run/model", "a/b/c", "../run", "alice/model@"):
        assert split_hub_id(source) is None


def test_what_is_no_source_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"/nowhere/x: expected a bundle, a checkpoint, a run folder or a Hub id$"):
        find_folder("/nowhere/x")
    with pytest.raises(
        ValueError, match=r"config\.json is a file: expected a folder \(a bundle, a checkpoint or a run\)"
    ):
        find_folder(folder / "config.json")
    with pytest.raises(ValueError, match=r"or a Hub id, got x{80} … \(3,000 characters\): File name too long"):
        find_folder("x" * 3000)
    with pytest.raises(ValueError, match=r"or a Hub id, got ~nobody-here/x: Could not determine home directory"):
        find_folder("~nobody-here/x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"empty holds no model: no config\.json \(and no run\.json\) in it; expected a"
    ):
        find_folder(tmp_path / "empty")


def test_a_repository_that_cannot_be_fetched_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    message = (
        r"^{} is no folder here, and fetching a model of that name from the Hugging Face Hub failed \(.+\); check the "
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for repo in ("alice/no-such-model", "alice/no-such-model@v1"):
        with pytest.raises(ValueError, match=message.format(repo)):
            fetch(repo)


def test_a_model_that_cannot_write_is_named(folder: Path) -> None:
    change(folder / "config.json", architectures=["ScratchGPTForMaskedLM"])
    with pytest.raises(
        ValueError, match="holds a ScratchGPTForMaskedLM, which cannot write: expected a causal language m"
    ):
        load_causal_lm(folder)
    change(folder / "config.json", architectures=["ScratchGPTForCausalLM"], max_position_embeddings=2**24 + 1)
    with pytest.raises(ValueError, match="expected a context of at most 16,777,216 tokens, got 16,777,217"):
        load_causal_lm(folder)


def test_where_a_chat_template_may_be(folder: Path) -> None:
    assert not has_chat_template(folder)
    change(folder / "tokenizer_config.json", chat_template="")
    assert not has_chat_template(folder)
    change(folder / "tokenizer_config.json", chat_template="{{ messages }}")
    assert has_chat_template(folder)
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: expected a JSON object, got a list"):
        has_chat_template(folder)
    (folder / "chat_template.jinja").touch()
    assert has_chat_template(folder)
