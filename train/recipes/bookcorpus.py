"""The BookCorpus tutorial: GPT-2 small, trained causally or on masked tokens."""

from train import config
from train.config import Config


def bookcorpus() -> Config:
    """GPT-2 small (124.4 M parameters) with GPT-2's own vocabulary on the data set BookCorpus.

    Source: the tutorial "LLM Do it yourself" after the book "Build a Large Language Model (From Scratch)". Command:
    `python -m train bookcorpus [--corpus PATH] [--data.objective masked] [--model.position-embedding sinusoidal]
    [--tokenizer.path DIR]`. Cost: meant for a GPU; every size is a flag. Expected: the tutorial states no figure; see
    docs/recipes.md for what we measured.
    """
    return Config(
        corpus=config.CorpusConfig(source="hub", dataset="bookcorpus", joined_rows=True, passage_characters=2000),
        tokenizer=config.TokenizerConfig(kind="gpt2", vocab_size=50_257),
        model=config.ModelConfig(
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=1024,
            hidden_act="gelu_new",
            attention_bias=True,
            lm_head_bias=False,
            tie_word_embeddings=True,
            embedding_dropout=0.1,
            attention_dropout=0.1,
            residual_dropout=0.1,
        ),
        data=config.DataConfig(batch_size=8, split="text", validation_chunk=1_000_000, evaluation_windows=64),
        optimizer=config.OptimizerConfig(learning_rate=6e-4, beta2=0.95, weight_decay=0.1, max_grad_norm=1.0),
        schedule=config.ScheduleConfig(name="cosine", warmup_steps=500, final_ratio=0.1),
        run=config.RunConfig(steps=20_000, evaluate_every=500, checkpoint_every=1000),
    )
