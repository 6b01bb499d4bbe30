"""The models that `--minutes` chooses from: the recipe `modern` in seven widths, each with a depth of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modeling.families import MODERN

if TYPE_CHECKING:
    from modeling import ScratchGPTConfig

CONTEXT = 256
"""Tokens of a window."""
VOCABULARY = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The sizes of a model, the vocabulary apart."""

    width: int
    layers: int
    heads: int

    @property
    def fields(self) -> dict[str, int]:
        """Its fields in the `model` section of a config."""
        return {
            "hidden_size": self.width,
            "intermediate_size": self.width * 11 // 4,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "head_dim": self.width // self.heads,
        }

    def config(self, vocabulary: int, context: int = CONTEXT) -> ScratchGPTConfig:
        """The model's config with so many tokens in the vocabulary and in a window."""
        from modeling import ScratchGPTConfig  # here, since the page starts before transformers is there

        end_of_text = vocabulary - 1
        sizes: dict[str, Any] = {"vocab_size": vocabulary, "max_position_embeddings": context}
        return ScratchGPTConfig(**MODERN, **self.fields, **sizes, bos_token_id=end_of_text, eos_token_id=end_of_text)

    def parameters(self, vocabulary: int) -> int:
        """Weights, the embedding table included."""
        from modeling.sizing import count_parameters

        return count_parameters(self.config(vocabulary))

    @property
    def weights(self) -> float:
        """Weights of the blocks' matrices."""
        head = 6.0 * VOCABULARY * self.width
        return (self.flops(VOCABULARY) - head - 12.0 * self.layers * self.width * CONTEXT) / 6

    def flops(self, vocabulary: int, context: int = CONTEXT) -> float:
        """Floating-point operations to train on one token."""
        from modeling.sizing import flops_per_token

        return flops_per_token(self.config(vocabulary, context), context)


SHAPES = {
    shape.width: shape
    for shape in (
        Shape(width=64, layers=3, heads=2),
        Shape(width=96, layers=4, heads=3),
        Shape(width=128, layers=4, heads=2),
        Shape(width=192, layers=5, heads=3),
        Shape(width=256, layers=6, heads=4),
        Shape(width=384, layers=8, heads=6),
        Shape(width=512, layers=8, heads=8),
    )
}
"""By width."""
