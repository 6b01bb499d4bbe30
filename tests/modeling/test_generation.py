"""Streaming generation: its tokens against transformers' `generate`, its window, and the ways it ends."""

import math
import threading
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import T5Config, T5ForConditionalGeneration

from modeling.cache_decoder import CacheDecoder
from modeling.fast_decoder import FastDecoder
from modeling.generation import SamplingSettings, prefix_ids, start_ids, stream
from modeling.loading import context_length
from tests.modeling import models
from tests.modeling.models import CONTEXT, VOCABULARY, generate

PROMPT = [3, 1, 4, 1, 5]
GREEDY = SamplingSettings(temperature=0, max_new_tokens=10)
ALL = [models.scratchgpt, models.modern, models.gpt2, models.qwen3, models.bloom, models.mamba, models.first_gpt]
LIMITED = [models.scratchgpt, models.modern, models.gpt2, models.qwen3]


def tokens(model, prompt, choices, **options) -> list[int]:
    return [step.token_id for step in stream(model, prompt, choices, **options)]


@pytest.fixture
def reads(monkeypatch) -> list[tuple[type, int]]:
    """The decoder and the number of tokens of each pass."""
    found = []
    for kind in (FastDecoder, CacheDecoder):

        def read(self, token_ids, kind=kind, inner=kind.read):
            found.append((kind, len(token_ids)))
            return inner(self, token_ids)

        monkeypatch.setattr(kind, "read", read)
    return found


@pytest.mark.parametrize("make", ALL)
def test_greedy_tokens_are_those_of_generate(make):
    model = make()
    assert tokens(model, PROMPT, GREEDY) == generate(model, PROMPT, 10)


@pytest.mark.parametrize("make", LIMITED)
def test_greedy_with_penalty_up_to_the_full_context(make):
    model = make()
    count = CONTEXT - len(PROMPT) + 1
    choices = SamplingSettings(temperature=0, max_new_tokens=count, repetition_penalty=1.7)
    # generate feeds no token past the context either: the last one is made from exactly CONTEXT tokens.
    assert tokens(model, PROMPT, choices) == generate(model, PROMPT, count, repetition_penalty=1.7)


@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_past_learned_positions_says_so_and_the_decoder_slides(use_cache):
    model = models.scratchgpt()
    with pytest.raises(ValueError, match=rf"reaches position {CONTEXT + 1}, but this model has learned positions for"):
        generate(model, PROMPT, CONTEXT, use_cache=use_cache)
    assert len(tokens(model, PROMPT, SamplingSettings(max_new_tokens=CONTEXT, seed=1))) == CONTEXT


