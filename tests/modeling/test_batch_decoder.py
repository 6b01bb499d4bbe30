"""One token of several texts in one pass, against the model's own forward, and one text against its company."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from modeling.batch_decoder import BatchDecoder, CannotBatchError, Layer, PackedLinear
from modeling.batching import batch_decoder, can_batch
from modeling.cache_decoder import CacheBatchDecoder
from tests.modeling import models
from tests.modeling.test_fast_decoder import CLASSIC, CONTEXT, MODERN, VOCABULARY, Counting, build, shapes

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
    """The ids of some texts and the logits (V) of each alone: the same bits at any place among the others."""
    generator = torch.Generator().manual_seed(1)
    company = torch.randint(0, vocabulary, (decoder.width, context), generator=generator).tolist()
    lengths = [context, 3, 9, 1, 12, 2, 7, 15, context // 2, context // 3, context - 1]
    texts = [ids[: lengths[row % len(lengths)]] for row, ids in enumerate(company)]

    def logits(rows: list[int]) -> torch.Tensor:
        readers: list[Any] = [decoder.new_text(len(texts[row])) for row in rows]
        for reader, row in zip(readers, rows, strict=True):
            if len(texts[row]) > 1:
                reader.read(texts[row][:-1])
        return decoder.step(readers, [texts[row][-1] for row in rows])

    width = decoder.width
    alone = [logits([row])[0] for row in range(width)]
    for rows in ([0, 1], [1, 0], [2, 1, 0], [7, 6, 5, 4], [*range(width)], [*reversed(range(width))], [3, 0, 6, 2, 4]):
        for row, logits_V in zip(rows, logits(rows), strict=True):
            assert torch.equal(logits_V, alone[row])
    return [*zip(texts, alone, strict=True)]


@pytest.mark.parametrize(
    "config",
    [
        {**CLASSIC, **UNEVEN, "hidden_act": "gelu_new"},
        {**MODERN, **UNEVEN},
        {**CLASSIC, "position_embedding": "sinusoidal"},
        {**CLASSIC, "max_position_embeddings": 400},
        {**MODERN, "max_position_embeddings": 700},
    ],
)
def test_a_texts_logits_are_the_same_bits_at_any_place_among_any_others(config):
    context = config.get("max_position_embeddings", CONTEXT)
    with torch.inference_mode():
        logits_in_any_company(BatchDecoder(build(**config), 32), VOCABULARY, context)


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


@pytest.mark.parametrize(("inputs", "outputs"), [(24, 7), (300, 96), (704, 40), (1376, 32), (1030, 1030)])
def test_a_row_is_the_same_bits_alone_as_among_others(inputs, outputs):
    """Also where the product of one row is oneDNN's, which for many inputs is another kernel than that of two."""
    generator = torch.Generator().manual_seed(2)
    weight_OI, bias_O, x_NI = (
        torch.randn(size, generator=generator) for size in ((outputs, inputs), (outputs,), (9, inputs))
    )
    expected_NO = torch.nn.functional.linear(x_NI.double(), weight_OI.double(), bias_O.double()).float()
    with torch.inference_mode():
        for weight_t in (weight_OI.t(), weight_OI.t().contiguous()):
            linear = PackedLinear(weight_t, bias_O, 16)
            together = linear(x_NI)
            torch.testing.assert_close(together, expected_NO, atol=1e-3, rtol=1e-3)
            for x_I, row_O in zip(x_NI, together, strict=True):
                assert torch.equal(linear(x_I[None])[0], row_O)
                assert torch.equal(linear(x_I[None, None])[0, 0], row_O)


