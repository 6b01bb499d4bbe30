"""The embedded default: a small GPT on our own stories, whose entropy is known."""

from dataclasses import replace

from train.config import Config, CorpusConfig, DataConfig, RunConfig, TokenizerConfig
from train.recipes.modern import modern


def stories() -> Config:
    """A modern GPT of 1.1 M parameters on generated stories, in one to three minutes on two CPU cores.

    Source: ours (`corpus/stories/generator.py`). Command: `python -m train stories`, or `make demo`. Cost: one minute
    on 2 cores with AVX-512 bf16, about three on older ones; on a slow or busy machine the time limit is stretched, to
    ten and a half at most. Expected: within 5 % of the corpus' entropy, in bits per byte on held-out stories;
    docs/log.md has the measured figures.

    Batches are small because steps, more than tokens, teach the model to look back; a window holds one story and the
    beginning of another.
    """
    recipe = modern()
    return replace(
        recipe,
        corpus=CorpusConfig(source="stories", stories=30_000, validation_stories=500),
        tokenizer=TokenizerConfig(vocab_size=3072),
        model=replace(
            recipe.model, hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=2,
            head_dim=64, max_position_embeddings=160, initializer_range=0.1,
        ),
        data=DataConfig(batch_size=14, windows="packed", evaluation_windows=128),
        optimizer=replace(recipe.optimizer, learning_rate=3e-3),
        schedule=replace(recipe.schedule, decay_fraction=0.6),
        run=RunConfig(
            steps=900, max_seconds=158, max_stretch=4, evaluate_every=150, checkpoint_every=300, output_tokens=150,
        ),
    )  # fmt: skip