@pytest.mark.parametrize("make", [models.scratchgpt, models.modern])
@pytest.mark.parametrize(
    "choices",
    [
        {"temperature": 0.0},
        {"temperature": 0.8, "top_k": 9, "top_p": 0.9},
        {"temperature": 1.3, "min_p": 0.05, "repetition_penalty": 1.2},
    ],
)
def test_both_decoders_agree_far_past_the_context(make, choices, reads):
    model, options = make(), SamplingSettings(**choices, max_new_tokens=3 * CONTEXT, seed=5)
    fast = list(stream(model, PROMPT, options, alternatives=3))
    assert {kind for kind, _ in reads} == {FastDecoder}
    reads.clear()
    model.register_forward_hook(lambda *_: None)  # a model with a hook needs its own forward
    own = list(stream(model, PROMPT, options, alternatives=3))
    assert {kind for kind, _ in reads} == {CacheDecoder}
    assert [step.token_id for step in fast] == [step.token_id for step in own]
    for one, other in zip(fast, own, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-4)
        assert one.model_probability == pytest.approx(other.model_probability, abs=1e-4)
        assert (one.position, one.context_used, one.kept) == (other.position, other.context_used, other.kept)
        assert [a.token_id for a in one.alternatives] == [a.token_id for a in other.alternatives]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    positions=st.sampled_from(["learned", "sinusoidal", "rope"]),
    context=st.integers(1, 7),
    prompt=st.lists(st.integers(0, VOCABULARY - 1), max_size=9),
    seed=st.integers(0, 2**63 - 1),
)
def test_the_window_slides_as_documented(positions, context, prompt, seed):
    model = models.scratchgpt(position_embedding=positions, max_position_embeddings=context, head_dim=4)
    choices = SamplingSettings(max_new_tokens=3 * context + 2, temperature=0.9, seed=seed)
    steps = list(stream(model, prompt, choices))
    window = (prompt or [30])[-context:]
    for index, step in enumerate(steps):
        assert step.position == len(prompt or [30]) + index
        assert step.context_used == len(window) <= context
        with torch.inference_mode():
            model_V = model(torch.tensor([window])).logits[0, -1].softmax(-1)
        assert step.model_probability == pytest.approx(model_V[step.token_id].item(), abs=1e-4)
        window = [*window, step.token_id]
        if len(window) > context:
            window = window[-max(1, context // 2) :]
    assert len(steps) == choices.max_new_tokens
    assert steps == list(stream(model, prompt, choices))


@pytest.mark.parametrize("make", LIMITED)
def test_a_prompt_longer_than_the_context_is_cut_on_the_left(make):
    model = make()
    long = [(7 * i) % VOCABULARY for i in range(3 * CONTEXT)]
    assert tokens(model, long, GREEDY) == tokens(model, long[-CONTEXT:], GREEDY)
    assert next(stream(model, long, GREEDY)).position == len(long)


def test_a_model_without_a_limit_never_slides():
    model = models.bloom()
    assert context_length(model) is None
    steps = list(stream(model, PROMPT, SamplingSettings(temperature=0, max_new_tokens=40)))
    assert [step.context_used for step in steps] == list(range(len(PROMPT), len(PROMPT) + 40))


@pytest.mark.parametrize("make", [models.scratchgpt, models.gpt2])
def test_an_empty_prompt_starts_from_bos(make):
    model = make()
    assert tokens(model, [], GREEDY) == tokens(model, [30], GREEDY)


def test_an_empty_prompt_without_bos_is_an_error():
    with pytest.raises(ValueError, match=r"the prompt is empty and this model has no bos token .*give a prompt"):
        stream(models.qwen3(), [], GREEDY)


class Tokenizer:
    """What `start_ids` asks of a tokenizer."""

    def __init__(self, bos: int | None = None, eos: int | None = None, special: tuple[int, ...] = (), adds: int = 0):
        self.bos_token_id, self.eos_token_id = bos, eos
        self.all_special_ids = [*special, *(token for token in (bos, eos) if token is not None)]
        self.added = [bos, eos][:adds]

    def __call__(self, text: str) -> dict[str, list[int | None]]:
        return {"input_ids": self.added}


@pytest.mark.parametrize(
    ("make", "tokenizer", "start", "prefix"),
    [
        (
            models.scratchgpt,
            Tokenizer(bos=2, eos=3),
            (30,),
            (30,),
        ),  # ours: the separator of the shards
        (lambda: models.scratchgpt(bos_token_id=None), Tokenizer(eos=3), (3,), (3,)),
        (models.gpt2, Tokenizer(bos=30, eos=30), (30,), ()),  # GPT-2's tokenizer adds nothing to a prompt
        (models.gpt2, Tokenizer(bos=2, eos=3, adds=1), (2,), (2,)),  # Llama's does
        (
            models.gpt2,
            Tokenizer(eos=3, special=(30,)),
            (30,),
            (),
        ),  # Qwen: bos of the model alone
        (models.gpt2, Tokenizer(eos=3), (3,), ()),  # the model's bos, a default, means an ordinary token here
        (models.gpt2, Tokenizer(), (30,), ()),
        (models.qwen3, Tokenizer(), (), ()),
        (lambda: models.gpt2(bos_token_id=50256), Tokenizer(), (), ()),  # GPT2Config's default
    ],
)
def test_what_precedes_a_text(make, tokenizer, start, prefix):
    model = make()
    assert start_ids(model, tokenizer) == start
    assert prefix_ids(model, tokenizer) == prefix


@pytest.mark.parametrize("bad", [-1, VOCABULARY])
def test_a_token_id_of_another_tokenizer_is_an_error(bad):
    with pytest.raises(ValueError, match=f"expected token ids from 0 to {VOCABULARY - 1}, got {bad}"):
        stream(models.scratchgpt(), [1, bad], GREEDY)


def test_training_mode_is_an_error():
    with pytest.raises(ValueError, match=r"got one in training mode: call model\.eval\(\) first"):
        stream(models.gpt2().train(), PROMPT, GREEDY)


def test_a_model_with_an_encoder_is_an_error():
    config = T5Config(vocab_size=VOCABULARY, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(ValueError, match="expected a causal language model, got T5ForConditionalGeneration"):
        stream(T5ForConditionalGeneration(config).eval(), PROMPT, GREEDY)


def test_broken_weights_are_an_error():
    model = models.scratchgpt()
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    with pytest.raises(ValueError, match="the weights are broken"):
        next(stream(model, PROMPT, GREEDY))


def ending(generator) -> tuple[list[int], str]:
    """The tokens, and why they ended."""
    ids = []
    while True:
        try:
            ids.append(next(generator).token_id)
        except StopIteration as stop:
            return ids, stop.value


@pytest.mark.parametrize("make", [models.scratchgpt, models.gpt2])
def test_a_stop_token_ends_the_text_unseen(make):
    model = make()
    ids, reason = ending(stream(model, PROMPT, GREEDY))
    assert (len(ids), reason) == (10, "length")
    cut = ids.index(ids[4])
    assert ending(stream(model, PROMPT, GREEDY, stop_token_ids=[ids[4]])) == (ids[:cut], "stop_token")


@pytest.mark.parametrize("make", [models.scratchgpt, models.gpt2])
def test_should_stop_and_the_deadline_come_between_tokens(make):
    model, asked = make(), []
    whole = tokens(model, PROMPT, GREEDY)
    stopped = ending(stream(model, PROMPT, GREEDY, should_stop=lambda: asked.append(1) or len(asked) > 3))
    assert stopped == (whole[:3], "stopped")
    late = stream(model, PROMPT, GREEDY, deadline=time.monotonic() + 3600)
    assert ending(late) == (whole, "length")
    assert ending(stream(model, PROMPT, GREEDY, deadline=time.monotonic())) == ([], "deadline")


LONG_CONTEXT = {
    "scratchgpt": lambda: models.scratchgpt(max_position_embeddings=300),
    "gpt2": lambda: models.gpt2(n_positions=300),
    "qwen3": lambda: models.qwen3(max_position_embeddings=300),
    "bloom": models.bloom,
}


@pytest.mark.parametrize("make", LONG_CONTEXT.values(), ids=LONG_CONTEXT)
def test_a_long_prompt_is_read_in_passes_between_which_it_can_stop(make, reads):
    model, prompt = make(), [(5 * i + 2) % VOCABULARY for i in range(290)]
    assert tokens(model, prompt, GREEDY) == generate(model, prompt, 10)
    assert [count for _, count in reads] == [256, 34] + [1] * 9
    reads.clear()
    asked = []
    generator = stream(model, prompt, GREEDY, should_stop=lambda: asked.append(1) or len(asked) > 1)
    assert ending(generator) == ([], "stopped")
    assert [count for _, count in reads] == [256]


@pytest.mark.parametrize("make", [models.scratchgpt, models.gpt2])
def test_closing_ends_the_computation(make, reads):
    generator = stream(make(), PROMPT, GREEDY)
    next(generator)
    next(generator)
    generator.close()
    assert [count for _, count in reads] == [len(PROMPT), 1]
    with pytest.raises(StopIteration):
        next(generator)


@pytest.mark.parametrize("make", [models.scratchgpt, models.gpt2])
def test_no_mode_is_held_between_tokens_and_any_thread_may_continue(make):
    model = make()
    whole = tokens(model, PROMPT, GREEDY)
    generator = stream(model, PROMPT, GREEDY)
    ids = []
    for _ in range(10):
        thread = threading.Thread(target=lambda: ids.append(next(generator).token_id))
        thread.start()
        thread.join()
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
    assert ids == whole


@pytest.mark.parametrize("make", [models.scratchgpt, models.gpt2])
def test_streams_of_one_model_do_not_touch_each_other(make):
    model = make()
    choices = [SamplingSettings(seed=seed, max_new_tokens=15, repetition_penalty=1.1) for seed in (1, 2)]
    alone = [tokens(model, PROMPT, choice) for choice in choices]
    both = zip(*(stream(model, PROMPT, choice) for choice in choices), strict=True)
    assert [list(ids) for ids in zip(*([step.token_id for step in pair] for pair in both), strict=True)] == alone
    assert alone[0] != alone[1]


def test_a_new_call_sees_new_weights():
    model = models.scratchgpt()
    before = tokens(model, PROMPT, GREEDY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data.copy_(torch.randn_like(parameter))
    after = tokens(model, PROMPT, GREEDY)
    assert after == generate(model, PROMPT, 10) != before


def test_surprisal_is_in_bits():
    step = next(stream(models.scratchgpt(), PROMPT, SamplingSettings(seed=0)))
    assert step.surprisal == pytest.approx(-math.log2(step.model_probability))
