"""Losses, dropout and blocked attention, held against torch's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import modeling.kernels_scratchgpt as kernels
import modeling.modeling_scratchgpt as scratchgpt
from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.kernels_scratchgpt import BlockedAttention, dropout, linear_cross_entropy


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(kernels, "CROSS_ENTROPY_ROWS", 3)
    monkeypatch.setattr(kernels, "ATTENTION_ROWS", 3)
    monkeypatch.setattr(kernels, "ATTENTION_SCORES", 40)


def draw_problem(rows: int, vocabulary: int, bias: bool, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(0)
    x_NE = torch.randn(rows, 4, dtype=dtype, generator=generator).requires_grad_()
    weight_VE = torch.randn(vocabulary, 4, dtype=dtype, generator=generator).requires_grad_()
    bias_V = torch.randn(vocabulary, dtype=dtype, generator=generator).requires_grad_() if bias else None
    target_N = torch.randint(vocabulary, (rows,), generator=generator)
    target_N[::4] = -100
    return x_NE, weight_VE, bias_V, target_N


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("vocabulary", [5, 16, 33])
@pytest.mark.parametrize("items", [None, 7, torch.tensor(7)])
def test_linear_cross_entropy_is_torchs(small_chunks, bias, vocabulary, items):
    problem = draw_problem(10, vocabulary, bias)
    loss = linear_cross_entropy(*problem, items)
    inputs = [tensor for tensor in problem[:3] if tensor is not None]
    gradients = torch.autograd.grad(3.5 * loss, inputs)
    logits_NV = functional.linear(*problem[:3])
    reduction = "mean" if items is None else "sum"
    expected = functional.cross_entropy(logits_NV, problem[3], reduction=reduction) / (1 if items is None else 7)
    torch.testing.assert_close(loss, expected)
    for gradient, other in zip(gradients, torch.autograd.grad(3.5 * expected, inputs), strict=True):
        torch.testing.assert_close(gradient, other)


def test_linear_cross_entropy_passes_gradcheck(small_chunks):
    x_NE, weight_VE, bias_V, target_N = draw_problem(7, 6, True)
    assert torch.autograd.gradcheck(
        lambda *tensors: linear_cross_entropy(*tensors, target_N), (x_NE, weight_VE, bias_V)
    )


@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 1), (1, 2)])
def test_linear_cross_entropy_with_frozen_inputs(small_chunks, frozen):
    problem = draw_problem(7, 6, True)
    expected = torch.autograd.grad(linear_cross_entropy(*problem), problem[:3])
    for index in frozen:
        problem[index].requires_grad_(False)
    linear_cross_entropy(*problem).backward()
    for index in range(3):
        if index in frozen:
            assert problem[index].grad is None
        else:
            torch.testing.assert_close(problem[index].grad, expected[index])


def test_linear_cross_entropy_survives_certain_mistakes():
    x_NE = torch.tensor([[1000.0]])
    loss = linear_cross_entropy(x_NE, torch.tensor([[1.0], [-1.0]]), None, torch.tensor([1]))
    assert loss.item() == 2000.0


def test_linear_cross_entropy_without_gradients_allocates_none():
    with torch.no_grad():
        loss = linear_cross_entropy(*draw_problem(7, 6, True))
    assert not loss.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_linear_cross_entropy_in_half_precision(small_chunks, dtype):
    problem = draw_problem(64, 33, True, torch.float32)
    expected = linear_cross_entropy(*problem)
    gradients = torch.autograd.grad(expected, problem[:3])
    with torch.autocast("cpu", dtype):
        loss = linear_cross_entropy(*problem)
    for gradient, other in zip(torch.autograd.grad(loss, problem[:3]), gradients, strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, other, atol=2e-3, rtol=2e-2)
    halves = [tensor.detach().to(dtype).requires_grad_() for tensor in problem[:3]]
    loss = linear_cross_entropy(*halves, problem[3])
    loss.backward()
    assert loss.dtype == torch.float32
    assert [half.grad.dtype for half in halves] == [dtype] * 3
    torch.testing.assert_close(loss, expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("tied", [False, True])
def test_skip_logits_gives_the_same_loss_and_gradients(small_chunks, tied):
    ids_BL = torch.randint(50, (3, 11))
    labels_BL = ids_BL.clone()
    labels_BL[0, :4] = -100
    ways = [{"labels": labels_BL}, {"labels": labels_BL, "skip_logits": True}]
    shifted_BL = functional.pad(labels_BL, (0, 1), value=-100)[:, 1:]
    ways += [{"shift_labels": shifted_BL, "skip_logits": skip} for skip in (False, True)]
    for extra in ({}, {"num_items_in_batch": torch.tensor(40)}):
        results = []
        for way in ways:
            torch.manual_seed(0)
            config = ScratchGPTConfig(vocab_size=50, hidden_size=24, num_hidden_layers=1, tie_word_embeddings=tied)
            model = ScratchGPTForCausalLM(config)
            output = model(ids_BL, **way, **extra)
            assert (output.logits is None) == way.get("skip_logits", False)
            assert output.past_key_values is None
            output.loss.backward()
            results.append([output.loss, *(parameter.grad for parameter in model.parameters())])
        for other in results[1:]:
            torch.testing.assert_close(other, results[0], atol=1e-6, rtol=1e-5)


def test_skip_logits_needs_labels():
    model = ScratchGPTForCausalLM(ScratchGPTConfig(vocab_size=50, hidden_size=24, num_hidden_layers=1))
    with pytest.raises(ValueError, match="skip_logits leaves only the loss, which needs labels: give labels or shift"):
        model(torch.zeros(1, 3, dtype=torch.long), skip_logits=True)


@given(rate=st.floats(0.01, 0.95), size=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_dropout_keeps_the_mean_and_its_rate(rate, size):
    torch.manual_seed(0)
    x = torch.ones(size, 20_001, requires_grad=True)
    y = dropout(x, rate, training=True)
    values = y.unique()
    assert values.numel() <= 2
    kept = (y != 0).float().mean().item()
    assert kept == pytest.approx(1 - rate, abs=4.5 * (rate * (1 - rate) / x.numel()) ** 0.5 + 1e-4)
    assert y.max().item() == pytest.approx(1 / (1 - rate), rel=1e-3)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())


def test_dropout_is_off_in_evaluation_and_follows_the_seed():
    x = torch.randn(4, 7)
    assert dropout(x, 0.5, training=False) is x
    draws = []
    for _ in range(2):
        torch.manual_seed(5)
        draws.append(dropout(x, 0.5, training=True))
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
def test_blocked_attention_is_attention(small_chunks, monkeypatch, is_causal, length):
    """With known dropout masks, values and gradients are those of attention written out."""
    generator = torch.Generator().manual_seed(0)
    masks = []

    def draw_kept(shape, rate):
        masks.append(torch.randint(2, shape, generator=generator, dtype=torch.int16))
        return masks[-1].clone(), 1.25

    monkeypatch.setattr(kernels, "draw_kept", draw_kept)
    q_ZLD, k_ZLD, v_ZLD = (
        torch.randn(5, length, 4, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3)
    )
    out_ZLD = BlockedAttention.apply(q_ZLD, k_ZLD, v_ZLD, 0.7, 0.2, is_causal)
    kept_ZLL = torch.zeros(5, length, length, dtype=torch.float64)
    for (heads, rows, keys), mask in zip(BlockedAttention.blocks(q_ZLD, is_causal), masks, strict=True):
        kept_ZLL[heads, rows, keys] = 1.25 * mask
    expected_ZLD = attend_plainly(q_ZLD, k_ZLD, v_ZLD, 0.7, kept_ZLL, is_causal)
    torch.testing.assert_close(out_ZLD, expected_ZLD)
    weight_ZLD = torch.randn(out_ZLD.shape, dtype=torch.float64, generator=generator)
    gradients = torch.autograd.grad((out_ZLD * weight_ZLD).sum(), (q_ZLD, k_ZLD, v_ZLD))
    expected = torch.autograd.grad((expected_ZLD * weight_ZLD).sum(), (q_ZLD, k_ZLD, v_ZLD))
    torch.testing.assert_close(gradients, expected)


def test_training_on_the_cpu_takes_the_blocked_way_and_is_right_on_average(monkeypatch):
    torch.manual_seed(0)
    calls = []
    blocked = kernels.blocked_attention
    monkeypatch.setattr(
        scratchgpt, "blocked_attention", lambda *args, **kwargs: calls.append(0) or blocked(*args, **kwargs)
    )
    fields = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 1, "num_key_value_heads": 3}
    model = ScratchGPTForCausalLM(ScratchGPTConfig(attention_dropout=0.2, initializer_range=0.3, **fields))
    attention, x_BLE = model.model.layers[0].self_attn, torch.randn(2, 9, 24)
    with torch.no_grad():
        expected_BLE = attention.eval()(x_BLE)[0]
        attention.train()
        average_BLE = torch.stack([attention(x_BLE)[0] for _ in range(3000)]).mean(0)
    assert len(calls) == 3000
    assert (average_BLE - expected_BLE).abs().max() < 0.05 * expected_BLE.abs().max()


def test_gradient_accumulation_adds_up():
    ids_BL = torch.randint(50, (4, 9))
    torch.manual_seed(0)
    model = ScratchGPTForCausalLM(ScratchGPTConfig(vocab_size=50, hidden_size=24, num_hidden_layers=1))
    parameters = list(model.parameters())
    whole = torch.autograd.grad(model(ids_BL, labels=ids_BL, skip_logits=True).loss, parameters)
    items = torch.tensor(4 * 8)
    for half_BL in ids_BL.split(2):
        model(half_BL, labels=half_BL, skip_logits=True, num_items_in_batch=items).loss.backward()
    torch.testing.assert_close([parameter.grad for parameter in parameters], list(whole), atol=1e-6, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_compiled_training_step_is_the_same():
    ids_BL, results = torch.randint(50, (2, 9)), []
    for backend in (None, "aot_eager"):
        torch.manual_seed(0)
        model = ScratchGPTForCausalLM(ScratchGPTConfig(vocab_size=50, hidden_size=24, num_hidden_layers=1))
        call = model if backend is None else torch.compile(model, backend=backend)
        loss = call(ids_BL, shift_labels=ids_BL, skip_logits=True).loss
        loss.backward()
        results.append([loss, *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(*results)
