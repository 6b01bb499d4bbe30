"""The sci-fi tutorial: a small GPT on early science fiction."""

from train import config
from train.config import Config


def scifi() -> Config:
    """A 9.0 M parameter GPT on 26 books of early science fiction from Project Gutenberg.

    Source: the tutorial "LLM_Tokenizer-project-from-scratch" (byte-level BPE with 8,000 merges, a pre-LayerNorm
    decoder with ReLU, 6 heads of 42). Command: `python -m train scifi [--corpus FOLDER]`. Cost: 10,000 steps of
    8,192 tokens; the tutorial took 75 to 90 minutes on a Kaggle GPU. Expected: the tutorial's best validation loss is
    4.197 on its own 25 texts (train 3.43); see docs/recipes.md for what we measured.
    """
    return Config(
        corpus=config.CorpusConfig(source="gutenberg", books="scifi"),
        tokenizer=config.TokenizerConfig(vocab_size=8257),
        model=config.ModelConfig(
            initializer="pytorch", output_projection_init="normal", attention_dropout=0.2, residual_dropout=0.2
        ),
        data=config.DataConfig(batch_size=32, windows="random", validation_chunk=20_000, validation_fraction=0.1),
        optimizer=config.OptimizerConfig(learning_rate=1e-3, weight_decay_on="everything"),
        schedule=config.ScheduleConfig(name="plateau", final_ratio=0.01),
        run=config.RunConfig(steps=10_000, evaluate_every=100, output_tokens=500),
    )
