"""Seconds, for tests and for a look at the machinery."""

from dataclasses import replace

from train.config import Config, CorpusConfig, DataConfig, RunConfig, TokenizerConfig
from train.recipes.modern import modern


def debug() -> Config:
    """The modern family at toy size on a few of our stories. Source: ours. Command: `python -m train debug`.

    Cost: seconds. Expected: the loss falls; the text is not worth reading.
    """
    recipe = modern()
    return replace(
        recipe,
        corpus=CorpusConfig(source="stories", stories=200, validation_stories=20),
        tokenizer=TokenizerConfig(vocab_size=400),
        model=replace(
            recipe.model, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            head_dim=16, max_position_embeddings=64,
        ),
        data=DataConfig(batch_size=8, windows="packed", evaluation_windows=16),
        optimizer=replace(recipe.optimizer, learning_rate=3e-3),
        schedule=replace(recipe.schedule, warmup_steps=2),
        run=RunConfig(steps=20, evaluate_every=10, checkpoint_every=10, log_every=1, sample_tokens=20),
    )  # fmt: skip
