"""What is known of a model, in words that the page and the terminal share."""

from __future__ import annotations

from panels.models import ModelSource


def facts_in_words(source: ModelSource) -> list[str]:
    """What is known of a model, the most telling first."""
    facts = []
    if source.parameters:
        facts.append(f"{short_number(source.parameters)} parameters")
    if source.trained_on:
        seen = f", {short_number(source.tokens_seen)} tokens seen" if source.tokens_seen else ""
        facts.append(f"trained on {source.trained_on}{seen}")
    if source.bits_per_byte is not None:
        floor = source.floor_bits_per_byte
        least = f" (no model can get below {floor:.3f})" if floor is not None else ""
        facts.append(f"{source.bits_per_byte:.3f} bits per byte{least}")
    if source.pseudo_perplexity is not None:
        facts.append(f"pseudo-perplexity {source.pseudo_perplexity:.1f}")
    if source.context_length:
        facts.append(f"context {source.context_length:,} tokens")
    return facts


def short_number(number: int) -> str:
    """`number` in three digits: 9.01 M."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
