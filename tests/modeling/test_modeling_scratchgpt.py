"""The model: causality, caches, initialisation, losses, dropout, saving."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, StaticCache

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM, ScratchGPTModel
from tests.modeling.families import GROUPED as MODERN
from tests.modeling.families import build, draw_ids

REMOTE_FILES = ("configuration_scratchgpt.py", "modeling_scratchgpt.py")
POSITIONS = ("learned", "sinusoidal", "rope")
CLASSIC = {"attention_bias": True, "hidden_act": "gelu_new"}


def seen_positions(model, position: int, length: int = 9) -> list[int]:
    """The input positions whose embedding has a gradient from the output at one position."""
    embeds_BLE = torch.randn(1, length, 32, requires_grad=True)
    model(inputs_embeds=embeds_BLE)[0][0, position].sum().backward()
    assert embeds_BLE.grad is not None
    return embeds_BLE.grad[0].abs().sum(-1).nonzero().flatten().tolist()


@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize("position_embedding", POSITIONS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_no_position_sees_a_later_one(norm_position, position_embedding, attention):
    model = build(norm_position=norm_position, position_embedding=position_embedding)
    model.set_attn_implementation(attention)
    for position in (0, 4, 8):
        assert seen_positions(model, position) == list(range(position + 1))


def test_training_with_dropout_stays_causal():
    model = build(attention_dropout=0.3, residual_dropout=0.3).train()
    assert max(seen_positions(model, 4)) == 4


@pytest.mark.parametrize("position_embedding", POSITIONS)
@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_masked_model_sees_both_ways(position_embedding, rate):
    model = build(ScratchGPTForMaskedLM, position_embedding=position_embedding, attention_dropout=rate).train(rate > 0)
    seen = seen_positions(model, 4)
    assert (seen == list(range(9))) if rate == 0 else (max(seen) > 4)
    assert not hasattr(model.config, "is_causal")


@pytest.mark.parametrize("family", [CLASSIC, MODERN])
@pytest.mark.parametrize("padded", [False, True])
def test_eager_equals_sdpa(family, padded):
    model, ids_BL = build(**family), draw_ids(2, 10)
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[0, :3] = 0 if padded else 1
    with torch.no_grad():
        sdpa = model(ids_BL, attention_mask=mask_BL)
        asked = model(ids_BL, attention_mask=mask_BL, output_attentions=True, output_hidden_states=True)
        model.set_attn_implementation("eager")
        eager = model(ids_BL, attention_mask=mask_BL)
    assert sdpa.attentions is None
    real = mask_BL.bool()
    for other in (asked, eager):
        torch.testing.assert_close(other.logits[real], sdpa.logits[real], atol=1e-5, rtol=1e-5)
    assert len(asked.hidden_states) == 3
    assert len(asked.attentions) == 2
    weights_BHLS = asked.attentions[0]
    assert weights_BHLS.shape == (2, 4, 10, 10)
    torch.testing.assert_close(weights_BHLS.sum(-1), torch.ones(2, 4, 10))
    assert weights_BHLS[1].triu(1).abs().max() == 0


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_gradient_checkpointing_gives_the_same_gradients(rate):
    gradients = []
    for checkpointing in (False, True):
        model = build(attention_dropout=rate, residual_dropout=rate, embedding_dropout=rate).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        torch.manual_seed(3)
        model(draw_ids(2, 10), labels=draw_ids(2, 10)).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize(("init", "factor"), [("scaled", 1 / math.sqrt(2 * 6)), ("normal", 1.0), ("zero", 0.0)])
@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("initializer", ["normal", "pytorch"])
def test_initial_values_are_the_documented_table(init, factor, norm, initializer):
    torch.manual_seed(0)
    fields = {"norm": norm, "attention_bias": True, "gated_mlp": True, "qk_norm": True, "output_projection_init": init}
    fields |= {"initializer_range": 0.03} if initializer == "normal" else {}
    model = ScratchGPTForCausalLM(ScratchGPTConfig(vocab_size=500, initializer=initializer, **fields))
    modules: dict[str, Any] = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        module = modules[name.rpartition(".")[0]]
        scale = factor if "o_proj" in name or "down_proj" in name else 1.0
        if "norm" in name:
            assert (parameter == (0 if name.endswith("bias") else 1)).all(), name
        elif initializer == "normal" and name.endswith("bias"):
            assert not parameter.any(), name
        else:
            is_uniform = initializer == "pytorch" and isinstance(module, nn.Linear)
            bound = module.in_features**-0.5 * scale if is_uniform else None
            std = (0.03 if initializer == "normal" else 1.0) * scale if bound is None else bound / math.sqrt(3)
            few = parameter.numel() < 10_000
            assert parameter.std().item() == pytest.approx(std, rel=0.1 if few else 0.02), name
            assert abs(parameter.mean().item()) <= (0.2 if few else 0.02) * std, name
            if bound is not None:
                assert 0.95 * bound <= parameter.abs().max().item() <= bound, name
    rows = [line for line in (ScratchGPTModel.__mro__[1].__doc__ or "").splitlines() if initializer in line]
    assert rows


def test_the_pytorch_initializer_is_what_torch_gives():
    """The same range, biases too, as an nn.Linear and an nn.Embedding that nobody touched."""
    torch.manual_seed(0)
    model = ScratchGPTForCausalLM(ScratchGPTConfig(initializer="pytorch", output_projection_init="normal"))
    for name in ("q_proj", "o_proj", "up_proj", "down_proj"):
        block: Any = model.model.layers[0]
        ours = getattr(block.self_attn, name, None) or getattr(block.mlp, name)
        theirs = nn.Linear(ours.in_features, ours.out_features)
        assert ours.weight.abs().max().item() == pytest.approx(theirs.weight.abs().max().item(), rel=1e-3), name
        assert ours.weight.std().item() == pytest.approx(theirs.weight.std().item(), rel=0.01), name
    assert model.model.embed_tokens.weight.std().item() == pytest.approx(1, rel=0.01)


def test_the_default_initial_weights_are_those_of_0_1_1():
    """The same seed gives the same weights as before there was a choice; the sums are that version's."""
    torch.manual_seed(1337)
    model = ScratchGPTForCausalLM(ScratchGPTConfig(vocab_size=300, hidden_size=32, num_attention_heads=3))
    sums = [parameter.double().abs().sum().item() for parameter in model.parameters()]
    assert sums[0] == pytest.approx(152.8218871926747, abs=1e-9)
    assert sum(sums) == pytest.approx(1658.7859664022424, abs=1e-8)


