"""Muon and the parameter groups."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling import ScratchGPTForCausalLM
from train.optimizer import Muon, build_optimizers, orthogonalize, set_learning_rate, step_scaled
from train.recipes import get_recipe


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(0, 99),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_orthogonalize_brings_singular_values_near_one(
    count: int, rows: int, columns: int, seed: int, dtype: torch.dtype
) -> None:
    matrices = torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(seed))
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    well_conditioned = u @ vh
    made = orthogonalize(well_conditioned.to(dtype))
    assert made.dtype == dtype
    values = torch.linalg.svdvals(made.float())
    assert values.min() > 0.6
    assert values.max() < 1.3
    alignment = (made * well_conditioned).sum() / well_conditioned.square().sum()
    assert alignment > 0.6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_muon_follows_torchs(dtype: torch.dtype) -> None:
    """torch.optim.Muon orthogonalises in bf16, so the two agree to bf16's precision."""
    torch.manual_seed(0)
    start = torch.randn(24, 16)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = [
        Muon([ours], lr=0.02, momentum=0.95, weight_decay=0.1, dtype=dtype),
        torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.1, nesterov=True),
    ]
    for _ in range(10):
        gradient = torch.randn(24, 16)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_matrices_of_one_shape_do_not_disturb_each_other() -> None:
    torch.manual_seed(1)
    together = [torch.nn.Parameter(torch.randn(6, 4)) for _ in range(3)]
    alone = [torch.nn.Parameter(parameter.detach().clone()) for parameter in together]
    for one, other in zip(together, alone, strict=True):
        one.grad = torch.randn(6, 4)
        other.grad = one.grad.clone()
    Muon(together, lr=0.1, momentum=0.9, weight_decay=0.0).step()
    for parameter in alone:
        Muon([parameter], lr=0.1, momentum=0.9, weight_decay=0.0).step()
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("name", ["scifi", "bookcorpus", "debug"])
def test_every_parameter_is_in_one_group_and_what_the_recipe_says_decays(name: str) -> None:
    recipe = get_recipe(name)
    model = ScratchGPTForCausalLM(replace(recipe.model, num_hidden_layers=2).build(vocab_size=300, end_of_text=0))
    optimizers = build_optimizers(model, recipe.optimizer)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = [
        (type(optimizer).__name__, group["weight_decay"], sorted(names[parameter] for parameter in group["params"]))
        for optimizer in optimizers
        for group in optimizer.param_groups
    ]
    members = [name for _, _, group in groups for name in group]
    assert sorted(members) == sorted(names.values())
    for kind, weight_decay, group in groups:
        for member in group:
            matrix = dict(model.named_parameters())[member].ndim == 2 and "embed_positions" not in member
            assert (weight_decay > 0) == (matrix or name == "scifi")
            assert (kind == "Muon") == (recipe.optimizer.name == "muon" and matrix and ".layers." in member)


def test_set_learning_rate_is_a_factor_of_the_peak() -> None:
    model = ScratchGPTForCausalLM(get_recipe("debug").model.build(vocab_size=300, end_of_text=0))
    optimizers = build_optimizers(model, get_recipe("debug").optimizer)
    for factor in (0.5, 0.1):
        set_learning_rate(optimizers, factor)
        rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
        assert rates == pytest.approx([3e-3 * factor, 3e-3 * factor, 0.02 * factor])


def test_scaled_steps_are_those_without_a_scale_and_an_overflow_moves_nothing() -> None:
    """fp16 with two optimizers; 65,536 is a power of two, so that dividing by it changes no bit."""

    def trained(scale: float, overflow_at: int | None = None) -> tuple[list[torch.Tensor], float]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
        first, second = (list(layer.parameters()) for layer in model)
        matrix, *others = second
        optimizers = [
            torch.optim.AdamW([*first, *others], lr=0.01),
            Muon([matrix], lr=0.02, momentum=0.95, weight_decay=0.1),
        ]
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for step in range(4):
            scaler.scale(model(torch.ones(2, 4) * (step + 1)).square().mean()).backward()
            if step == overflow_at:
                assert first[0].grad is not None
                first[0].grad[0, 0] = torch.inf
            for optimizer in optimizers:
                scaler.unscale_(optimizer)
            before = [weight.clone() for weight in model.parameters()]
            step_scaled(scaler, optimizers, torch.nn.utils.clip_grad_norm_(model.parameters(), torch.inf))
            moved = [not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)]
            assert moved == [step != overflow_at] * 4
            for optimizer in optimizers:
                optimizer.zero_grad()
        return list(model.parameters()), scaler.get_scale()

    plain, scaled = trained(1.0), trained(65536.0)
    assert all(torch.equal(*pair) for pair in zip(plain[0], scaled[0], strict=True))
    assert scaled[1] == 65536.0
    assert trained(65536.0, overflow_at=2)[1] == 32768.0  # halved once, not for each optimizer
