"""The embedded default: a small GPT on our own stories, whose entropy is known."""

from dataclasses import replace

from train.recipe import Config, CorpusConfig, DataConfig, RunConfig, TokenizerConfig
from train.recipes.modern import modern


def stories() -> Config:
    """A modern GPT of about a million parameters on generated stories, in three minutes on two CPU cores.

    Source: ours (`corpus/stories.py`). Command: `python -m train stories`, or `make demo`. Cost: at most three
    minutes on 2 cores. Expected: within 5 % of the corpus' entropy, in bits per byte on held-out stories.
    """
    recipe = modern()
    return replace(
        recipe,
        corpus=CorpusConfig(source="stories", stories=30_000, validation_stories=500),
        tokenizer=TokenizerConfig(vocab_size=1024),
        model=replace(
            recipe.model, hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=2,
            head_dim=64,
        ),
        data=DataConfig(batch_size=16, windows="packed", evaluation_windows=128),
        schedule=replace(recipe.schedule, decay_fraction=0.6),
        run=RunConfig(steps=600, max_seconds=150, evaluate_every=100, checkpoint_every=300, output_tokens=200),
    )  # fmt: skip
