"""The OpenWebText tutorial: a character model with post-LayerNorm blocks."""

from train import config
from train.config import Config


def openwebtext() -> Config:
    """A GPT over characters (14.3 M parameters) on OpenWebText: 90 % of the files train, 10 % validate.

    Source: the tutorial "Custom-Large-Language-Model" after freeCodeCamp's course. Command:
    `python -m train openwebtext [--corpus FOLDER_OF_XZ] [--data.batch-size 32]`, then
    `python app.py --model runs/openwebtext --terminal`, its chatbot. Cost: minutes on a GPU, an hour on a CPU.
    Expected: the tutorial states no figure; see docs/recipes.md for what we measured.
    """
    return Config(
        corpus=config.CorpusConfig(source="hub", dataset="Skylion007/openwebtext"),
        tokenizer=config.TokenizerConfig(kind="characters"),
        model=config.ModelConfig(
            hidden_size=384,
            num_hidden_layers=8,
            num_attention_heads=8,
            max_position_embeddings=128,
            norm_position="post",
            output_projection_init="normal",
            attention_dropout=0.2,
            residual_dropout=0.2,
        ),
        data=config.DataConfig(batch_size=32, split="files"),
        optimizer=config.OptimizerConfig(learning_rate=3e-4, weight_decay_on="everything"),
        schedule=config.ScheduleConfig(name="constant"),
        run=config.RunConfig(steps=3000, evaluate_every=100),
    )
