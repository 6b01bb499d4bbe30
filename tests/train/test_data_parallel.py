"""Passes in threads: the gradients of one pass, the same bits each time, and errors that wait for all."""

import copy
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import accumulation
from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM
from modeling.sizing import activation_bytes
from tests.modeling.families import GROUPED as MODERN
from train.config import DataConfig
from train.data.batches import Batch
from train.kernels import CpuDropout, seed_dropout, use_kernels
from train.objective import ModelWithLoss, mean_loss
from train.optimizer import Muon
from train.pacing import data_parallel
from train.pacing.data_parallel import _GradientSum, add_gradients, in_threads, thread_count, windows_at_a_time


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def make_model(*, masked: bool = False, teacher: Any = None, **fields: object) -> ModelWithLoss:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = ScratchGPTConfig(**shape | {"intermediate_size": 40, "max_position_embeddings": 16} | fields)
    model = (ScratchGPTForMaskedLM if masked else ScratchGPTForCausalLM)(config)
    use_kernels(model, "cpu")
    return ModelWithLoss(model, teacher).train()


def draw(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    input_BL, target_BL = (torch.randint(50, (rows, 9), generator=generator) for _ in range(2))
    target_BL[torch.rand(target_BL.shape, generator=generator) < 0.3] = -100
    target_BL[0] = -100  # a part without a target
    return input_BL, target_BL


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_the_gradients_are_those_of_one_pass(three_threads: None, threads: int, masked: bool) -> None:
    model, (input_BL, target_BL) = make_model(masked=masked), draw(5)
    divisor = (target_BL != -100).sum().float()
    frozen = next(parameter for name, parameter in model.named_parameters() if name.endswith("up_proj.weight"))
    frozen.requires_grad_(False)
    expected = model(input_BL, target_BL, num_items_in_batch=divisor)
    expected.backward()
    whole = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    add_gradients(model, input_BL, target_BL, divisor, threads)
    loss = add_gradients(model, input_BL, target_BL, divisor, threads)  # on top of the first
    torch.testing.assert_close(loss, expected.detach())
    assert frozen.grad is None
    for parameter, gradient in zip(model.parameters(), whole, strict=True):
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, 2 * gradient, atol=1e-6, rtol=1e-5)
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("taught", [False, True], ids=["alone", "teacher"])
@pytest.mark.parametrize("family", [{}, MODERN], ids=["classic", "modern"])
def test_the_gradients_of_threads_in_each_family_and_precision(
    three_threads: None, family: dict[str, Any], taught: bool, autocast: bool
) -> None:
    """Two micro-batches in two threads against one pass in float64; bf16 keeps 8 bits of each value."""
    fields: dict[str, Any] = family | {"initializer_range": 0.2}
    narrow: dict[str, Any] = fields | {"hidden_size": 16}
    teacher = make_model(**narrow).model.eval().requires_grad_(False) if taught else None
    model, exact = (make_model(teacher=given, **fields) for given in (teacher, copy.deepcopy(teacher)))
    exact.double()
    if taught:
        exact.teacher[0].double()
    input_BL, target_BL = draw(6)
    divisor = (target_BL != -100).sum().float()
    expected = exact(input_BL, target_BL, num_items_in_batch=divisor)
    expected.backward()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False):
        losses = [
            add_gradients(model, *rows, divisor, 2) for rows in zip(input_BL.split(3), target_BL.split(3), strict=True)
        ]
    near, pairs = 0.1 if autocast else 1e-5, []
    for ours, reference in zip(model.parameters(), exact.parameters(), strict=True):
        assert ours.grad is not None
        assert reference.grad is not None
        pairs.append((ours.grad, reference.grad))
    whole = sum(float(reference.norm()) ** 2 for _, reference in pairs) ** 0.5
    torch.testing.assert_close(sum(losses).double(), expected.detach(), atol=near, rtol=near)  # pyright: ignore
    for gradient, reference in pairs:
        assert (gradient - reference).norm() <= near * (reference.norm() + 0.01 * whole)


def test_gradients_are_added_in_the_order_of_the_windows_as_soon_as_they_are_there() -> None:
    """What is added never waits for the end of the passes, and the sum is a tensor of its own."""
    weights = [torch.nn.Parameter(torch.zeros(3)) for _ in range(3)]
    added = _GradientSum(weights)
    with added.hooks():
        for number in (1, 0, 2):  # the second pass is the first to end
            added.add_pass(number, (weights[0] * 10.0**number).sum() + (weights[1] if number else weights[0]).sum())
            assert [len(each) for each in added.waiting] == [number == 1] * 3
    assert weights[0].grad is not None
    assert weights[0].grad.tolist() == [112.0] * 3
    assert weights[1].grad is not None
    assert weights[1].grad.tolist() == [2.0] * 3
    assert weights[1].grad.stride() == (1,)
    assert weights[2].grad is None
    weights[0].sum().backward()  # and the hooks are gone
    assert weights[0].grad.tolist() == [113.0] * 3


