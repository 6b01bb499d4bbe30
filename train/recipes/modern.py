"""Our own recipe: what a small GPT looks like today."""

from modeling.families import MODERN
from train import config
from train.config import Config


def modern() -> Config:
    """A 6.9 M parameter GPT of the modern family, for any corpus; by default the books of `scifi`.

    Source: ours. RMSNorm, RoPE, QK-norm, SwiGLU, tied embeddings, no biases (the shape of Qwen3); Muon (Jordan et
    al. 2024) on the blocks' matrices, AdamW on the rest; warm-up, stable, decay. Command:
    `python -m train modern --corpus PATH`. Cost and expected result: docs/log.md has the measured figures.
    """
    return Config(
        corpus=config.CorpusConfig(source="gutenberg", books="scifi"),
        tokenizer=config.TokenizerConfig(vocab_size=8257),
        model=config.ModelConfig(
            intermediate_size=704,
            num_attention_heads=4,
            head_dim=64,
            **MODERN,
        ),
        data=config.DataConfig(batch_size=32, windows="shuffled"),
        optimizer=config.OptimizerConfig(name="muon", learning_rate=1e-2, beta2=0.95, max_grad_norm=1.0),
        schedule=config.ScheduleConfig(name="wsd", warmup_steps=30, decay_fraction=0.5),
        run=config.RunConfig(steps=500),
    )
