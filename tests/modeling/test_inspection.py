"""Inspection of models of several architectures, against transformers' own outputs."""

import math
import threading
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel, OPTConfig, OPTForCausalLM

from modeling import ScratchGPTForMaskedLM
from modeling.inspection import attention, embeddings, logit_lens, nearest_embeddings, next_token_logits, surprisals
from tests.modeling import models
from tests.modeling.models import CONTEXT, LAYERS, VOCABULARY, build, logits

IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
LONG = [(7 * index * index + 3) % VOCABULARY for index in range(4 * CONTEXT + 5)]
ALL = [*models.ATTENTIVE, models.mamba]


@pytest.mark.parametrize("make", ALL)
def test_next_token_logits_are_the_models_for_its_window(make) -> None:
    model = make()
    torch.testing.assert_close(next_token_logits(model, IDS), logits(model, IDS)[-1], atol=2e-4, rtol=1e-4)
    if model.config.model_type != "mamba" and getattr(model.config, "max_position_embeddings", None):
        window = logits(model, LONG[-CONTEXT:])[-1]
        torch.testing.assert_close(next_token_logits(model, LONG), window, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("make", ALL)
def test_surprises_add_up_to_transformers_loss(make) -> None:
    model = make()
    input_ids = torch.tensor([IDS])
    with torch.no_grad():
        loss = model(input_ids=input_ids, labels=input_ids).loss.item()
    first, *others = surprisals(model, IDS)
    assert (first.bits, first.rank, first.likeliest) == (None, None, None)
    assert [one.token_id for one in (first, *others)] == IDS
    bits = sum(one.bits for one in others if one.bits is not None)
    assert bits * math.log(2) / len(others) == pytest.approx(loss, abs=2e-5)
    best = torch.softmax(logits(model, IDS), -1).max(-1)
    assert [one.likeliest.token_id for one in others if one.likeliest] == best.indices[:-1].tolist()
    assert [one.likeliest.probability for one in others if one.likeliest] == pytest.approx(
        best.values[:-1].tolist(), abs=1e-4
    )
    for one in others:
        assert one.likeliest is not None
        assert (one.rank == 1) == (one.likeliest.token_id == one.token_id)
        assert one.alternatives == ()
    top = torch.softmax(logits(model, IDS), -1).topk(3)
    for position, one in enumerate(surprisals(model, IDS, alternatives=3)[1:]):
        assert [guess.token_id for guess in one.alternatives] == top.indices[position].tolist()
        assert [guess.probability for guess in one.alternatives] == pytest.approx(
            top.values[position].tolist(), abs=1e-4
        )


@pytest.mark.parametrize("make", [models.scratchgpt, models.gpt2, models.qwen3])
def test_a_long_text_is_read_in_windows_that_reuse_half(make) -> None:
    model = make()
    found = surprisals(model, LONG)
    for position in range(1, len(LONG)):
        # the first window scores a whole context, each later one half of it
        behind = max(0, (position - CONTEXT) // (CONTEXT // 2) + 1) if position >= CONTEXT else 0
        start = behind * (CONTEXT // 2)
        row = torch.log_softmax(logits(model, LONG[start:position])[-1], -1)
        assert found[position].bits == pytest.approx(-row[LONG[position]].item() / math.log(2), abs=1e-4)


def test_one_token_has_no_surprise_and_broken_weights_are_named() -> None:
    model: Any = models.scratchgpt()
    assert [one.bits for one in surprisals(model, [3])] == [None]
    with torch.no_grad():
        model.lm_head.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="expected finite logits, got NaN"):
        surprisals(model, IDS)


def test_what_cannot_come_is_infinitely_surprising() -> None:
    model: Any = models.scratchgpt()
    with torch.no_grad():
        model.lm_head.bias[IDS[4]] = -math.inf
    assert surprisals(model, IDS)[4].bits == math.inf


@pytest.mark.parametrize("make", ALL)
def test_the_lens_ends_with_the_models_own_output(make) -> None:
    model = make()
    lens = logit_lens(model, IDS, 3)
    assert (len(lens), len(lens[0]), len(lens[0][0])) == (LAYERS + 1, len(IDS), 3)
    best = torch.softmax(logits(model, IDS), -1).topk(3)
    assert [[guess.token_id for guess in guesses] for guesses in lens[-1]] == best.indices.tolist()
    values = torch.tensor([[guess.probability for guess in guesses] for guesses in lens[-1]])
    torch.testing.assert_close(values, best.values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", ALL)
def test_the_lens_would_not_change_the_model_were_its_last_blocks_gone(make) -> None:
    """The lens after block n is the output of the same model cut off after block n."""
    model = make()
    lens = logit_lens(model, IDS, 1)
    blocks = next(child for child in model.base_model.children() if isinstance(child, torch.nn.ModuleList))
    for layer in range(LAYERS - 1, 0, -1):
        del blocks[layer]
        config = model.config.get_text_config(decoder=True)
        for name in ("num_hidden_layers", "n_layer"):
            if hasattr(config, name):
                setattr(config, name, layer)
        probability_NV = torch.softmax(logits(model, IDS), -1)
        for position, (guess,) in enumerate(lens[layer]):
            assert guess.probability == pytest.approx(probability_NV[position].max().item(), abs=1e-4)


def test_the_lens_looks_at_the_last_positions_of_the_window() -> None:
    model = models.gpt2()
    whole = logit_lens(model, LONG[-CONTEXT:], 2)
    for row, expected in zip(logit_lens(model, LONG, 2, last=5), whole, strict=True):
        for guesses, same in zip(row, expected[-5:], strict=True):
            assert [guess.token_id for guess in guesses] == [guess.token_id for guess in same]
            assert [guess.probability for guess in guesses] == pytest.approx([guess.probability for guess in same])


def test_the_lens_says_what_it_cannot_look_through() -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    bert = build(BertLMHeadModel, BertConfig(vocab_size=VOCABULARY, is_decoder=True, **sizes))
    with pytest.raises(ValueError, match="no logit lens for BertLMHeadModel: expected a final normalisation called"):
        logit_lens(bert, IDS)
    sizes["ffn_dim"] = sizes.pop("intermediate_size")
    narrow = OPTConfig(vocab_size=VOCABULARY, word_embed_proj_dim=8, pad_token_id=0, **sizes)
    with pytest.raises(ValueError, match="no logit lens for OPTForCausalLM"):
        logit_lens(build(OPTForCausalLM, narrow), IDS)
    with pytest.raises(ValueError, match="top and last: expected whole numbers, 1 or more, got 0 and None"):
        logit_lens(bert, IDS, 0)


@pytest.mark.parametrize("make", models.ATTENTIVE)
def test_attention_is_transformers_own(make) -> None:
    model = make()
    before = model.config._attn_implementation
    weights_LHQK = attention(model, IDS)
    assert model.config._attn_implementation == before
    torch.testing.assert_close(weights_LHQK.sum(-1), torch.ones(weights_LHQK.shape[:-1]))
    assert torch.equal(weights_LHQK, weights_LHQK.tril())
    model.set_attn_implementation("eager")
    with torch.no_grad():
        outputs = model(input_ids=torch.tensor([IDS]), output_attentions=True)
    torch.testing.assert_close(weights_LHQK, torch.stack(outputs.attentions)[:, 0])


def test_attention_of_a_masked_model_goes_both_ways() -> None:
    weights_LHQK = attention(models.scratchgpt(ScratchGPTForMaskedLM), IDS)
    assert weights_LHQK.shape == (LAYERS, 3, len(IDS), len(IDS))
    assert weights_LHQK.triu(1).sum() > 0


def test_a_model_without_attention_says_so() -> None:
    with pytest.raises(ValueError, match="MambaForCausalLM shows no attention"):
        attention(models.mamba(), IDS)


@pytest.mark.parametrize("make", [models.scratchgpt, models.gpt2, models.mamba])
def test_embeddings_are_rows_of_the_table_and_the_nearest_are_found(make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modeling.inspection.ROWS_AT_A_TIME", 7)  # several parts
    model = make()
    table_VE = model.get_input_embeddings().weight.detach()
    assert torch.equal(embeddings(model, IDS), table_VE[IDS])
    found = nearest_embeddings(model, IDS, 4, size=VOCABULARY - 2)
    for token_id, similar in zip(IDS, found, strict=True):
        cosines = torch.nn.functional.cosine_similarity(table_VE[token_id], table_VE[: VOCABULARY - 2], dim=-1)
        cosines[token_id] = -2
        best = cosines.topk(4)
        assert [one.token_id for one in similar] == best.indices.tolist()
        assert [one.cosine for one in similar] == pytest.approx(best.values.tolist(), abs=1e-5)
    with pytest.raises(ValueError, match="top: expected a whole number, 1 or more, got 0"):
        nearest_embeddings(model, IDS, 0)


@pytest.mark.parametrize("look", [attention, logit_lens])
def test_others_may_use_the_model_meanwhile(look) -> None:
    """Neither the weights nor the numbers of a model change while and after it is looked into."""
    model = models.gpt2()
    expected = logits(model, IDS)
    wrong, done = [], threading.Event()

    def go_on_using_it() -> None:
        while not done.is_set():
            if not torch.equal(logits(model, IDS), expected) or model.config._attn_implementation != "sdpa":
                wrong.append(True)

    thread = threading.Thread(target=go_on_using_it)
    thread.start()
    for _ in range(10):
        look(model, IDS)
    done.set()
    thread.join()
    assert not wrong
    assert all(not module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("look", [next_token_logits, surprisals, embeddings, nearest_embeddings, logit_lens, attention])
def test_ids_must_be_tokens_of_the_model(look) -> None:
    model = models.scratchgpt()
    with pytest.raises(ValueError, match="expected a text of at least one token, got an empty one"):
        look(model, [])
    with pytest.raises(ValueError, match="expected token ids from 0 to 30, got 31: encode the text with the tokenizer"):
        look(model, [1, 31])
