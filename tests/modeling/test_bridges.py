"""What keeps a published model right while transformers changes: caches under any name, unknown arguments, alarms."""

import functools
import importlib.util
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache, StaticCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import modeling.configuration_scratchgpt as configuration
from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM
from modeling.modeling_scratchgpt import CACHE_FIELD, AttentionMask
from tests.modeling.families import GROUPED, build, draw_ids
from tokenization import ScratchGPTTokenizer
from tokenization.saving import build_fast

FAMILIES = {
    "classic": {"attention_bias": True, "hidden_act": "gelu_new"},
    "modern": GROUPED,
    "sinusoidal": {"position_embedding": "sinusoidal", "norm_position": "post"},
}
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def cache_of(model: Any, kind: str) -> Any:
    return DynamicCache(config=model.config) if kind == "dynamic" else StaticCache(model.config, max_cache_len=20)


@every_family
@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["past_key_values", "cache", "kv_state"])
@torch.no_grad()
def test_a_cache_is_found_under_any_name(family: dict, kind: str, name: str) -> None:
    model, ids_BL = build(**family), draw_ids(2, 15)
    expected_BLV = model(ids_BL, use_cache=False).logits
    cache, parts = cache_of(model, kind), []
    for part_BL in ids_BL.split([7, 1, 1, 4, 2], dim=1):
        output = model(part_BL, **{name: cache})
        assert output[CACHE_FIELD] is cache
        parts.append(output.logits)
    torch.testing.assert_close(torch.cat(parts, 1), expected_BLV, atol=1e-5, rtol=1e-5)


@every_family
def test_generate_is_right_when_transformers_renames_the_cache(family: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids_BL = build(**family), draw_ids(2, 5)
    options: dict[str, Any] = {"max_new_tokens": 12, "return_dict_in_generate": True, "output_logits": True}
    options |= {"do_sample": False, "attention_mask": torch.ones_like(ids_BL)}
    expected = model.generate(ids_BL, use_cache=False, **options)
    prepare = model.prepare_inputs_for_generation

    @functools.wraps(prepare)
    def renamed(*arguments: Any, **named: Any) -> dict[str | None, Any]:
        inputs = prepare(*arguments, **named)
        return {{"cache": "kv_state", "past_key_values": "kv_state"}.get(key, key): inputs[key] for key in inputs}

    monkeypatch.setattr(model, "prepare_inputs_for_generation", renamed)
    got = model.generate(ids_BL, **options)
    assert torch.equal(got.sequences, expected.sequences)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(expected.logits), atol=1e-5, rtol=1e-5)


