"""The wiki.txt tutorial: SentencePiece and seven heads on a text of one's own."""

from pathlib import Path

from train import config
from train.config import Config


def wiki() -> Config:
    """A GPT of 19.8 M parameters with 7 heads of 54 over SentencePiece, on the user's wiki.txt.

    Source: the tutorial "Small Language Model Project" after the course "LLM Mastery" (its notebook prints 19.837954
    million parameters). Command: `python -m train wiki [--corpus wiki.txt] [--tracker wandb] [--resume]`. Cost: 10,000
    steps of 8,192 tokens, about twelve minutes at the pace of its notebook (RTX 3080 Ti); the tutorial's schedule has
    100,000. Expected: its README states no figure, its notebook validation losses of 3.62 at step 5,300 and 3.09 at
    6,950; see docs/recipes.md for what we measured.
    """
    return Config(
        corpus=config.CorpusConfig(source="local", paths=(Path("wiki.txt"),), passage_characters=2000),
        tokenizer=config.TokenizerConfig(kind="sentencepiece", vocab_size=4096),
        model=config.ModelConfig(
            hidden_size=384,
            num_hidden_layers=7,
            num_attention_heads=7,
            max_position_embeddings=512,
            intermediate_size=6 * 384,
            hidden_act="gelu",
            attention_bias=True,
            output_projection_init="normal",
            attention_dropout=0.05,
            residual_dropout=0.05,
        ),
        data=config.DataConfig(batch_size=16, split="text", validation_chunk=100_000),
        optimizer=config.OptimizerConfig(learning_rate=3e-4, beta2=0.99, max_grad_norm=1.0),
        schedule=config.ScheduleConfig(name="cosine", final_ratio=0.1),
        run=config.RunConfig(steps=10_000),
    )
