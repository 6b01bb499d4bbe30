"""Passes in threads: the gradients of one pass, the same bits each time, and errors that wait for all."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM
from train.data.batches import Batch
from train.kernels import CpuDropout, seed_dropout, use_kernels
from train.objective import ModelWithLoss, mean_loss
from train.optimizer import Muon
from train.pacing.data_parallel import add_gradients, in_threads, thread_count


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def make_model(*, masked: bool = False, **fields: object) -> ModelWithLoss:
    torch.manual_seed(0)
    config = ScratchGPTConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
        max_position_embeddings=16, **fields,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    model = (ScratchGPTForMaskedLM if masked else ScratchGPTForCausalLM)(config)
    use_kernels(model, "cpu")
    return ModelWithLoss(model).train()


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
