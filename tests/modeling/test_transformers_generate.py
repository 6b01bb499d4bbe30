"""transformers' `generate` and its relatives on our model, each against a plain reference."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import ContinuousBatchingConfig, QuantizedCache, StaticCache

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from tests.modeling.families import GROUPED as MODERN

VOCABULARY = 31
PAD = 0
NEW = 10
FAMILIES = {
    "classic": {},
    "modern": MODERN,
    "waves": {"position_embedding": "sinusoidal", "norm_position": "post"},
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def build(family: str, seed: int = 0, **fields: Any) -> Any:
    """A random model whose greedy text goes on without repeating itself at once."""
    torch.manual_seed(seed)
    defaults = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    defaults |= {"max_position_embeddings": 48, "initializer_range": 0.4, "pad_token_id": PAD, "bos_token_id": 1}
    model: Any = ScratchGPTForCausalLM(ScratchGPTConfig(**defaults | FAMILIES[family] | fields)).eval()
    model.generation_config.max_new_tokens = NEW
    return model


def draw_ids(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(2, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def write(model: Any, ids_BL: torch.Tensor, **options: Any) -> list[list[int]]:
    """The new tokens of `generate` with an all-ones mask."""
    mask_BL = options.pop("attention_mask", torch.ones_like(ids_BL))
    return model.generate(ids_BL, attention_mask=mask_BL, **options)[:, ids_BL.shape[1] :].tolist()


def reference(model: Any, ids_BL: torch.Tensor, count: int = NEW) -> list[list[int]]:
    """Greedy tokens, each from a forward pass over the whole text, without a cache."""
    length = ids_BL.shape[1]
    with torch.no_grad():
        for _ in range(count):
            logits_BV = model(ids_BL, use_cache=False).logits[:, -1]
            ids_BL = torch.cat((ids_BL, logits_BV.argmax(-1, keepdim=True)), 1)
    return ids_BL[:, length:].tolist()


def log_probability(model: Any, ids_BL: torch.Tensor, prompt: int) -> torch.Tensor:
    """Sum of the log-probabilities of the tokens after the prompt, for each row."""
    with torch.no_grad():
        log_BLV = model(ids_BL, use_cache=False).logits.log_softmax(-1)
    return log_BLV[:, prompt - 1 : -1].gather(-1, ids_BL[:, prompt:, None]).sum((1, 2))


@every_family
def test_greedy_with_and_without_a_cache(family):
    model, ids_BL = build(family), draw_ids(3, 7)
    expected = reference(model, ids_BL)
    assert len({tuple(row) for row in expected}) == 3
    for options in ({}, {"use_cache": False}, {"cache_implementation": "dynamic"}):
        assert write(model, ids_BL, do_sample=False, **options) == expected


@every_family
def test_greedy_with_a_static_cache(family):
    model, ids_BL = build(family), draw_ids(2, 7)
    options = {"cache_implementation": "static", "disable_compile": True}
    assert write(model, ids_BL, do_sample=False, **options) == reference(model, ids_BL)


@every_family
def test_a_quantized_cache_comes_close(family):
    """In 8-bit floating point, which torch has itself; the other backends are libraries of their own."""
    model, ids_BL = build(family, initializer_range=0.1), draw_ids(2, 30)
    cache = QuantizedCache(backend="fp8", config=model.config)
    with torch.no_grad():
        expected_BLV = model(ids_BL, use_cache=False).logits
        parts = [model(part_BL, past_key_values=cache).logits for part_BL in ids_BL.split([20, 1, 1, 8], 1)]
    assert cache.get_seq_length() == 30
    error_BLV = torch.cat(parts, 1) - expected_BLV
    assert 0 < error_BLV.std() < 0.05 * expected_BLV.std()
    options = {"cache_implementation": "quantized", "cache_config": {"backend": "fp8"}}
    assert [len(row) for row in write(model, ids_BL[:, :8], do_sample=False, **options)] == [NEW, NEW]


@every_family
def test_a_sample_is_the_same_with_and_without_a_cache(family):
    model, ids_BL = build(family), draw_ids(3, 5)
    samples = []
    for use_cache in (True, False):
        torch.manual_seed(7)
        samples.append(write(model, ids_BL, do_sample=True, temperature=0.9, top_p=0.95, top_k=20, use_cache=use_cache))
    assert samples[0] == samples[1]
    assert samples[0] != reference(model, ids_BL)


def test_samples_follow_the_distribution():
    model, ids_BL = build("modern", initializer_range=0.1), draw_ids(1, 5)
    torch.manual_seed(0)
    drawn = write(model, ids_BL.expand(4000, -1), do_sample=True, top_k=0, max_new_tokens=1)
    with torch.no_grad():
        expected_V = model(ids_BL).logits[0, -1].softmax(-1)
    counted_V = torch.bincount(torch.tensor(drawn).flatten(), minlength=VOCABULARY) / len(drawn)
    assert (counted_V - expected_V).abs().max() < 5 * (expected_V.max() / len(drawn)).sqrt()


@every_family
def test_a_beam_as_wide_as_the_vocabulary_finds_the_best(family):
    model, ids_BL = build(family, initializer_range=0.2), draw_ids(1, 4)
    pairs_NL = torch.cartesian_prod(torch.arange(VOCABULARY), torch.arange(VOCABULARY))
    every_NL = torch.cat((ids_BL.expand(len(pairs_NL), -1), pairs_NL), 1)
    best = every_NL[log_probability(model, every_NL, 4).argmax()].tolist()
    for use_cache in (True, False):
        found = write(model, ids_BL, num_beams=VOCABULARY, do_sample=False, max_new_tokens=2, use_cache=use_cache)
        assert found == [best[4:]]


@every_family
def test_a_beam_scores_what_it_returns(family):
    model, ids_BL = build(family, initializer_range=0.2), draw_ids(2, 6)
    options = {"num_beams": 4, "do_sample": False, "length_penalty": 0.0}
    answer = model.generate(
        ids_BL, attention_mask=torch.ones_like(ids_BL), return_dict_in_generate=True, output_scores=True, **options
    )
    torch.testing.assert_close(answer.sequences_scores, log_probability(model, answer.sequences, 6))
    greedy_BL = torch.cat((ids_BL, torch.tensor(reference(model, ids_BL))), 1)
    assert (answer.sequences_scores >= log_probability(model, greedy_BL, 6) - 1e-4).all()


@every_family
def test_prompt_lookup_changes_nothing(family):
    model, ids_BL = build(family), draw_ids(1, 6).repeat(1, 3)
    expected = reference(model, ids_BL, 24)
    assert write(model, ids_BL, prompt_lookup_num_tokens=4, do_sample=False, max_new_tokens=24) == expected


@every_family
@pytest.mark.parametrize("twin", [True, False], ids=["same weights", "other weights"])
def test_an_assistant_changes_nothing(family, twin):
    model, ids_BL = build(family), draw_ids(1, 8)
    assistant = copy.deepcopy(model) if twin else build(family, seed=5, num_hidden_layers=1)
    calls: list[int] = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    assert write(model, ids_BL, assistant_model=assistant, do_sample=False) == reference(build(family), ids_BL)
    assert (len(calls) < NEW) if twin else (len(calls) <= NEW + 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["classic", "modern"])
def test_continuous_batching_writes_what_each_prompt_alone_gets(family):
    model = build(family)
    prompts = [draw_ids(length, seed=length).tolist() for length in (3, 9, 5)]
    options = copy.deepcopy(model.generation_config)
    options.do_sample, options.eos_token_id = False, VOCABULARY - 1
    small = ContinuousBatchingConfig(num_blocks=16, page_size=16, max_batch_tokens=64)
    answers = model.generate_batch(
        inputs=prompts, generation_config=options, continuous_batching_config=small, warmup=False
    )
    for prompt, answer in zip(prompts, answers.values(), strict=True):
        expected = reference(model, torch.tensor([prompt]))[0]
        if VOCABULARY - 1 in expected:
            expected = expected[: expected.index(VOCABULARY - 1) + 1]
        assert answer.generated_tokens == expected


@every_family
@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"cache_implementation": "static"}], ids=str)
def test_a_padded_batch_writes_what_each_prompt_alone_gets(family, options):
    model = build(family)
    prompts = [draw_ids(1, length, seed=length) for length in (3, 9, 6)]
    batch_BL = torch.cat([nn.functional.pad(prompt, (9 - prompt.shape[1], 0), value=PAD) for prompt in prompts])
    padding = torch.tensor([[9 - prompt.shape[1]] for prompt in prompts])
    mask_BL = (torch.arange(9) >= padding).long()
    together = write(model, batch_BL, attention_mask=mask_BL, do_sample=False, disable_compile=True, **options)
    assert together == [reference(model, prompt)[0] for prompt in prompts]


@every_family
def test_positions_count_on_under_a_cache(family):
    """Rows of positions as the model uses them, prompt first: they neither begin again nor count the padding."""
    model = build(family)
    used: list[torch.Tensor] = []
    base = model.model
    embedding = getattr(base, {"classic": "embed_positions", "modern": "rotary_emb", "waves": "sinusoidal_emb"}[family])
    embedding.register_forward_pre_hook(lambda _, arguments: used.append(arguments[-1]))
    ids_BL, mask_BL = draw_ids(2, 6), torch.ones(2, 6, dtype=torch.long)
    mask_BL[0, :2] = 0
    write(model, ids_BL, attention_mask=mask_BL, do_sample=False, max_new_tokens=4)
    positions = torch.cat([step_BL.expand(2, -1) for step_BL in used], 1)
    assert positions[1].tolist() == list(range(9))
    assert positions[0, 2:].tolist() == list(range(7))
    used.clear()
    with torch.no_grad():
        cache = model(ids_BL, use_cache=True).past_key_values
        model(ids_BL[:, :2], past_key_values=cache)
        model(ids_BL[:, :1], past_key_values=cache)
    assert [step_BL[0].tolist() for step_BL in used] == [[0, 1, 2, 3, 4, 5], [6, 7], [8]]


def compiled_steps(model: Any, ids_BL: torch.Tensor, steps: int, backend: str) -> tuple[list[torch.Tensor], int]:
    """Greedy logits of a compiled model, token by token over a static cache, and how often it was compiled."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    compiled: Any = torch.compile(model, fullgraph=True, backend=counter)
    cache, logits = StaticCache(model.config, max_cache_len=32), []
    with torch.no_grad():
        out_BV = model(ids_BL, past_key_values=cache).logits[:, -1]
        for _ in range(steps):
            logits.append(out_BV)
            out_BV = compiled(out_BV.argmax(-1, keepdim=True), past_key_values=cache).logits[:, -1]
    return logits, counter.frame_count


