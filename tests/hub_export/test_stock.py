from typing import Any

import pytest
import torch

from hub_export.exports.stock import stock_model
from tests.hub_export.families import CLASSIC, GPT2, MODERN, random_model


@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("Qwen3ForCausalLM", MODERN),
        ("Qwen3ForCausalLM", {**MODERN, "head_dim": 6, "num_key_value_heads": 2, "rope_theta": 500.0}),
        ("Qwen3ForCausalLM", {**MODERN, "attention_bias": True, "tie_word_embeddings": False}),
        ("Qwen3ForCausalLM", {**MODERN, "attention_output_bias": True, "hidden_act": "relu", "norm_eps": 1e-3}),
        ("Qwen3ForCausalLM", {**MODERN, "rope_parameters": {"rope_type": "yarn", "factor": 3.0}}),
        ("GPT2LMHeadModel", CLASSIC),
        ("GPT2LMHeadModel", {**CLASSIC, "attention_output_bias": False, "mlp_bias": False, "intermediate_size": 50}),
        ("GPT2LMHeadModel", GPT2),
        ("GPT2LMHeadModel", {**GPT2, "num_key_value_heads": 2, "norm_eps": 1e-3}),
        ("GPT2LMHeadModel", {**CLASSIC, "num_key_value_heads": 1, "hidden_act": "gelu"}),
        ("GPT2LMHeadModel", {**CLASSIC, "position_embedding": "sinusoidal"}),
        ("GPT2LMHeadModel", {**GPT2, "position_embedding": "sinusoidal"}),
    ],
)
def test_a_stock_model_computes_the_same(architecture: str, fields: dict) -> None:
    model = random_model(**fields)
    stock: Any = stock_model(model)
    assert type(stock).__name__ == architecture
    assert type(stock).__module__.startswith("transformers.models.")
    input_ids_BL = torch.arange(96).mul(7919).remainder(300).view(2, 48)
    with torch.inference_mode():
        torch.testing.assert_close(stock(input_ids_BL).logits, model(input_ids_BL).logits, rtol=1e-5, atol=1e-5)


def test_ties_and_ids_are_kept() -> None:
    stock: Any = stock_model(random_model(**MODERN))
    assert stock.get_output_embeddings().weight is stock.get_input_embeddings().weight
    assert (stock.config.bos_token_id, stock.config.eos_token_id, stock.config.pad_token_id) == (1, 1, None)
    assert stock_model(random_model(**GPT2, residual_dropout=0.25)).config.resid_pdrop == 0.25


def test_scaled_embeddings_end_a_tie() -> None:
    stock: Any = stock_model(random_model(**{**GPT2, "position_embedding": "sinusoidal"}))
    assert not stock.config.tie_word_embeddings
    assert stock.get_output_embeddings().weight is not stock.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {**MODERN, "norm": "layernorm"},
            ["Qwen3", "norm is 'layernorm' and must be 'rmsnorm' (--model.norm rmsnorm)"],
        ),
        ({**MODERN, "qk_norm": False}, ["qk_norm is False and must be True (--model.qk-norm)"]),
        (
            {**MODERN, "gated_mlp": False, "mlp_bias": True},
            ["gated_mlp is False and must be True", "mlp_bias is True and must be False (--model.no-mlp-bias)"],
        ),
        ({**CLASSIC, "norm_position": "post"}, ["GPT-2", "learned", "norm_position is 'post' and must be 'pre'"]),
        ({**CLASSIC, "lm_head_bias": True}, ["lm_head_bias is True and must be False (--model.no-lm-head-bias)"]),
        (
            {**CLASSIC, "num_attention_heads": 5},
            ["num_attention_heads x head_dim is 5 x 6 = 30 and must be hidden_size, 32"],
        ),
        ({**CLASSIC, "position_embedding": "sinusoidal", "norm": "rmsnorm"}, ["sinusoidal", "norm is 'rmsnorm'"]),
    ],
)
def test_a_model_without_a_counterpart_is_refused_by_field(fields: dict, words: list[str]) -> None:
    with pytest.raises(ValueError, match="expected a model that transformers' ") as caught:
        stock_model(random_model(**fields))
    for part in [*words, "train again", "`onnx`"]:
        assert part in str(caught.value)
