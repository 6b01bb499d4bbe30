"""The WikiText tutorial: WordPiece and a decoder without output bias."""

from train import config
from train.config import Config


def wikitext() -> Config:
    """A GPT of 48.0 M parameters over WordPiece on WikiText, with its own validation split; each row is a text.

    Source: the tutorial "Implementing-LLM-From-Scratch"; it allows 40,000 tokens, and its model has 28,144. Command:
    `python -m train wikitext [--corpus PATH]
    [--corpus.dataset-config wikitext-2-raw-v1]`. Cost: 30,000 steps of 4,096 tokens; the tutorial took about 2.5 hours
    on a P100. Expected: its training loss was about 3.5; see docs/recipes.md for what we measured.
    """
    return Config(
        corpus=config.CorpusConfig(
            source="hub",
            dataset="Salesforce/wikitext",
            dataset_config="wikitext-103-raw-v1",
            joined_rows=True,
            passage_characters=1,
        ),
        tokenizer=config.TokenizerConfig(kind="wordpiece", vocab_size=28_144),
        model=config.ModelConfig(
            hidden_size=512,
            num_attention_heads=8,
            max_position_embeddings=512,
            lm_head_bias=False,
            initializer="pytorch",
            output_projection_init="normal",
            attention_dropout=0.1,
            mlp_dropout=0.1,
        ),
        data=config.DataConfig(batch_size=8, split="text", validation_chunk=1_000_000),
        optimizer=config.OptimizerConfig(learning_rate=5e-4, weight_decay_on="everything"),
        schedule=config.ScheduleConfig(name="constant"),
        run=config.RunConfig(steps=30_000, evaluate_every=500, checkpoint_every=1000),
    )
