"""Short stories from a probabilistic grammar whose entropy is known."""

from corpus.stories.generator import bits_per_byte, generate_stories

__all__ = ["bits_per_byte", "generate_stories"]
