"""The choices that make a modern model, as Qwen3 has them; the config's defaults are the classic family."""

from typing import Any

MODERN: dict[str, Any] = {
    "norm": "rmsnorm",
    "position_embedding": "rope",
    "qk_norm": True,
    "gated_mlp": True,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "attention_output_bias": False,
    "mlp_bias": False,
    "lm_head_bias": False,
}
GROUPED = {**MODERN, "num_key_value_heads": 2}
