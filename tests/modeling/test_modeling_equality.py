"""The two families against the stock architectures they mirror, with the same weights."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.modeling_scratchgpt import CACHE_FIELD

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def build_classic() -> tuple[ScratchGPTForCausalLM, torch.nn.Module]:
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=67, n_positions=32, n_embd=48, n_layer=3, n_head=4, initializer_range=0.2, eos_token_id=66
        )
    )
    for name, parameter in theirs.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    ours = ScratchGPTForCausalLM(
        ScratchGPTConfig(
            vocab_size=67,
            hidden_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=32,
            hidden_act="gelu_new",
            attention_bias=True,
            tie_word_embeddings=True,
            lm_head_bias=False,
            eos_token_id=66,
        )
    )
    state = theirs.transformer.state_dict()
    copied = {"model.embed_tokens.weight": state["wte.weight"], "model.embed_positions.weight": state["wpe.weight"]}
    for kind in ("weight", "bias"):
        copied[f"model.norm.{kind}"] = state[f"ln_f.{kind}"]
        for index in range(3):
            block, layer = f"h.{index}.", f"model.layers.{index}."
            copied[f"{layer}input_layernorm.{kind}"] = state[f"{block}ln_1.{kind}"]
            copied[f"{layer}post_attention_layernorm.{kind}"] = state[f"{block}ln_2.{kind}"]
            for part, chunk in zip("qkv", state[f"{block}attn.c_attn.{kind}"].chunk(3, dim=-1), strict=True):
                copied[f"{layer}self_attn.{part}_proj.{kind}"] = chunk.T if kind == "weight" else chunk
            for name, other in (("self_attn.o", "attn.c"), ("mlp.up", "mlp.c_fc"), ("mlp.down", "mlp.c")):
                source = f"{block}{other}.{kind}" if other == "mlp.c_fc" else f"{block}{other}_proj.{kind}"
                copied[f"{layer}{name}_proj.{kind}"] = state[source].T if kind == "weight" else state[source]
    missing, unexpected = ours.load_state_dict(copied, strict=False)
    assert missing == ["lm_head.weight"]
    assert not unexpected
    return ours.eval(), theirs.eval()


def build_modern(rope_parameters: dict | None = None) -> tuple[ScratchGPTForCausalLM, torch.nn.Module]:
    torch.manual_seed(0)
    theirs = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=67,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=10,
            max_position_embeddings=32,
            initializer_range=0.2,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            rope_parameters=rope_parameters or {"rope_type": "default", "rope_theta": 10000.0},
            eos_token_id=66,
        )
    )
    for name, parameter in theirs.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    ours = ScratchGPTForCausalLM(
        ScratchGPTConfig(
            vocab_size=67,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=10,
            max_position_embeddings=32,
            hidden_act="silu",
            gated_mlp=True,
            norm="rmsnorm",
            position_embedding="rope",
            rope_parameters=rope_parameters,
            qk_norm=True,
            attention_output_bias=False,
            mlp_bias=False,
            lm_head_bias=False,
            tie_word_embeddings=True,
            eos_token_id=66,
        )
    )
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


@pytest.fixture(params=[build_classic, build_modern], ids=["gpt2", "qwen3"])
def pair(request):
    return request.param()


def draw_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask and positions of a batch whose first rows are padded on the left."""
    ids_BL = torch.randint(66, (3, 14), generator=torch.Generator().manual_seed(2))
    mask_BL = torch.ones_like(ids_BL)
    mask_BL[0, :5] = 0
    mask_BL[1, :1] = 0
    return ids_BL, mask_BL, (mask_BL.cumsum(-1) - 1).clamp(min=0)


@torch.no_grad()
def test_logits_are_equal(pair):
    ours, theirs = pair
    ids_BL, mask_BL, positions_BL = draw_batch()
    torch.testing.assert_close(ours(ids_BL).logits, theirs(ids_BL).logits, **TOLERANCE)
    padded = {"attention_mask": mask_BL, "position_ids": positions_BL}
    real = mask_BL.bool()
    torch.testing.assert_close(ours(ids_BL, **padded).logits[real], theirs(ids_BL, **padded).logits[real], **TOLERANCE)


@torch.no_grad()
def test_logits_are_equal_with_a_cache(pair):
    ours, theirs = pair
    ids_BL, mask_BL, positions_BL = draw_batch()
    caches = [None, None]
    for start, stop in ((0, 8), (8, 9), (9, 14)):
        logits = []
        for index, model in enumerate((ours, theirs)):
            output = model(
                ids_BL[:, start:stop],
                attention_mask=mask_BL[:, :stop],
                position_ids=positions_BL[:, start:stop],
                use_cache=True,
                **{CACHE_FIELD: caches[index]},
            )
            caches[index] = output[CACHE_FIELD]
            logits.append(output.logits[mask_BL[:, start:stop].bool()])
        torch.testing.assert_close(*logits, **TOLERANCE)


def test_losses_and_gradients_are_equal(pair):
    ours, theirs = pair
    ids_BL = draw_batch()[0]
    losses = [model(ids_BL, labels=ids_BL).loss for model in (ours, theirs)]
    torch.testing.assert_close(*losses, **TOLERANCE)
    for loss in losses:
        loss.backward()
    mine, other = (model.get_input_embeddings().weight.grad for model in pair)
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_greedy_texts_are_equal(pair):
    ids_BL, mask_BL, _ = draw_batch()
    options = {"attention_mask": mask_BL, "max_new_tokens": 15, "do_sample": False, "pad_token_id": 66}
    ours, theirs = (model.generate(ids_BL, **options) for model in pair)
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "truncate": False, "beta_fast": 8},
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "original_max_position_embeddings": 8,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    ],
    ids=["linear", "dynamic", "yarn", "yarn-truncated", "llama3"],
)
@torch.no_grad()
def test_scaled_positions_are_those_of_qwen3(settings):
    """Short, then beyond the context, then short again: the dynamic kind changes its frequencies and changes back."""
    ours, theirs = build_modern({"rope_theta": 500.0, **settings})
    plain, _ = build_modern({"rope_type": "default", "rope_theta": 500.0})
    for length in (14, 48, 14):
        ids_1L = torch.randint(66, (1, length), generator=torch.Generator().manual_seed(length))
        logits_1LV = ours(ids_1L).logits
        torch.testing.assert_close(logits_1LV, theirs(ids_1L).logits, **TOLERANCE)
        scaled = settings["rope_type"] != "dynamic" or length > 32
        assert torch.allclose(logits_1LV, plain(ids_1L).logits, **TOLERANCE) != scaled
