"""The loss without logits, against torch's own, and how many rows it takes at a time."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from train.numerics import linear_cross_entropy as chunked
from train.numerics.linear_cross_entropy import linear_cross_entropy


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunked, "CROSS_ENTROPY_ROWS", 3)


def draw_problem(rows: int, vocabulary: int, bias: bool, dtype: torch.dtype = torch.float64) -> Any:
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
    loss = linear_cross_entropy(*problem, items)  # pyright: ignore[reportCallIssue]
    inputs = [tensor for tensor in problem[:3] if tensor is not None]
    gradients = torch.autograd.grad(3.5 * loss, inputs)
    logits_NV = functional.linear(*problem[:3])
    reduction = "mean" if items is None else "sum"
    expected = functional.cross_entropy(logits_NV, problem[3], reduction=reduction) / (1 if items is None else 7)
    torch.testing.assert_close(loss, expected)
    for gradient, other in zip(gradients, torch.autograd.grad(3.5 * expected, inputs), strict=True):
        torch.testing.assert_close(gradient, other)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("vocabulary", [5, 16, 33])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-7), (torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_a_teacher_is_half_of_the_loss(small_chunks, bias, vocabulary, dtype, near):
    """Values and gradients are those of both cross-entropies written out; the teacher gets no gradient."""
    x_NE, weight_VE, bias_V, target_N = draw_problem(10, vocabulary, bias)
    generator = torch.Generator().manual_seed(1)
    taught_NE, taught_VE = (torch.randn(rows, 6, dtype=torch.float64, generator=generator) for rows in (10, vocabulary))
    taught_V = torch.randn(vocabulary, dtype=torch.float64, generator=generator) if bias else None
    given = [None if tensor is None else tensor.to(dtype) for tensor in (x_NE, weight_VE, bias_V)]
    teacher = (taught_NE.to(dtype), taught_VE.to(dtype), None if taught_V is None else taught_V.to(dtype))
    loss = linear_cross_entropy(given[0], given[1], given[2], target_N, 7, teacher)  # pyright: ignore[reportArgumentType]
    log_NV = functional.linear(x_NE, weight_VE, bias_V).log_softmax(-1)
    taught_NV = functional.linear(taught_NE, taught_VE, taught_V).softmax(-1)
    counted = target_N != -100
    of_text = functional.nll_loss(log_NV, target_N, reduction="sum")
    expected = (of_text - (taught_NV * log_NV)[counted].sum()) / 14
    torch.testing.assert_close(loss.double(), expected, atol=near, rtol=near)
    inputs = [tensor for tensor in (x_NE, weight_VE, bias_V) if tensor is not None]
    gradients = torch.autograd.grad(loss, inputs)
    for gradient, other in zip(gradients, torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(gradient, other, atol=near, rtol=near)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 40),
    vocabulary=st.integers(2, 70),
    chunk=st.integers(1, 41),
    bias=st.booleans(),
    ignored=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_linear_cross_entropy_is_torchs_in_single_precision(rows, vocabulary, chunk, bias, ignored, seed):
    x_NE, weight_VE, bias_V, target_N = draw_problem(rows, vocabulary, bias, torch.float32)
    target_N = torch.where(torch.rand(rows, generator=torch.Generator().manual_seed(seed)) < ignored, -100, target_N)
    inputs = [tensor for tensor in (x_NE, weight_VE, bias_V) if tensor is not None]
    expected = functional.cross_entropy(functional.linear(x_NE, weight_VE, bias_V), target_N, reduction="sum") / 9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "CROSS_ENTROPY_ROWS", chunk)
        loss = linear_cross_entropy(x_NE, weight_VE, bias_V, target_N, 9)
    gradients = [torch.autograd.grad(each, inputs) for each in (loss, expected)]
    torch.testing.assert_close([loss, *gradients[0]], [expected, *gradients[1]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("vocabulary", "chunks"), [(8257, 1), (30_000, 3), (70_000, 7)])
def test_a_large_vocabulary_has_the_logits_of_fewer_tokens_at_a_time(monkeypatch, vocabulary, chunks):
    """About four million; up to the vocabulary of the science-fiction recipe as many tokens as ever."""
    problem, sizes, product = draw_problem(400, vocabulary, False, torch.float32), [], torch.mm
    expected = functional.cross_entropy(functional.linear(*problem[:3]), problem[3])
    monkeypatch.setattr(torch, "mm", lambda x, w, out: sizes.append(len(x)) or product(x, w, out=out))
    loss = linear_cross_entropy(*problem)
    assert len(sizes) == chunks
    assert max(sizes) * vocabulary < 2**22 + 64 * vocabulary
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("device", "rows", "vocabulary", "expected"),
    [
        ("cpu", 65_536, 8257, 512),  # its caches
        ("cpu", 65_536, 28_144, 192),
        ("cpu", 65_536, 500_000, 64),
        ("cpu", 100, 8257, 100),
        ("cpu", 0, 8257, 1),
        ("mps", 65_536, 28_144, 512),
        ("cuda", 65_536, 8257, 7296),  # nine chunks
        ("cuda", 65_536, 28_144, 2304),
        ("cuda", 16_384, 32_768, 2048),
        ("cuda", 65_536, 1000, 65_536),
        ("cuda", 65_536, 10_000_000, 128),
        ("cuda", 100, 8257, 100),
        ("cuda", 0, 8257, 1),
    ],
)
def test_rows_of_a_chunk_by_device(device, rows, vocabulary, expected):
    assert chunked.cross_entropy_rows(rows, vocabulary, device) == expected


@given(rows=st.integers(0, 10**6), vocabulary=st.integers(1, 10**6))
def test_chunks_on_cuda_are_few_and_fit(rows, vocabulary):
    count = chunked.cross_entropy_rows(rows, vocabulary, "cuda")
    assert 1 <= count <= max(1, rows)
    assert count * vocabulary <= max(2**26, 128 * vocabulary)
    assert math.ceil(rows / count) <= math.ceil(rows / max(128, 2**26 // vocabulary - 127))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_teacher", [False, True])
def test_the_rows_of_a_chunk_do_not_change_loss_and_gradients(monkeypatch, dtype, with_teacher):
    """As on the CPU, and as on CUDA with memory for one, three and all of 300 rows."""
    *problem, target_N = (tensor.detach() for tensor in draw_problem(300, 33, True, torch.float32))
    generator = torch.Generator().manual_seed(2)
    teacher = (torch.randn(300, 5, generator=generator), torch.randn(33, 5, generator=generator), None)
    choose, results, sizes = chunked.cross_entropy_rows, [], []
    monkeypatch.setattr(chunked, "CROSS_ENTROPY_CUDA_UNIT", 8)
    for device, logits in [("cpu", 2**26), ("cuda", 1), ("cuda", 100 * 33), ("cuda", 2**26)]:
        monkeypatch.setattr(chunked, "CROSS_ENTROPY_CUDA_LOGITS", logits)

        def chosen(rows: int, vocabulary: int, _: str, device: str = device) -> int:
            sizes.append(choose(rows, vocabulary, device))
            return sizes[-1]

        monkeypatch.setattr(chunked, "cross_entropy_rows", chosen)
        inputs = [tensor.clone().requires_grad_() for tensor in problem]
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = linear_cross_entropy(inputs[0], inputs[1], inputs[2], target_N, 7, teacher if with_teacher else None)
        results.append([loss, *torch.autograd.grad(loss, inputs)])
    assert sizes == [300, 8, 80, 300]
    near = 1e-5 if dtype == torch.float32 else 2e-2
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], atol=near, rtol=near)


def test_linear_cross_entropy_passes_gradcheck(small_chunks):
    *inputs, target_N = draw_problem(7, 6, True)
    assert torch.autograd.gradcheck(
        lambda x, weight, bias: linear_cross_entropy(x, weight, bias, target_N), tuple(inputs)
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
    loss = linear_cross_entropy(*halves, problem[3])  # pyright: ignore[reportCallIssue]
    loss.backward()
    assert loss.dtype == torch.float32
    assert [half.grad.dtype for half in halves] == [dtype] * 3
    torch.testing.assert_close(loss, expected, atol=2e-2, rtol=2e-2)