@every_family
@pytest.mark.parametrize("padded", [False, True])
def test_generate_without_its_cache_is_an_error_and_no_nonsense(
    family: dict, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids_BL = build(**family), draw_ids(2, 5)
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[0, :2] = 0 if padded else 1
    prepare = model.prepare_inputs_for_generation

    @functools.wraps(prepare)
    def without(*arguments: Any, **named: Any) -> dict[str, Any]:
        inputs = prepare(*arguments, **named)
        return {key: inputs[key] for key in inputs if key not in ("cache", "past_key_values")}

    monkeypatch.setattr(model, "prepare_inputs_for_generation", without)
    with pytest.raises(ValueError, match="expected the cache of the tokens before these, got none: the text would be"):
        model.generate(ids_BL, attention_mask=mask_BL, max_new_tokens=3, do_sample=False)


@pytest.mark.parametrize("model_class", [ScratchGPTForCausalLM, ScratchGPTForMaskedLM])
@pytest.mark.parametrize("value", [torch.ones(2), ((torch.ones(1),),), 3, True, "x"], ids=str)
def test_an_unknown_argument_is_an_error_with_its_name(model_class: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="ScratchGPT's forward does not know the argument 'past', and without it"):
        build(model_class)(draw_ids(1, 3), past=value)


def test_an_unknown_argument_that_holds_nothing_is_none() -> None:
    model, ids_BL = build(), draw_ids(1, 3)
    assert torch.equal(model(ids_BL, past=None, flag=False).logits, model(ids_BL).logits)


@pytest.mark.parametrize("options", [{}, {"use_cache": False}], ids=str)
def test_generate_may_hand_over_its_tokenizer(options: dict[str, Any]) -> None:
    """It does so with `stop_strings`, to every model whose forward takes unknown arguments."""
    tokenizer = build_fast(ScratchGPTTokenizer.from_merges([]))
    torch.manual_seed(0)
    model: Any = ScratchGPTForCausalLM(ScratchGPTConfig(vocab_size=257, hidden_size=16, num_hidden_layers=1)).eval()
    ids_BL = torch.tensor([[65, 66]])
    given: dict[str, Any] = {"attention_mask": torch.ones_like(ids_BL), "max_new_tokens": 6, "do_sample": False}
    written = model.generate(ids_BL, **given, **options)
    stopped = model.generate(ids_BL, tokenizer=tokenizer, stop_strings=["never in it"], **given, **options)
    assert torch.equal(written, stopped)


def test_two_caches_are_an_error() -> None:
    model = build()
    with pytest.raises(TypeError, match="expected one cache, got a second one as 'cache'"):
        model(draw_ids(1, 3), past_key_values=cache_of(model, "dynamic"), cache=cache_of(model, "dynamic"))


def test_a_mask_that_forgets_the_cached_tokens_is_an_error() -> None:
    model, ids_BL = build(), draw_ids(2, 8)
    cache = model(ids_BL[:, :5])[CACHE_FIELD]
    mask_BL = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(
        ValueError, match="an attention_mask for all 8 tokens, those in the cache included, got one for 3"
    ):
        model(ids_BL[:, 5:], attention_mask=mask_BL, past_key_values=cache)


@every_family
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_texts_that_share_a_row_do_not_see_each_other(family: dict, attention: str) -> None:
    """Positions that begin again say where the next text begins, as transformers' DataCollatorWithFlattening has it."""
    model, ids_BL = build(**family), draw_ids(1, 12)
    model.set_attn_implementation(attention)
    positions_BL = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3]])
    alone = [model(part_BL).logits for part_BL in ids_BL.split([5, 3, 4], dim=1)]
    together = model(ids_BL, position_ids=positions_BL).logits
    torch.testing.assert_close(together, torch.cat(alone, 1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_positions_that_jump_change_no_mask_where_one_is_given() -> None:
    model, ids_BL = build(), draw_ids(1, 9)
    positions_BL = torch.tensor([[0, 1, 2, 3, 6, 7, 8, 9, 10]])
    model.set_attn_implementation("eager")
    given = {"attention_mask": torch.ones(1, 9, dtype=torch.long), "position_ids": positions_BL}
    weights_BHLS = model(ids_BL, output_attentions=True, **given).attentions[0]
    assert (weights_BHLS[0, 0, 8] > 0).all()
    apart_BHLS = model(ids_BL, output_attentions=True, position_ids=positions_BL).attentions[0]
    assert apart_BHLS[0, 0, 8].nonzero().flatten().tolist() == [4, 5, 6, 7, 8]


def test_the_mask_follows_the_keys_to_another_device() -> None:
    """As where `device_map` puts layers on several: accelerate moves tensors, and the mask is none."""
    mask_BL = torch.tensor([[0, 1, 1]])
    for given in (mask_BL, mask_BL[:, None, None].bool()):
        mask = AttentionMask(given, torch.arange(3), 0, None, is_causal=True)
        for device in ("cpu", "meta", "cpu"):
            made = mask.over(torch.empty(1, 1, 3, 4, device=device))
            assert made is not None
            assert made.device.type == device


@pytest.mark.parametrize(
    "name", ["flash_attention_2", "kernels-community/flash-attn2", "kernels-community/vllm-flash-attn3"]
)
def test_flash_attention_gets_the_mask_as_it_came(name: str) -> None:
    """Its functions take the two-dimensional mask; here one that only writes down what it is given stands in for it."""
    seen: list[Any] = []

    def fake(module: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, **options: Any) -> Any:
        seen.append((mask, options.get("cu_seq_lens_q")))
        return q.transpose(1, 2), None

    model, ids_BL = build(), draw_ids(2, 5)
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[0, :2] = 0
    model.config._attn_implementation = name
    ALL_ATTENTION_FUNCTIONS[name] = fake
    try:
        model(ids_BL, attention_mask=mask_BL, cu_seq_lens_q=7)
    finally:
        del ALL_ATTENTION_FUNCTIONS[name]
    assert all(mask is mask_BL and borders == 7 for mask, borders in seen)
    assert len(seen) == 2


@pytest.mark.parametrize("keep", [2, np.int64(2), torch.tensor([7, 8]), torch.tensor([[7, 8]])], ids=str)
def test_logits_are_kept_where_asked(keep: Any) -> None:
    model, ids_BL = build(), draw_ids(1, 9)
    torch.testing.assert_close(model(ids_BL, logits_to_keep=keep).logits, model(ids_BL).logits[:, -2:])


def reload_with_version(version: str, monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """Import one of the remote files again, as if transformers were of another version."""
    monkeypatch.setattr(sys.modules["transformers"], "__version__", version)
    found = importlib.util.find_spec(f"modeling.{name}")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("version", ["4.56.2", "4.9.0", "3.5.1"])
def test_transformers_that_is_too_old_is_named_with_the_one_needed(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = f"need transformers 4.57.6 or newer, got {version}: run `pip install --upgrade transformers`"
    with pytest.raises(ImportError, match=expected):
        reload_with_version(version, monkeypatch, "configuration_scratchgpt")


@pytest.mark.parametrize(("version", "lines"), [("99.1.0", 1), ("5.24.0", 0), ("5.24.0rc1", 0), ("4.57.6", 0)])
def test_transformers_newer_than_tested_is_said_once(
    version: str, lines: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    module = reload_with_version(version, monkeypatch, "modeling_scratchgpt")
    config = ScratchGPTConfig(vocab_size=7, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    for _ in range(2):
        module.ScratchGPTForCausalLM(config)(torch.zeros(1, 2, dtype=torch.long))
    said = [record.message for record in caplog.records if "newer than 5.24.0, the newest that" in record.message]
    assert len(said) == lines


def test_a_field_of_a_newer_scratchgpt_is_an_error_that_says_so(tmp_path: Path) -> None:
    ScratchGPTConfig().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    written = json.loads(path.read_text())
    assert written["scratchgpt_version"] == configuration.CODE_VERSION
    path.write_text(json.dumps(written | {"scratchgpt_version": "9.0.0", "sliding_window": 128}))
    with pytest.raises(ValueError, match=r"no field 'sliding_window'; ScratchGPT 9.0.0 wrote it, and this is the code"):
        ScratchGPTConfig.from_pretrained(tmp_path)
    for version in (None, 0, "abc"):
        path.write_text(json.dumps(written | {"scratchgpt_version": version, "foo": 1}))
        with pytest.raises(ValueError, match="no field 'foo'; the fields are"):
            ScratchGPTConfig.from_pretrained(tmp_path)
    path.write_text(json.dumps(written | {"scratchgpt_version": "9.0.0"}))
    config = ScratchGPTConfig.from_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    assert json.loads(path.read_text())["scratchgpt_version"] == configuration.CODE_VERSION