@pytest.mark.skipif("USE_FBGEMM" not in torch.__config__.show(), reason="embedding_bag adds up in another order")
@pytest.mark.parametrize("family", [BatchDecoder, CacheBatchDecoder])
def test_one_text_alone_does_without_the_calls_that_many_share(family):
    """Nor does it attend for a second one."""
    model = build(**MODERN) if family is BatchDecoder else wide_llama()
    calls = []
    with torch.inference_mode():
        decoder = family(model, 4)
        for count in (1, 2):
            texts = [decoder.new_text(CONTEXT) for _ in range(count)]
            for text in texts:
                text.read([1, 2])
            with Counting() as counting:
                decoder.step(texts, [3] * count)
            calls.append(counting.calls)
        if family is BatchDecoder:
            seen = [decoder.groups[0].begin_pass(torch.tensor([2] * count)) for count in (1, 2)]
            assert [len(each.mask_ZRS) for each in seen] == [2, 4]  # key/value heads
    alone, together = calls
    assert alone["_linear_pointwise"] == 0
    assert alone["embedding_bag"] == together["_linear_pointwise"] > 0


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


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), config=st.sampled_from([CLASSIC, MODERN]))
def test_texts_join_and_leave_passes_read_on_and_begin_again(seed, config):
    """Seven texts of a decoder whose passes have room for three: each has the same bits as when it is the only one."""
    random = np.random.default_rng(seed)
    decoder = BatchDecoder(build(**config | {"max_position_embeddings": 150}), 3)
    done: list[list[tuple[str, list[int]]]] = [[] for _ in range(7)]
    logits: list[list[torch.Tensor]] = [[] for _ in range(7)]

    def act(reader: Any, what: str, ids: list[int]) -> torch.Tensor:
        if what == "begin again":
            reader.reset()
        return decoder.step([reader], ids)[0] if what == "step" else reader.read(ids)

    with torch.inference_mode():
        readers = [decoder.new_text(150) for _ in done]
        for number, reader in enumerate(readers):
            done[number].append(("read", random.integers(0, VOCABULARY, random.integers(1, 70)).tolist()))
            logits[number].append(act(reader, *done[number][-1]))
        for _ in range(25):
            number, what = int(random.integers(7)), str(random.choice(["step", "step", "step", "read", "begin again"]))
            if what == "step":
                chosen = [int(each) for each in random.permutation(7)[: random.integers(1, 4)]]
                ids = random.integers(0, VOCABULARY, len(chosen)).tolist()
                for each, of_text in zip(chosen, decoder.step([readers[i] for i in chosen], ids), strict=True):
                    done[each].append(("step", [ids[chosen.index(each)]]))
                    logits[each].append(of_text)
            else:
                done[number].append((what, random.integers(0, VOCABULARY, 2).tolist()))
                logits[number].append(act(readers[number], *done[number][-1]))
        for each_done, each_logits in zip(done, logits, strict=True):
            alone = decoder.new_text(150)
            for what, expected_V in zip(each_done, each_logits, strict=True):
                assert torch.equal(act(alone, *what), expected_V)


def test_a_text_that_is_not_a_number_spoils_no_other_one_in_its_slot_or_beside_it():
    model = build(**MODERN)
    with torch.inference_mode():
        decoder = BatchDecoder(model, 4)
        broken, sound = decoder.new_text(CONTEXT), decoder.new_text(CONTEXT)
        broken.read([1, 2, 3, 4, 5])
        for block in broken.decoder.blocks:
            block.buffer_TW.fill_(torch.nan)
        sound.read([5, 4])
        expected_V = decoder.step([sound], [3])[0]
        sound.reset()
        sound.read([5, 4])
        together_NV = decoder.step([broken, sound], [6, 3])
        assert together_NV[0].isnan().all()
        assert torch.equal(together_NV[1], expected_V)
        broken.reset()
        after = decoder.new_text(CONTEXT)
        after.read([5, 4])
        assert torch.equal(decoder.step([after, sound], [3, 1])[0], expected_V)


def test_attention_that_depends_on_the_other_texts_is_not_used(monkeypatch):
    bmm = torch.bmm
    # Few products by another kernel than many.
    monkeypatch.setattr(torch, "bmm", lambda a, b: bmm(a, b) * (1 + 1e-6 * (len(a) <= 6)))
    with torch.inference_mode(), pytest.raises(CannotBatchError, match="attention depends on the other texts"):
        BatchDecoder(build(**CLASSIC), 4)


def test_texts_go_on_after_there_was_no_memory_for_more_of_them(monkeypatch):
    grow, calls = Layer.grow, []

    def fail_at_the_second(self: Layer, count: int, tokens: int) -> None:
        calls.append(count)
        if len(calls) == 2:
            raise RuntimeError("not enough memory")
        grow(self, count, tokens)

    with torch.inference_mode():
        decoder = BatchDecoder(build(**MODERN), 8)
        texts = [decoder.new_text(CONTEXT) for _ in range(5)]
        for text in texts:
            text.read([1, 2])
        expected_V = decoder.step(texts[:1], [3])[0]
        texts[0].reset()
        texts[0].read([1, 2])
        monkeypatch.setattr(Layer, "grow", fail_at_the_second)
        with pytest.raises(RuntimeError, match="not enough memory"):
            decoder.step(texts, [3] * 5)
        assert all(torch.equal(logits_V, expected_V) for logits_V in decoder.step(texts, [3] * 5))


def test_the_memory_goes_with_the_last_text():
    config: dict[str, Any] = MODERN | {"max_position_embeddings": 300}
    with torch.inference_mode():
        decoder = BatchDecoder(build(**config), 8)
        texts = [decoder.new_text(300) for _ in range(6)]
        for text in texts:
            text.read([1] * 200)
        decoder.step(texts, [2] * 6)
        (slots,) = decoder.groups
        full = slots.layers[0].keys_NGTD.nbytes
        for text in texts:
            text.close()
        assert slots.layers[0].keys_NGTD.nbytes * 16 == full  # eight texts of 256 places, two of 64
