"""Numbers and facts as the page and the terminal show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.text import duration as duration

if TYPE_CHECKING:
    from panels.models import ModelSource


def model_facts(source: ModelSource) -> list[str]:
    """What is known of a model, the most important first."""
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


def short_number(number: float) -> str:
    """Three digits: 9.01 M."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def file_size(count: float) -> str:
    """A number of bytes in three digits: 4.34 MB."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"


def rough_duration(seconds: float) -> str:
    """An estimate: 45 s, 3 min, 1 h 20 min."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else duration(60 * round(seconds / 60))


def percent(probability: float) -> str:
    """A probability: 31.0 %, 0.68 %, < 0.01 %; only 0 is shown as 0 and only 1 as 100."""
    if 0 < probability < 0.0001:
        return "< 0.01\u00a0%"
    if 0.9995 <= probability < 1:
        return "> 99.9\u00a0%"
    digits = 0 if probability in (0, 1) else 1 if probability >= 0.01 else 2
    return f"{100 * probability:.{digits}f}\u00a0%"


def visible(text: str) -> str:
    """`text` with control characters as their pictures, so that a model's text cannot steer a terminal."""
    pictures = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}
    return text.translate(pictures | {code: 0xFFFD for code in range(128, 160)})
