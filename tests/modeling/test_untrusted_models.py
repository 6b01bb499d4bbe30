"""Model folders of other people: sizes that no machine has, pickles, code, and files that lead elsewhere."""

import json
import os
import pickle
import resource
from pathlib import Path
from typing import Any

import psutil
import pytest
import transformers
from safetensors.torch import load_file, save_file

from modeling.loading import load_model
from modeling.stored.sizes import check_sizes
from modeling.stored.weights import read_weights


class Planted:
    """What, unpickled, makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 10**9}, "expected sizes that fit its weights, .*width 1,000,000,000"),
        ({"num_hidden_layers": 10**6}, "expected sizes that fit its weights, .* 1,000,000 layers"),
        ({"vocab_size": 10**12}, "expected sizes that fit its weights"),
        ({"intermediate_size": 10**10}, "expected sizes that fit its weights"),
        ({"num_attention_heads": 10**9, "head_dim": 64}, "expected sizes that fit its weights"),
        ({"num_key_value_heads": 10**9, "head_dim": 64}, "expected sizes that fit its weights"),
        ({"position_embedding": "learned", "max_position_embeddings": 2**24}, "expected sizes that fit its weights"),
        ({"max_position_embeddings": 10**10}, "expected a context of at most 16,777,216 tokens, got 10,000,000,000"),
        ({"hidden_size": -1}, "hidden_size: expected a whole number above 0, got '-1'"),
        ({"hidden_size": 0}, "hidden_size: expected a whole number above 0, got '0'"),
        ({"num_hidden_layers": float("nan")}, "num_hidden_layers: expected a whole number above 0, got 'nan'"),
        ({"num_hidden_layers": float("inf")}, "num_hidden_layers: expected a whole number above 0, got 'inf'"),
        ({"vocab_size": "many" * 99}, "vocab_size: expected a whole number above 0, got 'manymany"),
        ({"vocab_size": True}, "vocab_size: expected a whole number above 0, got 'True'"),
        ({"intermediate_size": [8]}, r"intermediate_size: expected a whole number above 0, got '\[8\]'"),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(folder: Path, values: dict[str, Any], message: str) -> None:
    change(folder / "config.json", **values)
    before = psutil.Process().memory_info().rss, resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with pytest.raises(ValueError, match=message):
        load_model(folder)
    assert psutil.Process().memory_info().rss - before[0] < 50e6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before[1] < 5


def test_the_table_of_positions_that_a_config_does_not_name_counts(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.pop("position_embedding", None)  # learned, then
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2**24}))
    with pytest.raises(ValueError, match="expected sizes that fit its weights"):
        load_model(folder)


@pytest.mark.parametrize("name", ["n_embd", "d_model"])
def test_other_families_are_held_to_their_files_too(folder: Path, name: str) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", name: 10**8, "n_layer": 2, "vocab_size": 9}))
    with pytest.raises(ValueError, match="expected sizes that fit its weights"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "x", "text_config": {name: 10**8}}))
    with pytest.raises(ValueError, match="expected sizes that fit its weights"):
        load_model(folder)


@pytest.mark.parametrize("family", ["gpt2", "llama", "albert"])
def test_models_of_other_families_pass(tmp_path: Path, family: str) -> None:
    small: dict[str, Any] = {"vocab_size": 1000, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 12}
    if family == "gpt2":
        config: Any = transformers.GPT2Config(vocab_size=1000, n_embd=64, n_layer=2, n_head=4)
        model: Any = transformers.GPT2LMHeadModel(config)
    elif family == "llama":
        config = transformers.LlamaConfig(
            **small, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=131_072
        )
        model = transformers.LlamaForCausalLM(config)
    else:  # its layers share their weights, and its vocabulary has a narrow table
        model = transformers.AlbertForMaskedLM(
            transformers.AlbertConfig(**small, num_attention_heads=4, embedding_size=8)
        )
    model.save_pretrained(tmp_path)
    check_sizes(tmp_path)


def make_small(folder: Path, family: str) -> Path:
    """A model of another family with few numbers."""
    small: dict[str, Any] = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    short: dict[str, Any] = {"max_position_embeddings": 64}
    if family == "opt":
        model: Any = transformers.OPTForCausalLM(
            transformers.OPTConfig(**small, **short, word_embed_proj_dim=32, ffn_dim=64)
        )
    elif family == "bert":
        model = transformers.BertForMaskedLM(transformers.BertConfig(**small, **short, intermediate_size=64))
    elif family == "gpt_neo":
        config = transformers.GPTNeoConfig(
            vocab_size=10_000,
            hidden_size=32,
            num_layers=1,
            num_heads=2,
            attention_types=[[["global"], 1]],
            bos_token_id=0,
            eos_token_id=0,
        )
        model = transformers.GPTNeoForCausalLM(config)
    else:
        experts: dict[str, Any] = {"num_local_experts": 2, "num_key_value_heads": 1, "intermediate_size": 64}
        model = transformers.MixtralForCausalLM(transformers.MixtralConfig(**small, **short, **experts))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("family", "values", "dropped"),
    [
        ("opt", {"max_position_embeddings": 2**24}, "embed_positions"),
        ("bert", {"max_position_embeddings": 2**24}, "position_embeddings"),
        ("bert", {"type_vocab_size": 16_000_000}, "token_type"),
        ("mixtral", {"num_local_experts": 10**9}, "experts"),
        ("mixtral", {"num_local_experts": 2_000}, "experts"),
    ],
)
def test_a_table_that_other_families_do_not_store_takes_no_memory(
    tmp_path: Path, family: str, values: dict[str, int], dropped: str
) -> None:
    make_small(tmp_path, family)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if dropped not in name}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    change(tmp_path / "config.json", **values)
    with pytest.raises(ValueError, match="expected sizes that fit its weights, which hold "):
        load_model(tmp_path)


def test_a_table_that_a_model_computes_takes_no_memory(tmp_path: Path) -> None:
    """GPT-Neo has a mask of the square of its context."""
    change(make_small(tmp_path, "gpt_neo") / "config.json", max_position_embeddings=36_000)
    with pytest.raises(ValueError, match="expected tables of at most 1,073,741,824 bytes that it computes, got "):
        load_model(tmp_path)


@pytest.mark.parametrize("family", ["opt", "bert", "gpt_neo", "mixtral"])
def test_small_models_of_other_families_load(tmp_path: Path, family: str) -> None:
    assert load_model(make_small(tmp_path, family)).config.model_type == family


def test_pickles_are_not_opened(folder: Path, tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt", "tokenizer.pkl", "x.npy"):
        (folder / name).write_bytes(pickle.dumps(Planted(tmp_path / "opened")))
    load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_model(folder)
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "pytorch_model.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_model(folder)
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: it is no safetensors file"):
        load_model(folder)
    assert not (tmp_path / "opened").exists()


def test_code_of_a_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    code = f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n"
    for path in (*folder.glob("*.py"), folder / "evil.py", folder / "__init__.py"):
        path.write_text(code)
    load_model(folder)  # with the classes of this project
    change(
        folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    )
    with pytest.raises(ValueError, match="contains custom code which must be executed"):
        load_model(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/etc/passwd", 5, None, ["a"]])
def test_an_index_names_files_beside_it_only(folder: Path, tmp_path: Path, name: Any) -> None:
    (tmp_path / "other").mkdir()
    save_file(load_file(folder / "model.safetensors"), tmp_path / "other" / "model.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    with pytest.raises(ValueError, match="expected names of files beside it, got"):
        read_weights(folder)
    index.write_text(json.dumps({"weight_map": name}))
    with pytest.raises(ValueError, match="expected names of files beside it, got"):
        read_weights(folder)
    with pytest.raises(ValueError, match="expected names of files beside it, got"):
        load_model(folder)
