"""The lean path against the model's own forward."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.fast_decoder import FastDecoder, is_plain
from tests.modeling.families import GROUPED

CONTEXT, VOCABULARY = 16, 23

CLASSIC = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "hidden_size": 20,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "bos_token_id": 1,
    "initializer_range": 0.3,
}
MODERN = {**CLASSIC, **GROUPED, "hidden_size": 16, "num_attention_heads": 4, "head_dim": 6}

booleans = st.booleans()
shapes = st.fixed_dictionaries(
    {
        "hidden_size": st.sampled_from([8, 12]),
        "num_hidden_layers": st.integers(1, 2),
        "num_attention_heads": st.sampled_from([2, 4]),
        "num_key_value_heads": st.sampled_from([1, 2, None]),
        "head_dim": st.sampled_from([2, 4, 6]),
        "intermediate_size": st.sampled_from([None, 10]),
        "hidden_act": st.sampled_from(["relu", "silu", "gelu", "gelu_new", "tanh"]),
        "gated_mlp": booleans,
        "norm": st.sampled_from(["layernorm", "rmsnorm"]),
        "norm_position": st.sampled_from(["pre", "post"]),
        "norm_eps": st.sampled_from([1e-6, 1e-2]),
        "position_embedding": st.sampled_from(["learned", "sinusoidal", "rope"]),
        "qk_norm": booleans,
        "attention_bias": booleans,
        "attention_output_bias": booleans,
        "mlp_bias": booleans,
        "lm_head_bias": booleans,
        "tie_word_embeddings": booleans,
    }
)


def build(dtype=torch.float32, **config) -> Any:
    """A model with every weight, those of norms and biases too, away from its initial value."""
    torch.manual_seed(0)
    model: Any = ScratchGPTForCausalLM(ScratchGPTConfig(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.to(dtype)


class Counting(TorchDispatchMode):
    """Counts the operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **kwargs or {})


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shape=shapes, ids=st.lists(st.integers(0, VOCABULARY - 1), min_size=4, max_size=CONTEXT), data=st.data())
def test_logits_are_those_of_the_forward(shape, ids, data):
    # LayerNorm makes -1 and 1 of two values: where they are nearly equal, rounding decides.
    assume(not (shape["qk_norm"] and shape["norm"] == "layernorm" and shape["head_dim"] == 2))
    model = build(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, initializer_range=0.3, **shape)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(ids) - 1), max_size=6)))
    with torch.inference_mode():
        expected_LV = model(torch.tensor([ids])).logits[0]
        reader = FastDecoder(model, CONTEXT)
        for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
            torch.testing.assert_close(reader.read(ids[start:end]), expected_LV[end - 1], atol=1e-4, rtol=1e-4)
        reader.reset()
        torch.testing.assert_close(reader.read(ids[-2:]), model(torch.tensor([ids[-2:]])).logits[0, -1])


@pytest.mark.parametrize("config", [CLASSIC, MODERN, {**CLASSIC, "position_embedding": "sinusoidal"}])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types(config, dtype):
    model = build(dtype, **config)
    ids = [5, 3, 8, 1, 9]
    with torch.inference_mode():
        expected_V = model(torch.tensor([ids])).logits[0, -1].float()
        reader = FastDecoder(model, CONTEXT)
        reader.read(ids[:3])
        reader.read(ids[3:4])
        logits_V = reader.read(ids[4:]).float()
    bound = 0.1 if dtype == torch.bfloat16 else 1e-5
    assert (logits_V - expected_V).abs().max() < bound * expected_V.abs().max()


@pytest.mark.parametrize("config", [CLASSIC, MODERN, {**CLASSIC, "position_embedding": "sinusoidal"}])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_matrices_of_a_large_model_are_used_as_they_lie(config, dtype, monkeypatch):
    model = build(dtype, **config)
    limit, ids = model.get_memory_footprint(), [5, 3, 8, 1, 9, 2]
    own = {weight.data_ptr() for weight in model.parameters()}

    def copies(decoder: FastDecoder) -> int:
        """How many matrices of the decoder are copies of the model's, but for the joined ones."""
        matrices = [decoder.head_EV]
        for block in decoder.blocks:
            matrices += [block.output_WE, block.up_EI, block.down_IE]
            matrices += [] if block.gate_EI is None else [block.gate_EI]
        return sum(each.data_ptr() not in own for each in matrices)

    with torch.inference_mode():
        expected_LV = model(torch.tensor([ids])).logits[0].float()
        monkeypatch.setattr("modeling.fast_decoder.COPY_LIMIT", limit)
        assert copies(FastDecoder(model, CONTEXT)) > 0
        monkeypatch.setattr("modeling.fast_decoder.COPY_LIMIT", limit - 1)
        decoder = FastDecoder(model, CONTEXT)
        assert copies(decoder) == 0
        for start, end in ((0, 3), (3, 4), (4, 6)):
            logits_V = decoder.read(ids[start:end]).float()
            bound = 0.02 if dtype == torch.float16 else 1e-5
            assert (logits_V - expected_LV[end - 1]).abs().max() < bound * expected_LV.abs().max()


@pytest.mark.parametrize(("dtype", "is_sum"), [(torch.float32, True), (torch.bfloat16, False)])
def test_a_token_reads_each_matrix_as_a_weighted_sum_of_its_rows(dtype, is_sum):
    with torch.inference_mode():
        reader = FastDecoder(build(dtype, **MODERN), CONTEXT)
        reader.read([5, 3])
        with Counting() as counting:
            reader.read([8])
    matrices = 5 * MODERN["num_hidden_layers"] + 1
    assert counting.calls["embedding_bag"] == is_sum * matrices
    assert counting.calls["mm"] == (not is_sum) * matrices


@pytest.mark.parametrize("rope_type", ["linear", "yarn"])
@torch.no_grad()
def test_scaled_positions(rope_type):
    scaling = {"rope_type": rope_type, "factor": 4.0}
    model, plain = (build(**MODERN, rope_parameters=settings) for settings in (scaling, None))
    assert is_plain(model)
    ids = list(range(3, 15))
    reader = FastDecoder(model, CONTEXT)
    reader.read(ids[:7])
    logits_V = reader.read(ids[7:])
    torch.testing.assert_close(logits_V, model(torch.tensor([ids])).logits[0, -1])
    assert not torch.allclose(logits_V, plain(torch.tensor([ids])).logits[0, -1], atol=1e-3)


def test_the_weights_stay_as_they_are():
    model = build(**MODERN)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        FastDecoder(model, CONTEXT).read([1, 2, 3])
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model(torch.tensor([[1, 2]]), labels=torch.tensor([[1, 2]])).loss.backward()


def test_plain_models_only():
    model = build(**CLASSIC)
    assert is_plain(model)
    model(torch.tensor([[1, 2]]), output_hidden_states=True)
    assert is_plain(model), "the hooks that record hidden states change nothing"

    hook = model.model.layers[0].register_forward_hook(lambda module, args, output: output * 2)
    assert not is_plain(model)
    hook.remove()
    assert is_plain(model)

    model.model.layers[0].mlp.up_proj = Wrapped(model.model.layers[0].mlp.up_proj)
    assert not is_plain(model)

    assert not is_plain(build(**MODERN, rope_parameters={"rope_type": "dynamic", "factor": 2.0}))

    mixed = build(**CLASSIC)
    mixed.lm_head.to(torch.bfloat16)
    assert not is_plain(mixed)


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner, self.weight, self.bias = inner, inner.weight, inner.bias

    def forward(self, x):
        return self.inner(x) * math.pi
