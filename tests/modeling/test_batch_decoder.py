"""One token of several texts in one pass, against the model's own forward, and one text against its company."""

from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from modeling.batch_decoder import BatchDecoder, CannotBatchError, PackedLinear
from modeling.batching import batch_decoder, can_batch
from modeling.cache_decoder import CacheBatchDecoder
from tests.modeling import models
from tests.modeling.test_fast_decoder import CLASSIC, CONTEXT, MODERN, VOCABULARY, build, shapes

WIDTH = 5
texts = st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=CONTEXT)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shape=shapes, company=st.lists(texts, min_size=1, max_size=WIDTH))
def test_logits_are_those_of_the_forward_whoever_else_is_there(shape, company):
    assume(not (shape["qk_norm"] and shape["norm"] == "layernorm" and shape["head_dim"] == 2))
    model = build(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, initializer_range=0.3, **shape)
    with torch.inference_mode():
        decoder = BatchDecoder(model, WIDTH)
        readers = [decoder.new_text(len(ids)) for ids in company]
        for reader, ids in zip(readers, company, strict=True):
            if len(ids) > 2:
                reader.read(ids[:-2])
        for back in (-2, -1):
            logits_NV = decoder.step(readers, [ids[back] for ids in company])
        for ids, logits_V in zip(company, logits_NV, strict=True):
            expected_V = model(torch.tensor([ids])).logits[0, -1]
            torch.testing.assert_close(logits_V, expected_V, atol=1e-4, rtol=1e-4)


UNEVEN = {"intermediate_size": 90}
"""Hidden units of an MLP that a vectorised activation does not take as a whole."""


def logits_in_any_company(
    decoder: BatchDecoder | CacheBatchDecoder, vocabulary: int, context: int
) -> list[tuple[list[int], torch.Tensor]]:
    """The ids of eight texts and the logits (V) of each alone: the same bits at any place among the others."""
    generator = torch.Generator().manual_seed(1)
    company = torch.randint(0, vocabulary, (8, context), generator=generator).tolist()
    texts = [ids[:length] for ids, length in zip(company, [context, 3, 9, 1, 12, 2, 7, 15], strict=True)]

    def logits(rows: list[int]) -> torch.Tensor:
        readers: list[Any] = [decoder.new_text(len(texts[row])) for row in rows]
        for reader, row in zip(readers, rows, strict=True):
            if len(texts[row]) > 1:
                reader.read(texts[row][:-1])
        return decoder.step(readers, [texts[row][-1] for row in rows])

    alone = [logits([row])[0] for row in range(8)]
    for rows in ([0, 1], [1, 0], [2, 1, 0], [7, 6, 5, 4], [*range(8)], [*range(7, -1, -1)], [3, 0, 6, 2, 4]):
        for row, logits_V in zip(rows, logits(rows), strict=True):
            assert torch.equal(logits_V, alone[row])
    return [*zip(texts, alone, strict=True)]


@pytest.mark.parametrize(
    "config",
    [
        {**CLASSIC, **UNEVEN, "hidden_act": "gelu_new"},
        {**MODERN, **UNEVEN},
        {**CLASSIC, "position_embedding": "sinusoidal"},
    ],
)
def test_a_texts_logits_are_the_same_bits_at_any_place_among_any_others(config):
    with torch.inference_mode():
        logits_in_any_company(BatchDecoder(build(**config), 8), VOCABULARY, CONTEXT)


WIDE = {"hidden_size": 32, "intermediate_size": 32, "head_dim": 8}

SHAPE: dict[str, Any] = models.IDS | models.SIZES | models.HEADS | WIDE | {"max_position_embeddings": models.CONTEXT}


def wide_gpt2() -> Any:
    return models.gpt2(n_embd=32)


def wide_llama(**config: Any) -> Any:
    return models.llama(**WIDE | config)


@pytest.mark.parametrize("model", [wide_gpt2(), wide_llama(), models.qwen3(**WIDE)], ids=["gpt2", "llama", "qwen3"])
def test_a_foreign_models_logits_are_those_of_its_forward_and_the_same_bits_among_any_others(model):
    with torch.inference_mode():
        for ids, logits_V in logits_in_any_company(CacheBatchDecoder(model, 8), models.VOCABULARY, models.CONTEXT):
            torch.testing.assert_close(logits_V, models.logits(model, ids)[-1], atol=1e-4, rtol=1e-4)


def test_a_foreign_model_keeps_its_attention_and_its_weights():
    model = wide_gpt2()
    expected = models.logits(model, [1, 2, 3])
    with torch.inference_mode():
        decoder = CacheBatchDecoder(model, 2)
    assert decoder.bytes_of_a_text == 2 * 4 * 32 * models.LAYERS * models.CONTEXT  # keys and values in float32
    assert torch.equal(models.logits(model, [1, 2, 3]), expected)
    assert model.config._attn_implementation == "sdpa"
    assert decoder.packed_model.get_input_embeddings().weight is model.get_input_embeddings().weight


class _CompanyNorm(LlamaRMSNorm):
    """A text alone is read in another way."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states) * (1 + 1e-6 * (len(hidden_states) == 1))


def test_foreign_models_that_would_write_something_else_are_refused():
    depending, short = wide_llama(), wide_gpt2()
    depending.model.norm = _CompanyNorm(32)
    short.transformer.wpe = torch.nn.Embedding(models.CONTEXT - 1, 32)
    sliding = transformers.MistralConfig(**SHAPE, sliding_window=8)
    counting = models.roberta(hidden_size=32, intermediate_size=32)
    for model, reason in (
        (depending, "depends on the other texts"),
        (short, "reads no batch of texts here: index"),
        (models.build(transformers.MistralForCausalLM, sliding), "layers that keep all keys and values"),
        (counting, "reads something else in a batch"),
    ):
        with torch.inference_mode(), pytest.raises(CannotBatchError, match=reason):
            batch_decoder(model, 4)


def test_a_kernel_whose_rows_depend_on_each_other_is_not_used(monkeypatch):
    linear = PackedLinear.__call__
    # One row by another kernel than several, as `torch.mm` has them.
    monkeypatch.setattr(PackedLinear, "__call__", lambda self, x: linear(self, x) * (1 + 1e-6 * (len(x) == 1)))
    with pytest.raises(CannotBatchError, match="depends on the other rows"):
        BatchDecoder(build(**CLASSIC), 4)


def test_which_models_can():
    assert can_batch(build(**MODERN))
    assert not can_batch(build(**MODERN, dtype=torch.bfloat16))
    assert can_batch(wide_gpt2())
    assert can_batch(wide_llama())
    assert not can_batch(wide_llama().bfloat16())
    assert not can_batch(wide_llama(intermediate_size=40))
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}  # by the longest text of a pass
    assert not can_batch(wide_llama(rope_parameters=dynamic))
    experts = transformers.MixtralConfig(**SHAPE, num_local_experts=2)
    assert not can_batch(models.build(transformers.MixtralForCausalLM, experts))
    hooked = build(**MODERN)
    hooked.register_forward_hook(lambda *_: None)
    assert not can_batch(hooked)
