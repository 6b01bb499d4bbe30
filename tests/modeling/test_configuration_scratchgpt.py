"""The configuration: defaults, errors in plain words, and the way through config.json."""

import json
from typing import Any

import pytest

from modeling import ScratchGPTConfig


def test_defaults_are_the_science_fiction_recipe():
    config = ScratchGPTConfig()
    assert (config.head_dim, config.num_key_value_heads, config.intermediate_size) == (42, 6, 1024)
    assert ScratchGPTConfig(hidden_size=384, num_attention_heads=7).head_dim == 54


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hiden_size": 64}, "has no field 'hiden_size'; did you mean hidden_size"),
        ({"temperature": 0.5}, "has no field 'temperature'; the fields are attention_bias,"),
        ({"hidden_size": "64"}, r"hidden_size must be int; got '64' \(str\)"),
        ({"qk_norm": 1}, r"qk_norm must be bool; got 1 \(int\)"),
        ({"num_key_value_heads": 1.5}, r"num_key_value_heads must be int or None; got 1.5 \(float\)"),
        ({"norm": "batchnorm"}, "norm must be 'layernorm' or 'rmsnorm'; got 'batchnorm'"),
        ({"position_embedding": "alibi"}, "position_embedding must be 'learned' or 'sinusoidal' or 'rope'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1; got 0"),
        ({"num_attention_heads": 0}, "num_attention_heads must be at least 1; got 0"),
        ({"vocab_size": -5}, "vocab_size must be at least 1; got -5"),
        ({"hidden_size": 4}, "hidden_size 4 leaves nothing for each of 6 heads"),
        ({"residual_dropout": 1.0}, "residual_dropout is a probability, at least 0 and below 1; got 1.0"),
        ({"attention_dropout": -0.1}, "attention_dropout is a probability"),
        ({"embedding_dropout": float("nan")}, "embedding_dropout is a probability"),
        ({"norm_eps": 0.0}, "norm_eps must be above 0; got 0.0"),
        ({"eos_token_id": 8257}, "eos_token_id must be a token of the vocabulary, 0 to 8256; got 8257"),
        ({"eos_token_id": [3, -1]}, "eos_token_id must be a token of the vocabulary, 0 to 8256; got -1"),
        ({"hidden_act": "rellu"}, "hidden_act 'rellu' is no activation of transformers; try relu"),
        ({"num_key_value_heads": 4}, "num_key_value_heads must divide num_attention_heads.*got 4 for 6"),
        ({"head_dim": 43, "position_embedding": "rope"}, "head_dim must be even; got 43: set head_dim, or change"),
        ({"hidden_size": 255, "position_embedding": "sinusoidal"}, "hidden_size must be even; got 255"),
        ({"rope_theta": 5e5}, "rope_theta 500000.0 has no effect with position_embedding='learned'"),
        ({"initializer": "kaiming"}, "initializer must be 'normal' or 'pytorch'; got 'kaiming'"),
        ({"initializer": "pytorch", "initializer_range": 0.1}, "initializer_range 0.1 has no effect with initializer="),
        ({"initializer": "pytorch", "tie_word_embeddings": True}, "tied output layer they would give logits of sqrt"),
        (
            {"rope_parameters": {"rope_type": "default"}},
            "rope_parameters have no effect with position_embedding='learn",
        ),
    ],
)
def test_nonsense_is_refused_in_words(fields, message):
    with pytest.raises(ValueError, match=message):
        ScratchGPTConfig(**fields)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rope_type": "longrope"}, "rope_type must be one of default, linear, dynamic, yarn, llama3; got 'longrope'"),
        ({"rope_type": "linear"}, "rope_type 'linear' needs factor in rope_parameters"),
        ({"rope_type": "linear", "factor": None}, "rope_type 'linear' needs factor in rope_parameters"),
        ({"rope_type": "llama3", "factor": 2}, "'llama3' needs high_freq_factor and low_freq_factor in"),
        ({"rope_type": "dynamic", "factor": 2, "beta_fast": 3}, "'dynamic' has no beta_fast in rope_parameters"),
        ({"factor": 2.0}, "'default' has no factor in rope_parameters"),
        ({"rope_type": "yarn", "factor": 0.5}, "factor in rope_parameters must be at least 1; got 0.5"),
        ({"rope_type": "yarn", "factor": "2"}, "factor in rope_parameters must be a number above 0; got '2'"),
        ({"rope_theta": -1.0}, "rope_theta in rope_parameters must be a number above 0; got -1.0"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1"),
        (
            {"rope_type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 4},
            "low_freq_factor in rope_parameters must be below high_freq_factor",
        ),
    ],
)
def test_rotary_settings_that_make_no_sense_are_refused_in_words(settings, message):
    with pytest.raises(ValueError, match=message):
        ScratchGPTConfig(position_embedding="rope", rope_parameters=settings)


def test_whole_numbers_serve_as_rates():
    assert ScratchGPTConfig(residual_dropout=0).residual_dropout == 0


def test_a_tied_output_layer_may_have_a_bias():
    assert ScratchGPTConfig(tie_word_embeddings=True, lm_head_bias=True).lm_head_bias


def test_rope_parameters_hold_rope_theta():
    config = ScratchGPTConfig(
        position_embedding="rope", rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0}
    )
    assert config.rope_theta == 1_000_000.0
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 1_000_000.0}
    config.rope_theta = 500.0
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 500.0}
    assert ScratchGPTConfig().rope_parameters == {}


@pytest.mark.parametrize("name", ["rope_parameters", "rope_scaling"])
def test_scaled_positions_go_through_config_json(tmp_path, name):
    config: Any = ScratchGPTConfig(
        position_embedding="rope", head_dim=32, rope_theta=500.0, **{name: {"type": "yarn", "factor": 4.0}}
    )
    expected = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 256}
    assert {key: value for key, value in config.rope_parameters.items() if key != "type"} == expected
    config.save_pretrained(tmp_path)
    again = ScratchGPTConfig.from_pretrained(tmp_path)
    assert again.scales_positions
    assert again.to_dict() == config.to_dict()


def test_config_json_round_trip(tmp_path):
    config = ScratchGPTConfig(
        position_embedding="rope",
        rope_theta=500.0,
        head_dim=32,
        num_key_value_heads=2,
        norm="rmsnorm",
        residual_dropout=0.2,
        eos_token_id=[1, 2],
    )
    config.save_pretrained(tmp_path)
    again = ScratchGPTConfig.from_pretrained(tmp_path)
    expected, got = config.to_dict(), again.to_dict()
    assert got == expected
    written = json.loads((tmp_path / "config.json").read_text())
    assert sorted(written["auto_map"]) == ["AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM"]
    assert "rope_parameters" not in written


def test_an_attribute_set_from_outside_is_kept(tmp_path):
    config = ScratchGPTConfig()
    config.tag = "mine"
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["extra_keys"] == ["tag"]
    again = ScratchGPTConfig.from_pretrained(tmp_path)
    assert again.tag == "mine"
    assert again.to_dict() == config.to_dict()
    assert "extra_keys" not in ScratchGPTConfig().to_dict()


def test_the_tensor_parallel_plan_names_layers_that_exist():
    assert "layers.*.mlp.gate_proj" in (ScratchGPTConfig(gated_mlp=True).base_model_tp_plan or {})
    assert "layers.*.mlp.gate_proj" not in (ScratchGPTConfig().base_model_tp_plan or {})
