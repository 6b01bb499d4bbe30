"""Architectures in words."""

from modeling import ScratchGPTConfig
from modeling.families import MODERN, describe_architecture


def test_both_families_in_words() -> None:
    classic, modern = (ScratchGPTConfig(**choices).to_dict() for choices in ({}, MODERN))
    assert describe_architecture(classic) == "pre-layernorm, learned positions, relu MLP, untied embeddings"
    assert describe_architecture(modern) == "pre-rmsnorm, rope positions, gated silu MLP, tied embeddings"
