"""The sampler against transformers' own logits processors, and its draws against their distribution."""

import math
import re
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from modeling import sampling
from modeling.sampling import Sampler, SamplingSettings

VOCABULARY = 40


def sampler_of(seen=(0,), vocab_size=VOCABULARY, **choices) -> Sampler:
    return Sampler(SamplingSettings(**choices), seen, vocab_size)


def transformers_distribution(logits_V, seen, choices: SamplingSettings) -> torch.Tensor:
    """What `generate` would draw from: its processors in its order, with its conditions for adding each."""
    processors = LogitsProcessorList()
    if choices.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(choices.repetition_penalty))
    if choices.temperature != 1:
        processors.append(TemperatureLogitsWarper(choices.temperature))
    if choices.top_k:
        processors.append(TopKLogitsWarper(choices.top_k))
    if choices.top_p < 1:
        processors.append(TopPLogitsWarper(choices.top_p))
    if choices.min_p > 0:
        processors.append(MinPLogitsWarper(choices.min_p))
    if choices.typical_p < 1:
        processors.append(TypicalLogitsWarper(choices.typical_p))
    return torch.softmax(processors(torch.LongTensor([seen]), logits_V[None].clone()), -1)[0]


# Logits on a coarse grid tie often; a little noise keeps others apart.
logit_lists = st.one_of(
    st.lists(st.integers(-4, 4).map(float), min_size=VOCABULARY, max_size=VOCABULARY),
    st.integers(0, 2**32).map(
        lambda seed: (4 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed))).tolist()
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    logits=logit_lists,
    seen=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=60),
    choices=st.builds(
        SamplingSettings,
        temperature=st.sampled_from([0.05, 0.7, 1.0, 1.5, 5.0]),
        top_k=st.sampled_from([0, 1, 2, 5, VOCABULARY - 1, VOCABULARY, 100]),
        top_p=st.sampled_from([0.0, 0.1037, 0.5019, 0.9013, 0.9907, 1.0]),
        min_p=st.sampled_from([0.0, 0.0513, 0.3017, 1.0]),
        typical_p=st.sampled_from([0.0113, 0.2071, 0.9017, 1.0, 1.0]),
        repetition_penalty=st.sampled_from([0.5, 1.0, 1.3, 4.0]),
    ),
    few_ranks=st.sampled_from([1, 4, 256]),
)
def test_distribution_is_that_of_transformers(logits, seen, choices, few_ranks):
    logits_V = torch.tensor(logits)
    with mock.patch.object(sampling, "FEW_RANKS", few_ranks):
        ours = Sampler(choices, seen, VOCABULARY).distribution(logits_V)
    theirs = transformers_distribution(logits_V, seen, choices)
    torch.testing.assert_close(ours.sort().values, theirs.sort().values, atol=1e-6, rtol=1e-4)
    # Which of several equally likely tokens top-p drops is chance in transformers, whose sort is not stable.
    if choices.top_p == 1 or len(set(logits)) == VOCABULARY:
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["top_p", "typical_p"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0])
def test_cuts_of_a_large_vocabulary(name, share, spread):
    logits_V = spread * torch.randn(8257, generator=torch.Generator().manual_seed(4))
    ours = sampler_of(vocab_size=8257, **{name: share}).distribution(logits_V)
    theirs = transformers_distribution(logits_V, [0], SamplingSettings(**{name: share}))
    # A token at the very border may fall either way: transformers adds up 8,257 probabilities in float32.
    assert ((ours > 0) != (theirs > 0)).sum() <= 8257 * 1e-3
    assert (ours - theirs).abs().sum() < 1e-3


def test_typical_may_drop_the_likeliest_token():
    logits_V = torch.tensor([0.35] + [0.65 / 26] * 26).log()
    kept_V = sampler_of(vocab_size=27, typical_p=0.5).distribution(logits_V)
    assert kept_V[0] == 0
    torch.testing.assert_close(kept_V[1:], torch.full((26,), 1 / 26))


def test_draws_follow_the_distribution():
    logits_V = torch.randn(12, generator=torch.Generator().manual_seed(0))
    sampler = sampler_of(vocab_size=12, temperature=0.8, top_k=7, typical_p=0.97, seed=1)
    count = 5_000
    drawn = torch.tensor([sampler.draw(logits_V).token_id for _ in range(count)]).bincount(minlength=12)
    expected = sampler.distribution(logits_V) * count
    kept = expected > 0
    assert drawn[~kept].sum() == 0
    chi_squared = ((drawn - expected)[kept] ** 2 / expected[kept]).sum().item()
    assert chi_squared < 22.5  # 6 degrees of freedom: exceeded once in a thousand seeds


