"""Instruction tuning: a model of ours learns to answer."""

from dataclasses import replace

from train import config
from train.config import Config
from train.recipes.stories import stories


def chat() -> Config:
    """A model of `--from` learns to answer, from chats as JSON lines of messages; by default from questions about our
    own stories, each behind its story. The sizes below are those of `stories`; the model's own count.

    Source: ours; the loss on answers only is InstructGPT's and Alpaca's usual way. Command:
    `python -m train chat --from runs/stories [--corpus chats.jsonl]`. Cost: about two minutes on two CPU cores with
    the model of `stories`. Expected: docs/log.md has the share of right answers on held-out questions
    (`python -m train.chat MODEL`).
    """
    recipe = stories()
    return replace(
        recipe,
        corpus=config.CorpusConfig(source="stories", stories=4000, validation_stories=200, seed=1),
        data=config.DataConfig(objective="chat", batch_size=16, evaluation_windows=200),
        optimizer=replace(recipe.optimizer, learning_rate=1e-3, muon_learning_rate=5e-3),
        schedule=replace(recipe.schedule, warmup_steps=20, decay_fraction=0.6),
        run=config.RunConfig(steps=300, evaluate_every=50, checkpoint_every=100, sample_tokens=30),
    )