def check_compiled(family: str, backend: str) -> None:
    model, ids_BL = build(family), draw_ids(2, 7)
    logits, compilations = compiled_steps(model, ids_BL, NEW, backend)
    assert torch.stack(logits, 1).argmax(-1).tolist() == reference(model, ids_BL)
    assert compilations == 1


@every_family
def test_a_compiled_step_has_one_graph(family):
    check_compiled(family, "eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@every_family
def test_a_step_compiled_to_machine_code(family):
    check_compiled(family, "inductor")


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_an_empty_prompt_begins_a_text(family):
    """As no prompt does; the tokenizers make a tensor of floats of "", and a batch of several is as good."""
    model = build(family)
    begun = [model.config.bos_token_id, *write(model, torch.tensor([[1]]))[0]]
    empty_BL = torch.empty(1, 0)
    assert model.generate().tolist() == [begun]
    assert model.generate(empty_BL.long()).tolist() == [begun]
    assert model.generate(input_ids=empty_BL, attention_mask=empty_BL).tolist() == [begun]
    assert model.generate(torch.empty(2, 0, dtype=torch.long)).tolist() == [begun, begun]


def test_an_empty_prompt_needs_a_token_that_begins_a_text():
    model = build("modern", bos_token_id=None)
    with pytest.raises(ValueError, match="expected a prompt, got one without tokens, and this model has no bos_token"):
        model.generate(torch.empty(1, 0, dtype=torch.long))
    assert model.generate(torch.empty(1, 0), bos_token_id=2)[0, 0] == 2
