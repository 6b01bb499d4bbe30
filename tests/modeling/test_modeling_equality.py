"""The two families against the stock architectures they mirror, with the same weights."""

from typing import Any

import pytest
import torch

from hub_export.exports.stock import stock_model
from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.modeling_scratchgpt import CACHE_FIELD
from tests.modeling.families import MODERN

TOLERANCE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
SHAPE: dict[str, Any] = {"vocab_size": 67, "hidden_size": 48, "num_hidden_layers": 3, "max_position_embeddings": 32}
CLASSIC = {"num_attention_heads": 4, "hidden_act": "gelu_new", "attention_bias": True}
HEADS = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "intermediate_size": 80}


def build(**fields: Any) -> tuple[Any, Any]:
    """Our model, every weight away from its initial value, and a GPT-2 or Qwen3 with the same weights."""
    torch.manual_seed(0)
    config = ScratchGPTConfig(**SHAPE, initializer_range=0.2, eos_token_id=66, **fields)
    ours = ScratchGPTForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter += 0.2 * torch.randn_like(parameter)
    return ours, stock_model(ours)


def build_classic() -> tuple[Any, Any]:
    return build(**CLASSIC, tie_word_embeddings=True, lm_head_bias=False)


def build_modern(rope_parameters: dict | None = None) -> tuple[Any, Any]:
    return build(**MODERN | HEADS | {"norm_eps": 1e-5, "rope_parameters": rope_parameters})


@pytest.fixture(params=[build_classic, build_modern], ids=["gpt2", "qwen3"])
def pair(request):
    return request.param()


def draw_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask and positions of a batch whose first rows are padded on the left."""
    ids_BL = torch.randint(66, (3, 14), generator=torch.Generator().manual_seed(2))
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[0, :5] = 0
    mask_BL[1, :1] = 0
    return ids_BL, mask_BL, (mask_BL.cumsum(-1) - 1).clamp(min=0)


@torch.no_grad()
def test_logits_are_equal(pair):
    ours, theirs = pair
    ids_BL, mask_BL, positions_BL = draw_batch()
    torch.testing.assert_close(ours(ids_BL).logits, theirs(ids_BL).logits, **TOLERANCE)
    padded = {"attention_mask": mask_BL, "position_ids": positions_BL}
    real = mask_BL.bool()
    torch.testing.assert_close(ours(ids_BL, **padded).logits[real], theirs(ids_BL, **padded).logits[real], **TOLERANCE)


@torch.no_grad()
def test_logits_are_equal_with_a_cache(pair):
    ours, theirs = pair
    ids_BL, mask_BL, positions_BL = draw_batch()
    caches = [None, None]
    for start, stop in ((0, 8), (8, 9), (9, 14)):
        logits = []
        for index, model in enumerate((ours, theirs)):
            output = model(
                ids_BL[:, start:stop],
                attention_mask=mask_BL[:, :stop],
                position_ids=positions_BL[:, start:stop],
                use_cache=True,
                **{CACHE_FIELD: caches[index]},
            )
            caches[index] = output[CACHE_FIELD]
            logits.append(output.logits[mask_BL[:, start:stop].bool()])
        torch.testing.assert_close(*logits, **TOLERANCE)


def test_losses_and_gradients_are_equal(pair):
    ours, theirs = pair
    ids_BL = draw_batch()[0]
    losses = [model(ids_BL, labels=ids_BL).loss for model in (ours, theirs)]
    torch.testing.assert_close(*losses, **TOLERANCE)
    for loss in losses:
        loss.backward()
    mine, other = (model.get_input_embeddings().weight.grad for model in pair)
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_greedy_texts_are_equal(pair):
    ids_BL, mask_BL, _ = draw_batch()
    options = {"attention_mask": mask_BL, "max_new_tokens": 15, "do_sample": False, "pad_token_id": 66}
    ours, theirs = (model.generate(ids_BL, **options) for model in pair)
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "truncate": False, "beta_fast": 8},
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "original_max_position_embeddings": 8,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    ],
    ids=["linear", "dynamic", "yarn", "yarn-truncated", "llama3"],
)
@torch.no_grad()
def test_scaled_positions_are_those_of_qwen3(settings):
    """Short, then beyond the context, then short again: the dynamic kind changes its frequencies and changes back."""
    ours, theirs = build_modern({"rope_theta": 500.0, **settings})
    plain, _ = build_modern({"rope_type": "default", "rope_theta": 500.0})
    for length in (14, 48, 14):
        ids_1L = torch.randint(66, (1, length), generator=torch.Generator().manual_seed(length))
        logits_1LV = ours(ids_1L).logits
        torch.testing.assert_close(logits_1LV, theirs(ids_1L).logits, **TOLERANCE)
        scaled = settings["rope_type"] != "dynamic" or length > 32
        assert torch.allclose(logits_1LV, plain(ids_1L).logits, **TOLERANCE) != scaled
