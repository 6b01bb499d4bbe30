"""Tiny random models of several architectures, of one vocabulary and one context length."""

from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from tests.modeling.families import MODERN

CONTEXT, VOCABULARY, LAYERS = 24, 31, 3
IDS: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 30, "eos_token_id": 30}
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": LAYERS, "initializer_range": 0.4}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 24}
GPT: dict[str, Any] = {"n_positions": CONTEXT, "n_embd": 16, "n_layer": LAYERS, "n_head": 2, "initializer_range": 0.4}


def build(kind: Any, config: PreTrainedConfig) -> Any:
    torch.manual_seed(11)
    return kind(config).eval()


def scratchgpt(kind: Any = ScratchGPTForCausalLM, **config: Any) -> Any:
    sizes: dict[str, Any] = SIZES | {"hidden_size": 20, "num_attention_heads": 3, "max_position_embeddings": CONTEXT}
    return build(kind, ScratchGPTConfig(**IDS | sizes | config))


def modern(**config: Any) -> Any:
    return scratchgpt(**MODERN | {"head_dim": 6, "num_key_value_heads": 1} | config)


def post_norm() -> Any:
    return scratchgpt(norm_position="post", position_embedding="sinusoidal")


def gpt2(**config: Any) -> Any:
    return build(transformers.GPT2LMHeadModel, transformers.GPT2Config(**IDS | GPT | config))


def first_gpt() -> Any:
    return build(transformers.OpenAIGPTLMHeadModel, transformers.OpenAIGPTConfig(vocab_size=VOCABULARY, **GPT))


def llama(**config: Any) -> Any:
    shape: dict[str, Any] = IDS | SIZES | HEADS | {"head_dim": 4, "max_position_embeddings": CONTEXT}
    return build(transformers.LlamaForCausalLM, transformers.LlamaConfig(**shape | config))


def qwen3(**config: Any) -> Any:
    """It names no bos token."""
    shape: dict[str, Any] = (
        IDS | SIZES | HEADS | {"head_dim": 4, "max_position_embeddings": CONTEXT, "bos_token_id": None}
    )
    return build(transformers.Qwen3ForCausalLM, transformers.Qwen3Config(**shape | config))


def gemma2() -> Any:
    shape: dict[str, Any] = IDS | SIZES | HEADS | {"head_dim": 4, "max_position_embeddings": CONTEXT, "pad_token_id": 0}
    return build(transformers.Gemma2ForCausalLM, transformers.Gemma2Config(**shape, final_logit_softcapping=2.0))


def bloom() -> Any:
    """It names no context length."""
    sizes: dict[str, Any] = {"hidden_size": 16, "n_layer": LAYERS, "n_head": 2, "initializer_range": 0.4}
    return build(transformers.BloomForCausalLM, transformers.BloomConfig(vocab_size=VOCABULARY, **sizes))


def mamba() -> Any:
    config = transformers.MambaConfig(vocab_size=VOCABULARY, state_size=4, pad_token_id=0, **SIZES)
    return build(transformers.MambaForCausalLM, config)


def roberta(**config: Any) -> Any:
    """Its positions count from the padding id."""
    shape: dict[str, Any] = SIZES | {
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": CONTEXT + 1,
    }
    whole = transformers.RobertaConfig(vocab_size=VOCABULARY, **shape | config, is_decoder=True, pad_token_id=0)
    return build(transformers.RobertaForCausalLM, whole)


def whisper() -> Any:
    sizes: dict[str, Any] = {
        "d_model": 16,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 24,
        "init_std": 0.4,
    }
    ids: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "is_encoder_decoder": False}
    config = transformers.WhisperConfig(**ids, **sizes, max_target_positions=CONTEXT)
    return build(transformers.WhisperForCausalLM, config)


def rwkv() -> Any:
    sizes: dict[str, Any] = SIZES | {"attention_hidden_size": 16, "intermediate_size": 24, "context_length": CONTEXT}
    return build(transformers.RwkvForCausalLM, transformers.RwkvConfig(vocab_size=VOCABULARY, **sizes))


def bamba() -> Any:
    """Attention and recurrent layers."""
    state: dict[str, Any] = {
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 4,
        "mamba_n_groups": 1,
        "attn_layer_indices": [1],
    }
    config = transformers.BambaConfig(vocab_size=VOCABULARY, **SIZES, **HEADS, **state, pad_token_id=0)
    return build(transformers.BambaForCausalLM, config)


def xlstm() -> Any:
    sizes: dict[str, Any] = {"hidden_size": 128, "num_hidden_layers": 1, "num_blocks": 1, "num_heads": 2}
    return build(transformers.xLSTMForCausalLM, transformers.xLSTMConfig(vocab_size=VOCABULARY, **sizes))


@torch.no_grad()
def logits(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """Logits (N, V) of one text, without a cache."""
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def generate(model: Any, prompt: list[int], count: int, **options: Any) -> list[int]:
    """transformers' own greedy tokens, the end-of-text token an ordinary one."""
    ids = torch.tensor([prompt])
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, **options}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, **options)
    return out[0, len(prompt) :].tolist()


ATTENTIVE = [scratchgpt, post_norm, modern, gpt2, first_gpt, llama, qwen3, gemma2, bloom]
WITH_CACHE = [llama, gpt2, qwen3, mamba, rwkv, bamba, xlstm]
LEARNED_POSITIONS = [gpt2, roberta, whisper, first_gpt]
