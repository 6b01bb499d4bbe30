"""How long a text has to be for a model: what the training and the page both go by."""

MANY_PASSES = 30
"""Passes over a text from which on it is memorized rather than learned from."""


def least_tokens(context: int) -> int:
    """Tokens of the shortest training text: one window of `context` tokens, and those around it."""
    return context + 2


def passes(seen_tokens: int, text_tokens: int) -> float:
    """How often a training that sees so many tokens reads the text."""
    return seen_tokens / max(1, text_tokens)