def test_the_windows_at_a_time_are_those_that_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU; a GPU and other processes compute what was asked for."""
    shape = ScratchGPTConfig(vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=2)

    def windows(micro_batches: int, *, device: str = "cpu", processes: int = 1, room: float = 100) -> int:
        monkeypatch.setattr(data_parallel, "ACTIVATIONS", int(room * activation_bytes(shape, 16, 4)))
        given = SimpleNamespace(device=torch.device(device), num_processes=processes, mixed_precision="no")
        data = DataConfig(batch_size=32, gradient_accumulation_steps=micro_batches)
        return windows_at_a_time(given, shape, data, 16)

    assert [windows(micro_batches) for micro_batches in (1, 2, 8, 32)] == [32] * 4
    assert [windows(8, device="cuda"), windows(8, processes=2)] == [4, 4]
    assert [windows(micro_batches, room=15) for micro_batches in (1, 2, 8, 32)] == [11] * 4  # 11, 11 and 10
    assert [windows(micro_batches, room=0.5) for micro_batches in (1, 2, 8, 16, 32)] == [4, 4, 4, 2, 1]


def test_the_benchmark_of_accumulation_runs() -> None:
    found = accumulation.run(recipes=["debug"], rounds=1)["debug"]
    assert found["seconds"] > 0
    assert {name: each["computed"] for name, each in found.items() if "micro" in name} == {
        f"{count} micro-batches": 16 for count in (2, 4, 8)
    }
    assert all(found[f"{count} micro-batches"]["apart"] > 0 for count in (2, 4, 8))


def test_dropout_of_the_same_seed_is_the_same_in_every_thread(three_threads: None) -> None:
    model, (input_BL, target_BL) = make_model(residual_dropout=0.3, attention_dropout=0.3), draw(6)

    def gradients(seed: int) -> list[torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(seed)
        add_gradients(model, input_BL, target_BL, torch.tensor(50.0), 3)
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    first = gradients(1)
    for _ in range(5):
        assert all(map(torch.equal, gradients(1), first))
    assert not any(map(torch.equal, gradients(2), first))


def test_each_part_draws_a_dropout_of_its_own() -> None:
    """And torch's own random numbers stay where they were."""
    dropout, state, drawn = CpuDropout(0.5), torch.get_rng_state(), []
    for seed in (1, 1, 2):
        with seed_dropout(seed):
            drawn.append(dropout(torch.ones(1000)))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(0)
    first = dropout(torch.ones(1000))
    assert not torch.equal(first, dropout(torch.ones(1000)))


def test_a_mean_loss_is_the_same_in_threads(three_threads: None) -> None:
    model, (input_BL, target_BL) = make_model(), draw(7)
    batches = [Batch(*rows) for rows in zip(input_BL.split(2), target_BL.split(2), strict=True)]
    in_three = mean_loss(model, batches, torch.device("cpu"))
    torch.set_num_threads(1)
    assert mean_loss(model, batches, torch.device("cpu")) == in_three
    assert mean_loss(model, [], torch.device("cpu")) == 0
    assert model.training


def test_muon_does_the_same_in_threads(three_threads: None) -> None:
    torch.manual_seed(0)
    starts = [torch.randn(shape) for shape in ((6, 4), (4, 4), (6, 4), (6, 4), (3, 8))]
    results = []
    for threads in (3, 1):
        torch.set_num_threads(threads)
        parameters = [torch.nn.Parameter(start.clone()) for start in starts]
        optimizer = Muon(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
        for step in range(3):
            for parameter, start in zip(parameters, starts, strict=True):
                parameter.grad = start.roll(step, 0)
            optimizer.step()
        results.append(parameters)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_error_waits_for_those_that_began_and_no_other_begins(three_threads: None) -> None:
    begun, ended, all_began = [], [], threading.Barrier(3, timeout=10)

    def work(number: int) -> int:
        begun.append(number)
        if number < 3:
            all_began.wait()
        if number == 0:
            raise RuntimeError("out of memory")
        time.sleep(0.05)
        ended.append(number)
        return number

    with pytest.raises(RuntimeError, match="out of memory"):
        in_threads(work, range(100), 3)
    assert sorted(begun) == sorted([0, *ended])
    assert {1, 2} <= {*ended}
    assert len(begun) < 10
    assert torch.get_num_threads() == 3


def test_a_thread_computes_as_the_caller_does(three_threads: None) -> None:
    def state(_: int) -> tuple[Any, ...]:
        enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        return torch.is_grad_enabled(), enabled, dtype, torch.get_num_threads(), threading.current_thread().name

    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        found = in_threads(state, range(6), 3)
    assert {each[:4] for each in found} == {(False, True, torch.float16, 1)}
    assert all(each[4].startswith("data-parallel") for each in found)
    assert in_threads(state, [0], 1)[0][:2] == (True, False)


def test_no_more_threads_than_parts(three_threads: None) -> None:
    assert [thread_count(parts) for parts in (0, 1, 2, 3, 100)] == [1, 1, 2, 3, 3]
    torch.set_num_threads(16)
    assert thread_count(100) == 4
    assert thread_count(100, 124_000_000) == 2  # GPT-2's gradients
    assert thread_count(100, 10**10) == 1


def test_the_threads_of_operations_are_shared_out(three_threads: None) -> None:
    """None is left over: 7 are 3, 2 and 2."""
    torch.set_num_threads(7)
    assert in_threads(lambda _: torch.get_num_threads(), range(6), 3) == [3, 2, 2] * 2
    assert torch.get_num_threads() == 7
