"""The WikiText tutorial: WordPiece and a decoder without output bias."""

from train.config import (
    Config,
    CorpusConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    TokenizerConfig,
)


def wikitext() -> Config:
    """A GPT of 48.0 M parameters (at 28,144 tokens) over WordPiece on WikiText, with its own validation split.

    Source: the tutorial "Implementing-LLM-From-Scratch". Command: `python -m train wikitext [--corpus PATH]
    [--corpus.dataset-config wikitext-2-raw-v1]`. Cost: 30,000 steps of 4,096 tokens; the tutorial took about 2.5 hours
    on a P100. Expected: its training loss was about 3.5; see docs/recipes.md for what we measured.
    """
    return Config(
        corpus=CorpusConfig(
            source="hub", dataset="Salesforce/wikitext", dataset_config="wikitext-103-raw-v1", joined_rows=True
        ),
        tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=40_000),
        model=ModelConfig(
            hidden_size=512,
            num_attention_heads=8,
            max_position_embeddings=512,
            lm_head_bias=False,
            output_projection_init="normal",
        ),
        data=DataConfig(batch_size=8, split="text", validation_chunk=1_000_000),
        optimizer=OptimizerConfig(learning_rate=5e-4),
        schedule=ScheduleConfig(name="constant"),
        run=RunConfig(steps=30_000, evaluate_every=500, checkpoint_every=1000),
    )
