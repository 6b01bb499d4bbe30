"""Sizes from a configuration alone, held against built models."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM
from modeling.sizing import activation_bytes, count_parameters, flops_per_token
from tests.modeling.families import GROUPED as MODERN
from train.kernels import use_kernels


@st.composite
def configs(draw) -> ScratchGPTConfig:
    key_heads = draw(st.integers(1, 3))
    booleans = ("gated_mlp", "qk_norm", "attention_bias", "attention_output_bias", "mlp_bias", "lm_head_bias")
    return ScratchGPTConfig(
        vocab_size=draw(st.integers(1, 70)),
        hidden_size=2 * draw(st.integers(1, 20)),
        intermediate_size=draw(st.none() | st.integers(1, 50)),
        num_hidden_layers=draw(st.integers(1, 3)),
        num_attention_heads=key_heads * draw(st.integers(1, 3)),
        num_key_value_heads=key_heads,
        head_dim=2 * draw(st.integers(1, 8)),
        max_position_embeddings=draw(st.integers(1, 40)),
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])),
        norm_position=draw(st.sampled_from(["pre", "post"])),
        position_embedding=draw(st.sampled_from(["learned", "sinusoidal", "rope"])),
        tie_word_embeddings=draw(st.booleans()),
        **{name: draw(st.booleans()) for name in booleans},
    )


@given(configs())
@settings(max_examples=60, deadline=None)
def test_count_is_the_built_models(config):
    with torch.device("meta"):
        for model_class in (ScratchGPTForCausalLM, ScratchGPTForMaskedLM):
            model = model_class(config)
            assert count_parameters(config) == sum(parameter.numel() for parameter in model.parameters())


def test_the_golden_count_of_the_science_fiction_tutorial():
    """At its own 8,256 tokens, without our separator; tests/train/test_config.py has the recipes' counts."""
    assert count_parameters(ScratchGPTConfig(vocab_size=8256)) == 9_010_752


def test_flops_are_three_times_the_counted_forward():
    from torch.utils.flop_counter import FlopCounterMode

    config = ScratchGPTConfig(vocab_size=50, hidden_size=32, num_attention_heads=2, num_hidden_layers=3)
    model = ScratchGPTForCausalLM(config)
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 16, dtype=torch.long), labels=torch.zeros(2, 16, dtype=torch.long)).loss.backward()
    assert flops_per_token(config, 16) == pytest.approx(counter.get_total_flops() / 32)


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_act": "relu", "mlp_dropout": 0.1, "attention_dropout": 0.1},
        {"hidden_act": "gelu", "residual_dropout": 0.1, "attention_dropout": 0.1},
        MODERN,
    ],
    ids=["relu", "gelu", "modern"],
)
def test_activations_are_about_what_autograd_keeps(fields, itemsize):
    shape = {"vocab_size": 50, "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = ScratchGPTConfig(**shape | {"max_position_embeddings": 192} | fields)
    model = ScratchGPTForCausalLM(config).train()
    use_kernels(model, "cpu")
    own = {parameter.data_ptr() for parameter in model.parameters()}

    def kept(windows: int) -> int:
        sizes: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        bf16 = torch.autocast("cpu", torch.bfloat16, enabled=itemsize == 2, cache_enabled=False)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), bf16:
            hidden = model.model(input_ids=torch.zeros(windows, 192, dtype=torch.long), use_cache=False)[0]
        assert hidden.requires_grad  # alive until here: no address is counted twice
        return sum(sizes.values())

    assert activation_bytes(config, 192, itemsize) == pytest.approx((kept(3) - kept(1)) / 2, rel=0.15)
