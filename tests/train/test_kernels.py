"""Dropout, norms and blocked attention, against torch's own, and the model that uses these and the loss."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM
from modeling.modeling_scratchgpt import AttentionMask
from tests.modeling.families import GROUPED as MODERN
from train import kernels
from train.kernels import BlockedAttention, CpuDropout, CpuReLUDropout, CpuRMSNorm, use_kernels
from train.numerics import linear_cross_entropy
from train.objective import ModelWithLoss


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(linear_cross_entropy, "CROSS_ENTROPY_ROWS", 3)
    monkeypatch.setattr(kernels, "ATTENTION_ROWS", 3)
    monkeypatch.setattr(kernels, "ATTENTION_SCORES", 40)


def small_model(model_class: Any = ScratchGPTForCausalLM, **fields: Any) -> Any:
    torch.manual_seed(0)
    return model_class(ScratchGPTConfig(vocab_size=50, hidden_size=24, num_hidden_layers=1, **fields))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("items", [None, torch.tensor(40)])
@pytest.mark.parametrize("model_class", [ScratchGPTForCausalLM, ScratchGPTForMaskedLM])
def test_the_loss_without_logits_is_the_models_own(small_chunks, tied, items, model_class):
    ids_BL = torch.randint(50, (3, 11))
    target_BL = torch.where(torch.rand(3, 11) < 0.6, ids_BL, -100)
    own, alone = (small_model(model_class, tie_word_embeddings=tied) for _ in range(2))
    name = "labels" if model_class is ScratchGPTForMaskedLM else "shift_labels"
    expected = own(ids_BL, num_items_in_batch=items, **{name: target_BL}).loss
    loss = ModelWithLoss(alone)(ids_BL, target_BL, items)
    for value in (expected, loss):
        value.backward()
    got, wanted = ([parameter.grad for parameter in model.parameters()] for model in (alone, own))
    torch.testing.assert_close([loss, *got], [expected, *wanted], atol=1e-6, rtol=1e-5)


@given(rate=st.floats(0.01, 0.95), size=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_dropout_keeps_the_mean_and_its_rate(rate, size):
    torch.manual_seed(0)
    x = torch.ones(size, 20_001, requires_grad=True)
    y = CpuDropout(rate)(x)
    values = y.unique()
    assert values.numel() <= 2
    kept = (y != 0).float().mean().item()
    assert kept == pytest.approx(1 - rate, abs=4.5 * (rate * (1 - rate) / x.numel()) ** 0.5 + 1e-4)
    assert y.max().item() == pytest.approx(1 / (1 - rate), rel=1e-3)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu_and_its_dropout_are_those_of_both_and_keep_one_result(dtype):
    x, outputs = torch.linspace(-3, 3, 1000).to(dtype).requires_grad_(), []
    for modules in ([torch.nn.ReLU(), CpuDropout(0.3)], [CpuReLUDropout(0.3)]):
        torch.manual_seed(0)
        y = torch.nn.Sequential(*modules)(x)
        outputs.append([y, *torch.autograd.grad(y, x, x.detach(), retain_graph=True)])
    torch.testing.assert_close(*outputs, atol=0, rtol=0)
    assert [each.dtype for each in y.grad_fn.saved_tensors] == [dtype]


def test_use_kernels_joins_relu_and_its_dropout():
    for activation, rate, expected in (("relu", 0.1, True), ("gelu", 0.1, False), ("relu", 0.0, False)):
        model = small_model(hidden_act=activation, mlp_dropout=rate).eval()
        logits = model(ids_BL := torch.arange(9)[None]).logits
        use_kernels(model, "cpu")
        assert any(isinstance(module, CpuReLUDropout) for module in model.modules()) == expected
        assert torch.equal(model(ids_BL).logits, logits)


def test_dropout_is_off_in_evaluation_and_follows_the_seed():
    x = torch.randn(4, 7)
    dropout = CpuDropout(0.5)
    assert dropout.eval()(x) is x
    dropout.train()
    draws = []
    for _ in range(2):
        torch.manual_seed(5)
        draws.append(dropout(x))
    assert torch.equal(*draws)


def attend_plainly(q_ZLD, k_ZLD, v_ZLD, scaling, kept_ZLL, is_causal):
    """Attention with a given mask of kept weights, written out."""
    scores_ZLL = q_ZLD @ k_ZLD.transpose(1, 2) * scaling
    if is_causal:
        later = torch.ones(scores_ZLL.shape[1:], dtype=torch.bool).triu(1)
        scores_ZLL = scores_ZLL.masked_fill(later, -torch.inf)
    return (scores_ZLL.softmax(-1) * kept_ZLL) @ v_ZLD


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("length", [1, 3, 8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_blocked_attention_is_attention(small_chunks, monkeypatch, is_causal, length, dtype):
    """With known dropout masks, values and gradients are those of attention written out."""
    generator = torch.Generator().manual_seed(0)
    masks = []

    def draw_kept(shape, rate):
        masks.append(torch.randint(-1, 1, shape, generator=generator, dtype=torch.int16))
        return masks[-1].clone(), 1.25

    monkeypatch.setattr(kernels, "draw_kept", draw_kept)
    q_ZLD, k_ZLD, v_ZLD = (
        torch.randn(5, length, 4, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3)
    )
    halves = (x_ZLD.to(dtype) for x_ZLD in (q_ZLD, k_ZLD, v_ZLD))
    out_ZLD = BlockedAttention.apply(*halves, 0.7, 0.2, is_causal).double()
    kept_ZLL = torch.zeros(5, length, length, dtype=torch.float64)
    for (heads, rows, keys), mask in zip(BlockedAttention.blocks(q_ZLD, is_causal), masks, strict=True):
        kept_ZLL[heads, rows, keys] = -1.25 * mask
    expected_ZLD = attend_plainly(q_ZLD, k_ZLD, v_ZLD, 0.7, kept_ZLL, is_causal)
    near = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(out_ZLD, expected_ZLD, atol=near, rtol=near)
    weight_ZLD = torch.randn(out_ZLD.shape, dtype=torch.float64, generator=generator)
    gradients = torch.autograd.grad((out_ZLD * weight_ZLD).sum(), (q_ZLD, k_ZLD, v_ZLD))
    expected = torch.autograd.grad((expected_ZLD * weight_ZLD).sum(), (q_ZLD, k_ZLD, v_ZLD))
    torch.testing.assert_close(gradients, expected, atol=near, rtol=near)


@pytest.mark.parametrize("most", [0, 99])
@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_blocked_attention_without_dropout_is_torchs(small_chunks, monkeypatch, most, is_causal, dtype):
    """Whether the weights of short sequences are kept or computed again."""
    monkeypatch.setattr(kernels, "ATTENTION_KEPT", most)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(5, 8, 4, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3)]
    out_ZLD = BlockedAttention.apply(*(x_ZLD.to(dtype) for x_ZLD in inputs), 0.7, 0.0, is_causal).double()
    q_ZLD, k_ZLD, v_ZLD = inputs
    expected_ZLD = functional.scaled_dot_product_attention(q_ZLD, k_ZLD, v_ZLD, is_causal=is_causal, scale=0.7)
    near = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(out_ZLD, expected_ZLD, atol=near, rtol=near)
    weight_ZLD = torch.randn(out_ZLD.shape, dtype=torch.float64, generator=generator)
    gradients = torch.autograd.grad((out_ZLD * weight_ZLD).sum(), inputs)
    expected = torch.autograd.grad((expected_ZLD * weight_ZLD).sum(), inputs)
    torch.testing.assert_close(gradients, expected, atol=near, rtol=near)


@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12), (2, 3, 2, 12), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_norm_is_torchs(shape, dtype):
    torch.manual_seed(0)
    ours, theirs = CpuRMSNorm([shape[-1]], eps=1e-3), torch.nn.RMSNorm(shape[-1], eps=1e-3).double()
    ours = ours.to(dtype) if dtype == torch.float64 else ours
    with torch.no_grad():
        theirs.weight.copy_(ours.weight.normal_())
    x = torch.randn(shape).to(dtype).requires_grad_()
    expected_x = x.detach().double().requires_grad_()
    y, expected = ours(x), theirs(expected_x)
    assert y.dtype == dtype
    near = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), expected, atol=near, rtol=near)
    gradient = torch.randn(shape).to(dtype)
    of_ours = torch.autograd.grad(y, (x, ours.weight), gradient)
    of_theirs = torch.autograd.grad(expected, (expected_x, theirs.weight), gradient.double())
    for ours_too, theirs_too in zip(of_ours, of_theirs, strict=True):
        torch.testing.assert_close(ours_too.double(), theirs_too.double(), atol=1e-6 + near, rtol=near)


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize(("position", "expected"), [("pre", torch.bfloat16), ("post", torch.float32)])
def test_a_norm_before_linear_layers_gives_their_type(norm, position, expected):
    """After a sum it is the residual stream itself, and stays in float32."""
    model = small_model(norm=norm, norm_position=position).train()
    use_kernels(model, "cpu")
    found = model.model.layers[0].post_attention_layernorm
    with torch.autocast("cpu", torch.bfloat16):
        assert found(torch.randn(2, 24)).dtype == expected
        assert found.eval()(torch.randn(2, 24)).dtype == torch.float32


def test_training_on_the_cpu_takes_the_blocked_way_and_is_right_on_average(monkeypatch):
    torch.manual_seed(0)
    calls, apply = [], BlockedAttention.apply
    monkeypatch.setattr(BlockedAttention, "apply", lambda *arguments: calls.append(0) or apply(*arguments))
    model = small_model(attention_dropout=0.2, initializer_range=0.3, num_key_value_heads=3)
    use_kernels(model, "cpu")
    attention, x_BLE = model.model.layers[0].self_attn, torch.randn(2, 9, 24)
    mask = AttentionMask(None, torch.arange(9), 0, None, is_causal=True)
    with torch.no_grad():
        expected_BLE = attention.eval()(x_BLE, mask=mask)[0]
        assert not calls
        attention.train()
        average_BLE = torch.stack([attention(x_BLE, mask=mask)[0] for _ in range(3000)]).mean(0)
    assert len(calls) == 3000
    assert (average_BLE - expected_BLE).abs().max() < 0.05 * expected_BLE.abs().max()


def test_long_sequences_in_float32_take_torchs_attention(monkeypatch):
    monkeypatch.setattr(kernels, "ATTENTION_LONGEST", 8)
    calls, apply = [], BlockedAttention.apply
    monkeypatch.setattr(BlockedAttention, "apply", lambda *arguments: calls.append(0) or apply(*arguments))
    for rate, dtype, expected in ((0.0, torch.float32, 0), (0.0, torch.bfloat16, 1), (0.2, torch.float32, 1)):
        module = torch.nn.Module().train()
        q_BHLD = torch.randn(1, 2, 9, 4, dtype=dtype)
        out_BLHD, _ = kernels.cpu_attention(module, q_BHLD, q_BHLD, q_BHLD, None, 0.5, rate)
        assert out_BLHD.shape == (1, 9, 2, 4)
        assert len(calls) == expected
        calls.clear()


def test_cpu_kernels_change_no_weight_and_no_evaluation(tmp_path):
    model = small_model(attention_dropout=0.2, residual_dropout=0.1, embedding_dropout=0.1).eval()
    ids_BL, names = torch.randint(50, (2, 9)), list(model.state_dict())
    expected_BLV = model(ids_BL).logits
    use_kernels(model, "cpu")
    assert sum(isinstance(module, CpuDropout) for module in model.modules()) == 3
    assert list(model.state_dict()) == names
    assert torch.equal(model(ids_BL).logits, expected_BLV)
    model.save_pretrained(tmp_path)
    assert "cpu_blocked" not in (tmp_path / "config.json").read_text()
    assert ScratchGPTForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_on_a_gpu_torchs_own_kernels_stay() -> None:
    model = small_model(residual_dropout=0.1)
    use_kernels(model, "cuda:0")
    assert model.config._attn_implementation == "sdpa"
    assert not any(isinstance(module, CpuDropout) for module in model.modules())


def test_cpu_attention_leaves_masks_and_caches_to_torch(monkeypatch):
    ids_BL, mask_BL = torch.randint(50, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask_BL[0, :3] = 0
    plain, fast = (small_model(attention_dropout=0.2).train() for _ in range(2))
    use_kernels(fast, "cpu")
    with torch.no_grad():
        cached = plain.eval()(ids_BL[:, :5], use_cache=True, return_dict=False)[1]
    monkeypatch.setattr(BlockedAttention, "apply", None)
    for options in ({"attention_mask": mask_BL}, {"past_key_values": cached}):
        results = []
        for model in (plain.train(), fast):
            torch.manual_seed(0)
            given = {name: copy.deepcopy(value) for name, value in options.items()}
            results.append(model(ids_BL, **given).logits)
        assert torch.equal(*results)


def test_a_tiny_rate_still_drops():
    torch.manual_seed(0)
    dropped = (CpuDropout(1e-6)(torch.ones(500_000)) == 0).sum().item()
    assert 0 < dropped < 30  # the least rate there is: 1 / 65536


def test_gradient_accumulation_adds_up():
    ids_BL = torch.randint(50, (4, 9))
    model = small_model()
    parameters, module = list(model.parameters()), ModelWithLoss(model)
    whole = torch.autograd.grad(module(ids_BL, ids_BL), parameters)
    for half_BL in ids_BL.split(2):
        module(half_BL, half_BL, torch.tensor(4 * 9)).backward()
    torch.testing.assert_close([parameter.grad for parameter in parameters], list(whole), atol=1e-6, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_compiled_training_step_is_the_same():
    ids_BL, results = torch.randint(50, (2, 9)), []
    for backend in (None, "aot_eager"):
        model = small_model()
        use_kernels(model, "cpu")
        module = ModelWithLoss(model)
        call = module if backend is None else torch.compile(module, backend=backend)
        loss = call(ids_BL, ids_BL)
        loss.backward()
        results.append([loss, *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(*results)


def test_training_in_bfloat16_has_a_finite_loss_and_gradients():
    for family in ({}, MODERN, {"qk_norm": True}):
        model = small_model(attention_dropout=0.1, **family).train()
        use_kernels(model, "cpu")
        module, ids_BL = ModelWithLoss(model), torch.randint(50, (2, 8))
        with torch.autocast("cpu", torch.bfloat16):
            loss = module(ids_BL, ids_BL)
        loss.backward()
        assert loss.dtype == torch.float32
        assert model.model.embed_tokens.weight.grad.isfinite().all()
        module.to(torch.bfloat16)
        loss = module(ids_BL, ids_BL)
        loss.backward()
        assert loss.isfinite()


def test_no_part_of_a_step_on_the_cpu_is_written_in_place_into_a_view():
    """Autograd copies the whole tensor, fills another one with zeros, and copies back (CopySlices): 8 % of a step."""

    def nodes_of(root: Any) -> set[str]:
        found, open_nodes = {}, [root]
        while open_nodes:
            node = open_nodes.pop()
            if node is not None and id(node) not in found:
                found[id(node)] = node
                open_nodes += [each for each, _ in node.next_functions]
        return {node.name() for node in found.values()}

    ids_BL = torch.randint(50, (2, 9))
    plain, fast = small_model(attention_dropout=0.1), small_model(attention_dropout=0.1, residual_dropout=0.1)
    assert "torch::autograd::CopySlices" in nodes_of(plain(ids_BL, labels=ids_BL).loss.grad_fn)
    use_kernels(fast, "cpu")
    assert "torch::autograd::CopySlices" not in nodes_of(ModelWithLoss(fast)(ids_BL, ids_BL).grad_fn)
