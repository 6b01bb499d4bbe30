"""What is checked before a run begins: that a config fits itself and its folder, and that flags have an effect."""

from typing import Any

from storage.run_folder import RunFolder
from train.config import Config, as_flag, as_json, from_json, value_of


def validate(config: Config) -> None:
    """Check types, ranges, and what has to fit together.

    Raises:
        ValueError: naming the flag, what was expected and what was got.
    """
    from_json(as_json(config))
    corpus, tokenizer, data, run = config.corpus, config.tokenizer, config.data, config.run
    masked = data.objective == "masked"
    bytes_and_special = 258 if masked else 257
    is_encoded = corpus.source == "local" and any(path.suffix == ".npy" for path in corpus.paths)
    if data.batch_size % data.gradient_accumulation_steps:
        raise ValueError(
            f"--data.gradient-accumulation-steps: expected a divisor of the batch size {data.batch_size}, "
            f"got {data.gradient_accumulation_steps}"
        )
    if corpus.source == "hub" and corpus.dataset is None:
        raise ValueError("--corpus.dataset: expected the id of a data set on the Hub, got none")
    if is_encoded and tokenizer.path is None and tokenizer.kind != "gpt2":
        raise ValueError("--tokenizer.path: expected the folder of the tokenizer that encoded the .npy file, got none")
    if tokenizer.path is None and tokenizer.kind == "bpe" and tokenizer.vocab_size < bytes_and_special:
        raise ValueError(
            f"--tokenizer.vocab-size: expected at least {bytes_and_special} (256 bytes and "
            f"{'two special tokens' if masked else 'the end of a text'}), got {tokenizer.vocab_size}"
        )
    # Elsewhere only reading tells: a data set of the Hub may have a validation split of its own.
    no_bytes = tokenizer.path is None and tokenizer.kind in ("characters", "wordpiece", "sentencepiece")
    if no_bytes and data.split == "tokens" and corpus.source in ("local", "gutenberg"):
        raise ValueError(
            f"--data.split: expected text or files with --tokenizer.kind {tokenizer.kind}, whose tokens do not "
            "represent bytes, got tokens"
        )
    if masked and run.output_tokens:
        raise ValueError(
            "--run.output-tokens: expected 0 with --data.objective masked, since a masked model fills blanks and "
            f"writes no text, got {run.output_tokens}"
        )
    config.model.build(vocab_size=tokenizer.vocab_size, end_of_text=tokenizer.vocab_size - 1)


# Fields that count only where another one has a value, and for which.
_COUNTS_WITH: dict[str, tuple[str, tuple[Any, ...]]] = {
    "corpus.dataset": ("corpus.source", ("hub",)),
    "corpus.dataset_config": ("corpus.source", ("hub",)),
    "corpus.joined_rows": ("corpus.source", ("hub",)),
    "corpus.passage_characters": ("corpus.source", ("gutenberg", "hub", "local")),
    "corpus.text_field": ("corpus.source", ("hub", "local")),
    "corpus.skip_broken": ("corpus.source", ("local",)),
    "corpus.gutenberg_url": ("corpus.source", ("gutenberg",)),
    "corpus.stories": ("corpus.source", ("stories",)),
    "corpus.validation_stories": ("corpus.source", ("stories",)),
    "corpus.seed": ("corpus.source", ("stories",)),
    "tokenizer.vocab_size": ("tokenizer.kind", ("bpe", "wordpiece", "sentencepiece")),
    "model.rope_theta": ("model.position_embedding", ("rope",)),
    "data.mask_rate": ("data.objective", ("masked",)),
    "optimizer.muon_learning_rate": ("optimizer.name", ("muon",)),
    "optimizer.muon_momentum": ("optimizer.name", ("muon",)),
    "optimizer.muon_weight_decay": ("optimizer.name", ("muon",)),
    "schedule.decay_fraction": ("schedule.name", ("wsd",)),
    "schedule.final_ratio": ("schedule.name", ("cosine", "wsd", "plateau")),
    "schedule.plateau_factor": ("schedule.name", ("plateau",)),
    "schedule.plateau_patience": ("schedule.name", ("plateau",)),
    "schedule.plateau_threshold": ("schedule.name", ("plateau",)),
}


def check_effects(config: Config, recipe: Config) -> None:
    """Refuse values that differ from the recipe's and change nothing, beside the config's other values.

    Raises:
        ValueError: naming the flag, and the other one that it needs.
    """

    def is_changed(name: str) -> bool:
        return value_of(config, name) != value_of(recipe, name)

    for name in filter(is_changed, ("tokenizer.kind", "tokenizer.vocab_size")):
        if config.tokenizer.path is not None:
            raise ValueError(
                f"{as_flag(name)}: expected none beside --tokenizer.path, which is taken as it is; leave one out"
            )
    for name, (other, values) in _COUNTS_WITH.items():
        if is_changed(name) and value_of(config, other) not in values:
            raise ValueError(
                f"{as_flag(name)}: expected it with {as_flag(other)} {' or '.join(values)} only, got it with "
                f"{value_of(config, other)}, where it changes nothing; leave it out, or give {as_flag(other)} too"
            )


def check_same_run(config: Config, folder: RunFolder) -> None:
    """Refuse a folder whose run had another config; only `run` may differ, apart from its seed.

    A run that failed on its text before it made anything, a broken file for one, binds nobody to its config.

    Raises:
        ValueError: naming each field, what the folder has and what was asked for.
    """
    is_begun = folder.tokenizer.exists() or folder.tokens.exists() or folder.checkpoints()
    if not folder.recipe_file.is_file() or not is_begun:
        return
    saved = folder.recipe["config"]
    defaults = as_json(Config())  # of fields that were added since the run began
    different = [
        f"{as_flag(f'{section}.{key}')}: the run has {before!r}, asked for {value!r}"
        for section, values in as_json(config).items()
        for key, value in values.items()
        if (before := saved[section].get(key, defaults[section][key])) != value and (section != "run" or key == "seed")
    ]
    if different:
        raise ValueError(
            f"{folder.path}: expected the folder of a run with this config, got one of another "
            f"({'; '.join(different)}); give the same settings, or choose another --run-dir"
        )