def test_dropout_inside_the_mlp_acts_in_training_alone():
    plain, dropped = build(), build(mlp_dropout=0.5)
    ids_BL = draw_ids(2, 10)
    with torch.no_grad():
        assert torch.equal(plain(ids_BL).logits, dropped(ids_BL).logits)
        assert not torch.allclose(plain.train()(ids_BL).logits, dropped.train()(ids_BL).logits)


@pytest.mark.parametrize("position_embedding", POSITIONS)
def test_context_overflow(position_embedding):
    model = build(position_embedding=position_embedding)
    message = r"reaches position 25, .* learned positions for 24 tokens \(max_position_embeddings\): shorten the input"
    with torch.no_grad():
        if position_embedding != "learned":
            assert model(draw_ids(1, 25)).logits.isfinite().all()
            return
        cache = model(draw_ids(1, 24), use_cache=True).past_key_values
        static = StaticCache(model.config, max_cache_len=30)
        model(draw_ids(1, 24), past_key_values=static)
        for arguments in (
            {"input_ids": draw_ids(1, 25)},
            {"input_ids": draw_ids(1, 1), "past_key_values": cache},
            {"input_ids": draw_ids(1, 1), "past_key_values": static},
            {"input_ids": draw_ids(1, 25), "position_ids": torch.arange(25)[None]},
        ):
            with pytest.raises(ValueError, match=message):
                model(**arguments)
        padding = torch.cat((torch.zeros(1, 4), torch.ones(1, 24)), 1).long()
        model(draw_ids(1, 28), attention_mask=padding, position_ids=(padding.cumsum(-1) - 1).clamp(min=0))


def test_inputs_must_be_one():
    model = build()
    for arguments in ({}, {"input_ids": draw_ids(1, 2), "inputs_embeds": torch.zeros(1, 2, 32)}):
        with pytest.raises(ValueError, match="Give either input_ids or inputs_embeds"):
            model(**arguments)


def test_bfloat16_weights_and_autocast():
    for family in (CLASSIC, MODERN, {"qk_norm": True}):
        model, ids_BL = build(attention_dropout=0.1, **family).train(), draw_ids(2, 8)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(ids_BL, labels=ids_BL).loss
        loss.backward()
        assert loss.dtype == torch.float32
        assert model.model.embed_tokens.weight.grad.isfinite().all()
        model = model.to(torch.bfloat16)
        loss = model(ids_BL, labels=ids_BL).loss
        loss.backward()
        assert loss.isfinite()