def test_a_draw_tells_its_probabilities():
    logits_V = torch.tensor([1.0, 3.0, 2.0, -math.inf, 0.0])
    sampler = sampler_of(vocab_size=5, top_k=2, temperature=0.5, seed=0)
    model_V, after_V = torch.softmax(logits_V, -1), sampler.distribution(logits_V)
    draw = sampler.draw(logits_V, alternatives=3)
    assert draw.kept == 2
    assert draw.model_probability == pytest.approx(model_V[draw.token_id].item())
    assert draw.probability == pytest.approx(after_V[draw.token_id].item())
    assert [alternative.token_id for alternative in draw.alternatives] == [1, 2, 0]
    for token_id, before, after in draw.alternatives:
        assert before == pytest.approx(model_V[token_id].item())
        assert after == pytest.approx(after_V[token_id].item())
    assert draw.alternatives[2].probability == 0
    assert len(sampler.draw(logits_V, alternatives=99).alternatives) == 5
    assert sampler.draw(logits_V).alternatives == ()


@pytest.mark.parametrize(
    "choices", [{}, {"temperature": 0.7}, {"top_p": 0.8}, {"top_k": 5, "typical_p": 0.6}, {"min_p": 0.2}]
)
def test_a_draw_can_be_followed_along_the_line_of_its_candidates(choices):
    logits_V = torch.randn(40, generator=torch.Generator().manual_seed(3)) * 2
    for seed in range(20):
        sampler = sampler_of(vocab_size=40, seed=seed, **choices)
        ids_C, probability_C = sampler.candidates(logits_V)
        torch.testing.assert_close(sampler.distribution(logits_V)[ids_C], probability_C, atol=1e-6, rtol=1e-5)
        assert probability_C.sum().item() == pytest.approx(1, abs=1e-5)
        draw = sampler.draw(logits_V)
        place = ids_C.tolist().index(draw.token_id)
        before = probability_C[:place].double().sum().item()
        assert draw.uniform is not None
        assert before - 1e-6 <= draw.uniform < before + draw.probability + 1e-6
    greedy = sampler_of(vocab_size=40, temperature=0)
    assert [part.tolist() for part in greedy.candidates(logits_V)] == [[int(logits_V.argmax())], [1.0]]
    assert greedy.draw(logits_V).uniform is None


def test_greedy_takes_the_first_of_the_most_likely():
    draw = sampler_of(vocab_size=4, temperature=0).draw(torch.tensor([0.0, 2.0, 2.0, 1.0]), alternatives=2)
    assert (draw.token_id, draw.probability, draw.kept) == (1, 1.0, 1)
    assert sum(alternative.probability for alternative in draw.alternatives) == 1.0


def test_greedy_heeds_the_repetition_penalty_of_drawn_tokens():
    sampler = sampler_of(vocab_size=3, temperature=0, repetition_penalty=1.5)
    logits_V = torch.tensor([-1.0, 1.9, 2.0])
    assert [sampler.draw(logits_V).token_id for _ in range(3)] == [2, 1, 2]


@pytest.mark.parametrize("penalty", [0.5, 2.0])
def test_the_penalty_makes_every_seen_logit_smaller_or_every_one_larger(penalty):
    logits_V = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0, 0.5])
    expected_V = torch.tensor([-penalty, -0.5 * penalty, 0.0, 0.5 / penalty, 1 / penalty, 0.5])
    ours_V = sampler_of(seen=range(5), vocab_size=6, repetition_penalty=penalty).distribution(logits_V)
    torch.testing.assert_close(ours_V, torch.softmax(expected_V, -1))


@pytest.mark.parametrize("choices", [{}, {"top_k": 3}, {"top_k": 3, "min_p": 0}])
def test_a_share_of_one_drops_nothing_however_unlikely(choices):
    logits_V = torch.tensor([100.0, 1.0, 0.0, -1.0])
    draw = sampler_of(vocab_size=4, seed=1, top_p=1.0, **choices).draw(logits_V)
    assert draw.kept == choices.get("top_k", 4)


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    logits_V = torch.zeros(1000)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = (sampler_of(vocab_size=1000, seed=seed) for seed in (7, 7, 8))
    texts = [[sampler.draw(logits_V).token_id for _ in range(20)] for sampler in (one, same, other)]
    assert texts[0] == texts[1] != texts[2]
    fresh = [[sampler_of(vocab_size=1000).draw(logits_V).token_id for _ in range(5)] for _ in range(2)]
    assert fresh[0] != fresh[1]
    assert torch.equal(torch.get_rng_state(), state)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), noise_seed=st.integers(0, 1000))
