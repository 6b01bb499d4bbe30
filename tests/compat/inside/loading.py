"""Checks: the Auto classes load a bundle, and it can be saved and loaded again."""

from pathlib import Path
from typing import Any

import torch
from harness import CAUSAL, EVERY, Bundle, check, expect, expect_close, expect_error, remote_module
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer


@check("load", *EVERY)
def config(bundle: Bundle) -> None:
    """The config has the fields of config.json, and survives saving."""
    found = AutoConfig.from_pretrained(bundle.folder, trust_remote_code=True)
    remote_module(found)
    for name, value in bundle.facts["config"].items():
        expect(getattr(found, name) == value, f"expected {name}={value!r}, got {getattr(found, name)!r}")
    again = bundle.scratch / "config" / bundle.kind
    found.save_pretrained(again)
    same = type(found).from_pretrained(again)
    for name, value in bundle.facts["config"].items():
        expect(getattr(same, name) == value, f"saved {name}={value!r}, got {getattr(same, name)!r} back")


@check("load", *EVERY)
def head(bundle: Bundle) -> None:
    """The model with its head has every weight of the file."""
    model, loading = bundle.head.from_pretrained(bundle.folder, trust_remote_code=True, output_loading_info=True)
    remote_module(model)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        expect(not loading.get(kind), f"{kind}: {sorted(map(str, loading.get(kind) or ()))}")
    tied, wanted = model.get_input_embeddings().weight is model.get_output_embeddings().weight, model.config
    expect(tied == wanted.tie_word_embeddings, f"tied weights: {tied}, in the config: {wanted.tie_word_embeddings}")


@check("load", *EVERY)
def base(bundle: Bundle) -> None:
    """AutoModel gives the model without its head."""
    model = bundle.load(auto=AutoModel)
    expected = bundle.model.base_model.state_dict()
    for name, tensor in model.state_dict().items():
        expect(torch.equal(tensor, expected[name]), f"{name} differs from the head's")
    both_ways = {"is_causal": False} if bundle.kind == "masked" else {}
    hidden = model(bundle.tensors["input_ids"], **both_ways).last_hidden_state
    expect_close(hidden, bundle.tensors["hidden"], "hidden states")


@check("load", *EVERY)
def bfloat16(bundle: Bundle) -> None:
    """Loaded in bfloat16 the weights are bfloat16, the angles are not, and the logits are near."""
    model = bundle.load(dtype=torch.bfloat16)
    wrong = [name for name, weight in model.named_parameters() if weight.dtype != torch.bfloat16]
    expect(not wrong, f"not in bfloat16: {wrong}")
    expect_close(model(bundle.tensors["input_ids"]).logits, bundle.tensors["logits"], "logits", tolerance=0.1)
    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq"):
            expect_close(buffer, dict(bundle.model.named_buffers())[name], name)


@check("load", *EVERY)
def fresh_weights(bundle: Bundle) -> None:
    """`from_config` starts with the statistics that the config names."""
    settings = AutoConfig.from_pretrained(bundle.folder, trust_remote_code=True)
    torch.manual_seed(0)
    model: Any = bundle.head.from_config(settings, trust_remote_code=True)
    for name, weight in model.named_parameters():
        mean, std = bundle.facts["fresh"][name]
        got = weight.detach().double()
        if std == 0:
            expect(torch.equal(got, torch.full_like(got, mean)), f"{name}: expected {mean} everywhere")
        else:
            ratio = got.std().item() / std
            expect(0.75 < ratio < 1.33, f"{name}: its standard deviation is {ratio:.3f} of the reference's")
    for name, buffer in model.named_buffers():
        expect_close(buffer, dict(bundle.model.named_buffers())[name], name)


