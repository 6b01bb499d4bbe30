"""The same weights under an architecture of transformers itself: Qwen3 for rotary positions, GPT-2 for the others.

What the stock architecture has beside ours (a bias) is filled with zeros; what it has in another form (GPT-2's fused
and transposed projections, a table in the place of sinusoidal encodings) is rewritten. Nothing is approximated: where a
field has no counterpart, the model is refused.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM

# Field, what it has to be, and the flag of training that makes it so.
_QWEN3 = (
    ("norm", "rmsnorm", "--model.norm rmsnorm"),
    ("norm_position", "pre", "--model.norm-position pre"),
    ("qk_norm", True, "--model.qk-norm"),
    ("gated_mlp", True, "--model.gated-mlp"),
    ("mlp_bias", False, "--model.no-mlp-bias"),
    ("lm_head_bias", False, "--model.no-lm-head-bias"),
)
_GPT2 = (
    ("norm", "layernorm", "--model.norm layernorm"),
    ("norm_position", "pre", "--model.norm-position pre"),
    ("qk_norm", False, "--model.no-qk-norm"),
    ("gated_mlp", False, "--model.no-gated-mlp"),
    ("lm_head_bias", False, "--model.no-lm-head-bias"),
)


def stock_model(model: ScratchGPTForCausalLM) -> PreTrainedModel:
    """A Qwen3ForCausalLM or GPT2LMHeadModel that computes what `model` computes.

    Args:
        model: a causal model of either family, on the CPU.

    Returns:
        A new model in evaluation mode; tensors that need no rewriting are shared with `model`.

    Raises:
        ValueError: fields of the config have no counterpart in the architecture; the message names each of them, the
            value it has, the one it would need and the flag of training that sets it.
    """
    check_fits(model.config)
    is_qwen3 = model.config.position_embedding == "rope"
    stock = _empty_qwen3(model.config) if is_qwen3 else _empty_gpt2(model.config)
    weights = _qwen3_weights(model) if is_qwen3 else _gpt2_weights(model)
    stock.load_state_dict(weights, strict=True, assign=True)
    stock.tie_weights()
    return stock.eval()


def check_fits(config: ScratchGPTConfig) -> None:
    """Refuse a config that no stock architecture can hold; `stock_model` says how."""
    is_qwen3 = config.position_embedding == "rope"
    problems = [
        f"{field} is {getattr(config, field)!r} and must be {wanted!r} ({flag})"
        for field, wanted, flag in (_QWEN3 if is_qwen3 else _GPT2)
        if getattr(config, field) != wanted
    ]
    assert config.head_dim is not None
    width = config.num_attention_heads * config.head_dim
    if not is_qwen3 and width != config.hidden_size:
        problems.append(
            f"num_attention_heads x head_dim is {config.num_attention_heads} x {config.head_dim} = {width} and must be "
            f"hidden_size, {config.hidden_size} (--model.num-attention-heads with a divisor of it)"
        )
    if problems:
        name, positions = ("Qwen3", "rotary") if is_qwen3 else ("GPT-2", f"{config.position_embedding}")
        raise ValueError(
            f"expected a model that transformers' {name} can hold (the one with {positions} positions), but "
            f"{'; '.join(problems)}. These are choices of the training; with others, train again. "
            "As it is, the model can be published by `bundle` and `push`, and exported by `onnx`."
        )


def _empty_qwen3(config: ScratchGPTConfig) -> PreTrainedModel:
    assert config.rope_parameters is not None
    rope_parameters = config.rope_parameters | {"rope_theta": float(config.rope_parameters["rope_theta"])}
    with torch.device("meta"):
        stock = Qwen3ForCausalLM(
            Qwen3Config(
                hidden_size=config.hidden_size,
                intermediate_size=_number(config.intermediate_size),
                num_hidden_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                num_key_value_heads=config.num_key_value_heads,
                head_dim=_number(config.head_dim),
                hidden_act=config.hidden_act,
                rms_norm_eps=float(config.norm_eps),
                rope_parameters=rope_parameters,
                attention_bias=config.attention_bias or config.attention_output_bias,
                attention_dropout=config.attention_dropout,
                max_position_embeddings=config.max_position_embeddings,
                **_common_fields(config),
            )
        )
    # The only state outside the weights: meta tensors hold none.
    stock.model.rotary_emb = type(stock.model.rotary_emb)(stock.config)
    return stock


def _empty_gpt2(config: ScratchGPTConfig) -> PreTrainedModel:
    with torch.device("meta"):
        return GPT2LMHeadModel(
            GPT2Config(
                n_embd=config.hidden_size,
                n_inner=config.intermediate_size,
                n_layer=config.num_hidden_layers,
                n_head=config.num_attention_heads,
                n_positions=config.max_position_embeddings,
                activation_function=config.hidden_act,
                layer_norm_epsilon=float(config.norm_eps),
                embd_pdrop=config.embedding_dropout,
                attn_pdrop=config.attention_dropout,
                resid_pdrop=config.residual_dropout,
                **_common_fields(config),
            )
        )


def _common_fields(config: ScratchGPTConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "initializer_range": float(config.initializer_range),
        # Sinusoidal positions scale the embeddings and not the output layer, which ends a tie.
        "tie_word_embeddings": config.tie_word_embeddings and config.position_embedding != "sinusoidal",
        "use_cache": config.use_cache,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }


def _qwen3_weights(model: ScratchGPTForCausalLM) -> dict[str, Tensor]:
    """The names are the same."""
    config, weights = model.config, model.state_dict()
    if config.attention_bias or config.attention_output_bias:
        for index in range(config.num_hidden_layers):
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                prefix = f"model.layers.{index}.self_attn.{name}"
                weights.setdefault(f"{prefix}.bias", _zeros(weights[f"{prefix}.weight"]))
    return weights


def _gpt2_weights(model: ScratchGPTForCausalLM) -> dict[str, Tensor]:
    config, ours = model.config, model.state_dict()
    embeddings_VE = ours["model.embed_tokens.weight"]
    weights = {
        "transformer.wte.weight": embeddings_VE,
        "lm_head.weight": ours["lm_head.weight"],
        "transformer.ln_f.weight": ours["model.norm.weight"],
        "transformer.ln_f.bias": ours["model.norm.bias"],
    }
    if config.position_embedding == "sinusoidal":
        positions_1L = torch.arange(config.max_position_embeddings)[None]
        weights["transformer.wpe.weight"] = model.model.sinusoidal_emb(positions_1L)[0].to(embeddings_VE.dtype)
        weights["transformer.wte.weight"] = embeddings_VE * config.hidden_size**0.5
    else:
        weights["transformer.wpe.weight"] = ours["model.embed_positions.weight"]
    groups = config.num_attention_heads // _number(config.num_key_value_heads)
    for index in range(config.num_hidden_layers):
        layer, to = f"model.layers.{index}", f"transformer.h.{index}"
        for norm, name in (("input_layernorm", "ln_1"), ("post_attention_layernorm", "ln_2")):
            weights[f"{to}.{name}.weight"] = ours[f"{layer}.{norm}.weight"]
            weights[f"{to}.{name}.bias"] = ours[f"{layer}.{norm}.bias"]
        parts = []
        for name, repeats in (("q_proj", 1), ("k_proj", groups), ("v_proj", groups)):
            weight, bias = _linear(ours, f"{layer}.self_attn.{name}")
            parts.append((_repeat_heads(weight, config, repeats), _repeat_heads(bias, config, repeats)))
        _put(weights, f"{to}.attn.c_attn", torch.cat([w for w, _ in parts]), torch.cat([b for _, b in parts]))
        _put(weights, f"{to}.attn.c_proj", *_linear(ours, f"{layer}.self_attn.o_proj"))
        _put(weights, f"{to}.mlp.c_fc", *_linear(ours, f"{layer}.mlp.up_proj"))
        _put(weights, f"{to}.mlp.c_proj", *_linear(ours, f"{layer}.mlp.down_proj"))
    return weights


def _linear(weights: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Weight (outputs, inputs) and bias of a linear layer; a bias it has not is zeros."""
    weight = weights[f"{name}.weight"]
    return weight, weights.get(f"{name}.bias", _zeros(weight))


def _repeat_heads(values: Tensor, config: ScratchGPTConfig, times: int) -> Tensor:
    """Rows of key or value heads, one copy for each query head of their group."""
    by_head = values.unflatten(0, (-1, _number(config.head_dim)))
    return by_head.repeat_interleave(times, dim=0).flatten(0, 1)


def _put(weights: dict[str, Tensor], name: str, weight: Tensor, bias: Tensor) -> None:
    """GPT-2's Conv1D keeps its weight as (inputs, outputs)."""
    weights[f"{name}.weight"] = weight.T.contiguous()
    weights[f"{name}.bias"] = bias


def _zeros(weight: Tensor) -> Tensor:
    return weight.new_zeros(weight.shape[0])


def _number(value: int | None) -> int:
    """A size that the config has filled in."""
    assert value is not None
    return value
