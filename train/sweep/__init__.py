"""Hyperparameter search: `python -m train.sweep`."""

STARTUP_TRIALS = 5
"""Random trials, before which nothing is suggested or pruned, unless specified otherwise."""