def test_rounding_in_the_logits_hardly_ever_changes_the_token(seed, noise_seed):
    generator = torch.Generator().manual_seed(noise_seed)
    logits_V = torch.randn(200, generator=generator)
    nudged_V = logits_V + 1e-7 * torch.randn(200, generator=generator)
    drawn = [sampler_of(vocab_size=200, seed=seed, temperature=0.9).draw(x_V).token_id for x_V in (logits_V, nudged_V)]
    assert abs(drawn[0] - drawn[1]) <= 1


def test_every_token_uses_up_one_random_number():
    logits_V = torch.zeros(1000)
    narrow, wide = sampler_of(vocab_size=1000, seed=4, top_k=1), sampler_of(vocab_size=1000, seed=4)
    certain_V = torch.zeros(1000).index_fill(0, torch.tensor([8]), 9.0)
    for _ in range(3):
        assert narrow.draw(certain_V).token_id == 8
        wide.draw(logits_V)
    assert torch.equal(narrow.generator.get_state(), wide.generator.get_state())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_are_an_error(bad, temperature):
    logits_V = torch.zeros(10)
    logits_V[3] = bad
    with pytest.raises(ValueError, match="expected finite logits, got NaN or infinity"):
        sampler_of(vocab_size=10, temperature=temperature).draw(logits_V)


def test_all_tokens_forbidden_is_an_error():
    with pytest.raises(ValueError, match="no token can be drawn"):
        sampler_of(vocab_size=10).draw(torch.full((10,), -math.inf))


def test_a_tiny_temperature_does_not_overflow():
    draw = sampler_of(vocab_size=3, temperature=1e-300, seed=0).draw(torch.tensor([1e30, 2e30, -1e30]))
    assert (draw.token_id, draw.probability) == (1, 1.0)


def test_low_precision_logits_are_drawn_from_in_float32():
    logits_V = torch.randn(50, generator=torch.Generator().manual_seed(2)).bfloat16()
    one, other = (sampler_of(vocab_size=50, seed=3) for _ in range(2))
    assert one.draw(logits_V) == other.draw(logits_V.float())


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("max_new_tokens", 0, "a whole number, 1 or more"),
        ("temperature", math.nan, "a number, 0 (greedy) or more"),
        ("temperature", "hot", "a number, 0 (greedy) or more"),
        ("top_k", True, "a whole number, 0 (keeps all) or more"),
        ("top_p", 1.1, "a number from 0 to 1 (keeps all)"),
        ("min_p", -0.2, "a number from 0 (keeps all) to 1"),
        ("typical_p", 0, "a number from 0.001 to 1 (keeps all)"),
        ("repetition_penalty", None, "a number from 0.01 to 100 (1 is off)"),
        ("seed", 2**63, "a whole number from 0 to 2**63 - 1, or None"),
    ],
)
def test_settings_out_of_range_say_what_was_expected(field, value, expected):
    message = f"{field}: expected {expected}, got {value!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SamplingSettings(**{field: value})


def test_the_settings_that_nobody_chose():
    assert SamplingSettings() == SamplingSettings(
        max_new_tokens=200,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        min_p=0.0,
        typical_p=1.0,
        repetition_penalty=1.0,
        seed=None,
    )


@pytest.mark.parametrize(
    ("field", "fine", "refused"),
    [
        ("max_new_tokens", [1, 10**9], [0, 1.5, True]),
        ("temperature", [0, 1e9], [-1e-9, math.inf, False]),
        ("top_k", [0, 10**9], [-1, 1.5]),
        ("top_p", [0, 1], [-1e-9, 1 + 1e-9]),
        ("min_p", [0, 1], [-1e-9, 1 + 1e-9]),
        ("typical_p", [0.001, 1], [0.00099, 1 + 1e-9]),
        ("repetition_penalty", [0.01, 100], [0.0099, 100.01]),
        ("seed", [None, 0, 2**63 - 1], [-1, 2**63, 1.5]),
    ],
)
def test_the_borders_of_each_setting(field, fine, refused):
    for value in fine:
        assert getattr(SamplingSettings(**{field: value}), field) == value
    for value in refused:
        with pytest.raises(ValueError, match=f"^{field}: expected "):
            SamplingSettings(**{field: value})
