"""Going on from a model that was trained before (`--from`)."""
