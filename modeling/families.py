"""The two families of architectures of the model file: the choices of the modern one, and either one in words."""

from collections.abc import Mapping
from typing import Any

MODERN: dict[str, Any] = {
    "hidden_act": "silu",
    "gated_mlp": True,
    "norm": "rmsnorm",
    "norm_eps": 1e-6,
    "position_embedding": "rope",
    "qk_norm": True,
    "attention_output_bias": False,
    "mlp_bias": False,
    "lm_head_bias": False,
    "tie_word_embeddings": True,
    "output_projection_init": "zero",
}
"""Arguments of `ScratchGPTConfig` that make a model of the modern family (the shape of Qwen3), sizes apart; the
config's own defaults are the classic family."""


def describe_architecture(config: Mapping[str, Any]) -> str:
    """The kinds of layers in a ScratchGPT config: "pre-rmsnorm, rope positions, gated silu MLP, tied embeddings"."""
    return ", ".join(
        (
            f"{config['norm_position']}-{config['norm']}",
            f"{config['position_embedding']} positions",
            f"{'gated ' if config['gated_mlp'] else ''}{config['hidden_act']} MLP",
            f"{'tied' if config['tie_word_embeddings'] else 'untied'} embeddings",
        )
    )