@check("load", *EVERY)
def save_and_load(bundle: Bundle) -> None:
    """What is saved loads again, by the code saved with it, and gives the same logits."""
    again = bundle.scratch / "saved" / bundle.kind
    bundle.model.save_pretrained(again)
    bundle.tokenizer.save_pretrained(again)
    for name in ("configuration_scratchgpt.py", "modeling_scratchgpt.py"):
        expect((again / name).is_file(), f"{name} was not saved")
    model = bundle.load(again)
    remote_module(model)
    expect_close(model(bundle.tensors["input_ids"]).logits, bundle.tensors["logits"], "logits")
    same_ids(AutoTokenizer.from_pretrained(again, trust_remote_code=True), bundle)


@check("load", *CAUSAL)
def other_head(bundle: Bundle) -> None:
    """The head that the weights were not trained for loads too, with the same base."""
    model = bundle.load(auto=AutoModelForMaskedLM)
    expect_close(model(bundle.tensors["input_ids"]).logits, bundle.tensors["other_head"], "logits")


@check("load", "masked")
def other_head_of_masked(bundle: Bundle) -> None:
    """A masked model's weights load with the causal head."""
    model = bundle.load(auto=AutoModelForCausalLM)
    expect_close(model(bundle.tensors["input_ids"]).logits, bundle.tensors["other_head"], "logits")


def same_ids(tokenizer: Any, bundle: Bundle, folder: Path | None = None) -> None:
    """The ids of the project's own tokenizer, the text back from them, padding, and special tokens."""
    for text, ids in (
        (bundle.facts["probe"], bundle.facts["probe_ids"]),
        *zip(bundle.prompts, bundle.facts["prompt_ids"], strict=True),
    ):
        got = tokenizer(text)["input_ids"]
        expect(got == ids, f"expected the ids {ids}, got {got}")
        back = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        expect(back == text, f"expected {text!r} back, got {back!r}")
    short = tokenizer.decode(bundle.facts["probe_ids"], skip_special_tokens=True)
    expect("<|endoftext|>" not in short, f"skip_special_tokens left {short!r}")
    batch = tokenizer(bundle.prompts, padding=True, padding_side="left", return_tensors="pt")
    lengths = [len(ids) for ids in bundle.facts["prompt_ids"]]
    expect(batch["attention_mask"].sum(1).tolist() == lengths, "the mask does not count the tokens")
    expect(batch["attention_mask"][:, -1].all(), "padding is not on the left")
    for name, number in bundle.facts["special_ids"].items():
        expect(getattr(tokenizer, name) == number, f"expected {name} {number}, got {getattr(tokenizer, name)}")


@check("tokenizers", *EVERY)
def tokenizer_with_trust(bundle: Bundle) -> None:
    """The root's tokenizer where remote code is allowed."""
    same_ids(AutoTokenizer.from_pretrained(bundle.folder, trust_remote_code=True), bundle)


@check("tokenizers", *EVERY)
def tokenizer_without_trust(bundle: Bundle) -> None:
    """The root's tokenizer where remote code is refused; it is a fast one."""
    same_ids(bundle.tokenizer, bundle)
    expect(bundle.tokenizer.is_fast, "expected a tokenizer of the tokenizers library")


@check("tokenizers", *EVERY)
def tokenizer_from_scratch(bundle: Bundle) -> None:
    """The tokenizer in slow/, as a subfolder, as a folder of its own, and saved and loaded again."""
    slow = AutoTokenizer.from_pretrained(bundle.folder, subfolder="slow", trust_remote_code=True)
    remote_module(slow)
    same_ids(slow, bundle)
    same_ids(AutoTokenizer.from_pretrained(bundle.folder / "slow", trust_remote_code=True), bundle)
    again = bundle.scratch / "slow" / bundle.kind
    slow.save_pretrained(again)
    same_ids(AutoTokenizer.from_pretrained(again, trust_remote_code=True), bundle)


@check("messages", "classic", "modern")
def unknown_setting(bundle: Bundle) -> None:
    """A config that makes no sense is an error that says so."""
    kind: Any = type(AutoConfig.from_pretrained(bundle.folder, trust_remote_code=True))
    expect_error(lambda: kind(norm="batchnorm"), (ValueError,), "norm", "batchnorm")
    expect_error(lambda: kind(hiden_size=3), (ValueError, TypeError), "hiden_size")