def test_resized_vocabulary():
    for family in (CLASSIC, MODERN):
        model = build(**family)
        model.resize_token_embeddings(70, mean_resizing=False)
        assert model.config.vocab_size == 70
        assert model(draw_ids(1, 4)).logits.shape == (1, 4, 70)


LOAD_ELSEWHERE = """
import sys, torch
from typing import Any
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM
for folder in sys.argv[1:]:
    expected = torch.load(folder + "-answers.pt")
    ids = expected.pop("ids")
    assert AutoConfig.from_pretrained(folder, trust_remote_code=True).model_type == "scratchgpt"
    for auto in (AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM):
        model = auto.from_pretrained(folder, trust_remote_code=True).eval()
        assert type(model).__module__.startswith("transformers_modules"), type(model).__module__
        with torch.no_grad():
            assert torch.equal(model(ids)[0], expected[auto.__name__]), (folder, auto.__name__)
        if auto is not AutoModel:
            tied = model.lm_head.weight is model.model.embed_tokens.weight
            assert tied == model.config.tie_word_embeddings
        if auto is AutoModelForCausalLM:
            model.save_pretrained(folder + "-again")
assert "modeling" not in sys.modules
"""


def test_saved_folders_load_elsewhere(clean_python, tmp_path):
    """In a process with an empty home and another working directory: equal bits, tied weights, saved again."""
    folders = []
    ids_BL = draw_ids(2, 9)
    families = {"classic": CLASSIC | {"initializer": "pytorch", "mlp_dropout": 0.1}, "modern": MODERN}
    for name, family in (families | {"waves": {"position_embedding": "sinusoidal"}}).items():
        folders.append(tmp_path / name)
        model = build(**family)
        model.save_pretrained(folders[-1])
        local = AutoModelForCausalLM.from_pretrained(folders[-1]).eval()
        masked = AutoModelForMaskedLM.from_pretrained(folders[-1]).eval()
        assert type(local) is ScratchGPTForCausalLM
        with torch.no_grad():
            answers = {"ids": ids_BL, "AutoModel": model.model(ids_BL)[0], "AutoModelForCausalLM": model(ids_BL)[0]}
            answers["AutoModelForMaskedLM"] = masked(ids_BL)[0]
            assert torch.equal(local(ids_BL)[0], answers["AutoModelForCausalLM"])
        torch.save(answers, f"{folders[-1]}-answers.pt")
    done = clean_python.run("-c", LOAD_ELSEWHERE, *map(str, folders))
    assert done.returncode == 0, done.stderr
    for folder in folders:
        again, answers = f"{folder}-again", torch.load(f"{folder}-answers.pt")
        assert {path.name for path in Path(folder).glob("*scratchgpt.py")} == set(REMOTE_FILES)
        assert {path.name for path in Path(again).glob("*scratchgpt.py")} == set(REMOTE_FILES)
        with torch.no_grad():
            reloaded = AutoModelForCausalLM.from_pretrained(again).eval()
            assert torch.equal(reloaded(ids_BL)[0], answers["AutoModelForCausalLM"])


@pytest.mark.parametrize("model_class", [ScratchGPTModel, ScratchGPTForMaskedLM])
def test_any_class_saves_every_entry(model_class, tmp_path):
    build(model_class).save_pretrained(tmp_path)
    assert model_class.from_pretrained(tmp_path).config.auto_map.keys() >= {"AutoModel", "AutoModelForCausalLM"}
    assert (tmp_path / "configuration_scratchgpt.py").exists()
    assert (tmp_path / "modeling_scratchgpt.py").exists()


def test_eager_attention_drops_in_training_only():
    model, ids_BL = build(attention_dropout=0.5), draw_ids(1, 8)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        assert torch.equal(model(ids_BL).logits, model(ids_BL).logits)
        model.train()
        assert not torch.equal(model(ids_BL).logits, model(ids_BL).logits)


def test_masked_loss_counts_blanks_only():
    model, ids_BL = build(ScratchGPTForMaskedLM), draw_ids(2, 9)
    labels_BL = torch.full_like(ids_BL, -100)
    labels_BL[0, 3], labels_BL[1, 5] = 7, 11
    output = model(ids_BL, labels=labels_BL)
    expected = functional.cross_entropy(output.logits[[0, 1], [3, 5]], torch.tensor([7, 11]))
    torch.testing.assert_close(output.loss, expected)
