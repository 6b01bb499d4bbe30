"""Configs of the two families, and tiny random models of them."""

from typing import Any

import torch

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, families

# With a final projection that is not zero, models say something at once.
MODERN = families.MODERN | {"output_projection_init": "scaled"}
GROUPED = MODERN | {"num_key_value_heads": 2}
VOCABULARY = 61


def build(model_class: Any = ScratchGPTForCausalLM, **fields: Any) -> Any:
    """A random model in evaluation mode; classic but for the given fields."""
    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"max_position_embeddings": 24}
    if fields.get("initializer", "normal") == "normal":
        fields = {"initializer_range": 0.3} | fields
    return model_class(ScratchGPTConfig(**shape | fields)).eval()


def draw_ids(*shape: int) -> torch.Tensor:
    """Random tokens of that vocabulary; the same for the same shape."""
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(1))
