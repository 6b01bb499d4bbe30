"""How well a model answers."""
