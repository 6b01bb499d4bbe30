"""What is checked before a run begins: that a config fits itself and its folder, and that flags have an effect."""

import os
import shlex
from collections.abc import Collection, Sequence
from itertools import chain
from typing import Any

from storage.records import is_json_object
from storage.run_folder import RunFolder
from train.config import Config, CorpusConfig, as_flag, as_json, field_types, from_json, value_of


def given_fields(flags: Sequence[str]) -> set[str]:
    """The fields, as `section.field`, that the flags of a command line give a value, short flags included."""
    fields = {}
    for name, hint in field_types().items():
        aliases = [getattr(part, "aliases", None) or () for part in getattr(hint, "__metadata__", ())]
        for flag in (as_flag(name), *chain(*aliases)):
            section, dot, leaf = flag[2:].rpartition(".")
            fields |= {flag: name, f"--{section}{dot}no-{leaf}": name}  # as tyro calls what turns one off
    words = (flag.partition("=")[0].replace("_", "-") for flag in flags)
    return {fields[word] for word in words if word in fields}


def check_not_empty(flags: Sequence[str]) -> None:
    """Refuse flags whose value is the empty text, which as a path would be the current folder.

    Raises:
        ValueError: naming the flag, and what to do.
    """
    flag = ""
    for word in flags:
        flag = word.partition("=")[0] if word.startswith("--") else flag
        if word in ("", f"{flag}="):
            raise ValueError(
                f"{flag or 'the command line'}: expected a value, got an empty text, which a shell variable without a "
                f"value gives; set it, or leave {flag or 'it'} out"
            )


def changed_fields(config: Config, before: Config) -> dict[str, Any]:
    """The fields that differ, by their names, with their values in `config`."""
    return {name: value_of(config, name) for name in field_types() if value_of(config, name) != value_of(before, name)}


def kept_fields(config: Config, recipe: Config, given: Collection[str] = ()) -> set[str]:
    """The fields whose values somebody has chosen, which nothing that fits a config to its text or time replaces.

    Args:
        recipe: the recipe by its name; what differs from it was chosen in a recipe file, or by a program.
        given: fields of the command line (`given_fields`), which count with any value.
    """
    return {*given, *changed_fields(config, recipe)}


def validate(config: Config) -> None:
    """Check types, ranges, and what has to fit together.

    Raises:
        ValueError: naming the flag, what was expected and what was got.
    """
    from_json(as_json(config))
    corpus, tokenizer, data, run = config.corpus, config.tokenizer, config.data, config.run
    masked = data.objective == "masked"
    bytes_and_special = 258 if masked else 257
    has_tokenizer = tokenizer.path is not None or run.base_model is not None
    if data.batch_size % data.gradient_accumulation_steps:
        raise ValueError(
            f"--data.gradient-accumulation-steps: expected a divisor of the batch size {data.batch_size}, "
            f"got {data.gradient_accumulation_steps}"
        )
    if corpus.source == "hub" and corpus.dataset is None:
        raise ValueError("--corpus.dataset: expected the id of a data set on the Hub, got none")
    if _is_encoded(corpus) and not has_tokenizer and tokenizer.kind != "gpt2":
        raise ValueError("--tokenizer.path: expected the folder of the tokenizer that encoded the .npy file, got none")
    if not has_tokenizer and tokenizer.kind == "bpe" and tokenizer.vocab_size < bytes_and_special:
        raise ValueError(
            f"--tokenizer.vocab-size: expected at least {bytes_and_special} (256 bytes and "
            f"{'two special tokens' if masked else 'the end of a text'}), got {tokenizer.vocab_size}"
        )
    # Elsewhere only reading tells: a data set of the Hub may have a validation split of its own.
    no_bytes = not has_tokenizer and tokenizer.kind in ("characters", "wordpiece", "sentencepiece")
    if no_bytes and data.split == "tokens" and corpus.source in ("local", "gutenberg"):
        raise ValueError(
            f"--data.split: expected text or files with --tokenizer.kind {tokenizer.kind}, whose tokens do not "
            "represent bytes, got tokens"
        )
    if masked and run.base_model is not None:
        raise ValueError(
            "--data.objective: expected causal with --from, which goes on from models that predict the next token, got "
            "masked; leave one of the two out"
        )
    if data.replay is not None and run.base_model is None:
        raise ValueError(
            f"--replay {data.replay}: expected it with --from, whose model knows that text, got it without; give the "
            "model too, or give the text with --corpus"
        )
    if data.teacher is not None and data.objective != "causal":
        raise ValueError(
            f"--teacher: expected it with --data.objective causal, got it with {data.objective}; leave one of the two "
            "out"
        )
    if data.objective == "chat":
        _validate_chat(config)
    if masked and run.output_tokens:
        raise ValueError(
            "--run.output-tokens: expected 0 with --data.objective masked, since a masked model fills blanks and "
            f"writes no text, got {run.output_tokens}"
        )
    config.model.build(vocab_size=tokenizer.vocab_size, end_of_text=tokenizer.vocab_size - 1)


# Fields that count only where another one has a value, and for which.
COUNTS_WITH: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    ("corpus.dataset", "corpus.source", ("hub",)),
    ("corpus.dataset_config", "corpus.source", ("hub",)),
    ("corpus.joined_rows", "corpus.source", ("hub",)),
    ("corpus.passage_characters", "corpus.source", ("gutenberg", "hub", "local")),
    ("corpus.text_field", "corpus.source", ("hub", "local")),
    ("corpus.encoding", "corpus.source", ("local",)),
    ("corpus.skip_broken", "corpus.source", ("local",)),
    ("corpus.gutenberg_url", "corpus.source", ("gutenberg",)),
    ("corpus.stories", "corpus.source", ("stories",)),
    ("corpus.validation_stories", "corpus.source", ("stories",)),
    ("corpus.seed", "corpus.source", ("stories",)),
    ("tokenizer.vocab_size", "tokenizer.kind", ("bpe", "wordpiece", "sentencepiece")),
    ("model.rope_theta", "model.position_embedding", ("rope",)),
    ("data.mask_rate", "data.objective", ("masked",)),
    ("data.windows", "data.objective", ("causal", "masked")),
    ("data.split", "data.objective", ("causal", "masked")),
    ("data.split", "corpus.source", ("gutenberg", "hub", "local")),
    ("data.validation_chunk", "data.objective", ("causal", "masked")),
    ("data.validation_chunk", "corpus.source", ("gutenberg", "hub", "local")),
    ("data.validation_fraction", "corpus.source", ("gutenberg", "hub", "local")),
    ("corpus.text_field", "data.objective", ("causal", "masked")),
    ("corpus.passage_characters", "data.objective", ("causal", "masked")),
    ("optimizer.muon_learning_rate", "optimizer.name", ("muon",)),
    ("optimizer.muon_momentum", "optimizer.name", ("muon",)),
    ("optimizer.muon_weight_decay", "optimizer.name", ("muon",)),
    ("schedule.decay_fraction", "schedule.name", ("wsd",)),
    ("schedule.final_ratio", "schedule.name", ("cosine", "wsd", "plateau")),
    ("schedule.plateau_factor", "schedule.name", ("plateau",)),
    ("schedule.plateau_patience", "schedule.name", ("plateau",)),
    ("schedule.plateau_threshold", "schedule.name", ("plateau",)),
)


# Fields that say how a text is read, which a .npy file of `python -m tokenization encode` was before.
_OF_TEXTS = ("corpus.books", "corpus.encoding", "corpus.passage_characters", "corpus.skip_broken", "corpus.text_field")


def _is_encoded(corpus: CorpusConfig) -> bool:
    return corpus.source == "local" and any(path.suffix == ".npy" for path in corpus.paths)


def _validate_chat(config: Config) -> None:
    corpus, run = config.corpus, config.run
    if run.base_model is None:
        raise ValueError(
            "--from: expected a model that the chats are trained on top of, got none: give a run, a bundle or a Hub id "
            "(`python -m train stories` makes one in minutes)"
        )
    if corpus.source not in ("stories", "local"):
        raise ValueError(
            f"--corpus.source: expected stories or local with --data.objective chat, got {corpus.source}; give JSON "
            "lines of messages with --corpus"
        )
    if corpus.skip_broken:
        raise ValueError(
            "--corpus.skip-broken: expected none with --data.objective chat, where each line counts; fix the line that "
            "the error names, or leave it out"
        )
    if run.output_tokens:
        raise ValueError(
            "--run.output-tokens: expected 0 with --data.objective chat, which answers and does not begin a text, got "
            f"{run.output_tokens}"
        )


DROPOUT_FIELDS = tuple(f"model.{part}_dropout" for part in ("embedding", "attention", "residual", "mlp"))
"""Fields of the `model` section that are settings of the training, not of the architecture."""


def check_effects(config: Config, given: Collection[str]) -> None:
    """Refuse flags that change nothing, beside the config's other values.

    Args:
        given: the fields of the command line (`given_fields`).

    Raises:
        ValueError: naming the flag, and the other one that it needs.
    """
    for name in sorted(given) if config.run.base_model is not None else ():
        if name.startswith(("model.", "tokenizer.")) and name not in DROPOUT_FIELDS:
            raise ValueError(
                f"{as_flag(name)}: expected none beside --from, which keeps the architecture and the tokenizer of its "
                "model (only dropout may differ); leave one of the two out"
            )
    for name in ("tokenizer.kind", "tokenizer.vocab_size"):
        if name in given and config.tokenizer.path is not None:
            raise ValueError(
                f"{as_flag(name)}: expected none beside --tokenizer.path, which is taken as it is; leave one out"
            )
    if "run.max_stretch" in given and config.run.max_stretch > 1 and not config.run.max_seconds:
        raise ValueError("--run.max-stretch: expected it with a time limit only, got it without --run.max-seconds")
    if "data.replay_share" in given and config.data.replay is None:
        raise ValueError("--data.replay-share: expected it with --replay only, got it without")
    for name in _OF_TEXTS:
        if name in given and _is_encoded(config.corpus):
            raise ValueError(
                f"{as_flag(name)}: expected none with a .npy file of token ids, whose text was read when it was "
                "encoded; leave it out, or give the text itself"
            )
    for name, other, values in COUNTS_WITH:
        if name in given and value_of(config, other) not in values:
            raise ValueError(
                f"{as_flag(name)}: expected it with {as_flag(other)} {' or '.join(values)} only, got it with "
                f"{value_of(config, other)}, where it changes nothing; leave it out, or give {as_flag(other)} too"
            )


def recorded_config(folder: RunFolder) -> dict[str, Any] | None:
    """The config in a folder's recipe.json, by section; None where there is none, or nothing is made with it yet.

    Raises:
        ValueError: recipe.json is damaged; the message says what to do.
    """
    if not folder.recipe_file.is_file() or not folder.is_begun:
        return None
    config = folder.recipe.get("config")
    if not is_json_object(config) or not all(map(is_json_object, config.values())):
        raise ValueError(
            f"{folder.recipe_file}: expected the sections of a config, got none. The file is damaged. "
            f"{folder.recipe_advice}"
        )
    return config


def check_same_run(config: Config, folder: RunFolder) -> None:
    """Refuse a folder whose run had another config; only `run` may differ, apart from its seed.

    A run that failed on its text before it made anything, a broken file for one, binds nobody to its config.

    Raises:
        ValueError: naming each field, what the folder has and what was asked for.
    """
    if (saved := recorded_config(folder)) is None:
        return
    defaults = as_json(Config())  # of fields that were added since the run began
    different = [
        f"{as_flag(f'{section}.{key}')}: the run has {before!r}, asked for {value!r}"
        for section, values in as_json(config).items()
        for key, value in values.items()
        if (before := saved.get(section, {}).get(key, defaults[section][key])) != value
        and (section != "run" or key in ("seed", "base_model"))
    ]
    if different:
        words = ("python", "-m", "train", str(folder.recipe_file), "--run-dir", str(folder.path), "--resume")
        raise ValueError(
            f"{folder.path}: expected the folder of a run with this config, got one of another "
            f"({'; '.join(different)}); go on with its own settings (`{shlex.join(words)}`), or choose another "
            "--run-dir"
        )


LEAST_MINUTES, MOST_MINUTES = 0.5, 2880
"""What `--minutes` takes: half a minute to two days."""


def check_minutes(config: Config, recipe: str, kept: Collection[str]) -> None:
    """Refuse what `--minutes` cannot choose for.

    Args:
        recipe: its name.
        kept: the fields that it must not choose (`kept_fields`).

    Raises:
        ValueError: naming the flag, what was expected and what was got.
    """
    minutes, run = config.run.minutes, config.run
    if not minutes:
        return
    if not LEAST_MINUTES <= minutes <= MOST_MINUTES:
        raise ValueError(
            f"--minutes: expected {LEAST_MINUTES:g} to {MOST_MINUTES:,} (two days), got {minutes:g}; for a longer run "
            "choose the model and give --steps"
        )
    if recipe != "modern":
        raise ValueError(
            f"--minutes: expected it with the recipe modern, whose law was measured, got it with {recipe}; "
            f"`python -m train modern --corpus … --minutes {minutes:g}`, or --run.max-seconds for a time limit"
        )
    if run.base_model is not None:
        raise ValueError(
            "--minutes: expected none beside --from, which keeps the architecture of its model; give --steps"
        )
    if config.data.objective != "causal":
        raise ValueError(
            f"--minutes: expected it with --data.objective causal, whose law was measured, got it with "
            f"{config.data.objective}; give --steps"
        )
    # A limit of 0 is none: the plan is made for the minutes, and the run goes on to its last step.
    for name in ("run.steps", *(("run.max_seconds",) if run.max_seconds else ())):
        if name in kept:
            raise ValueError(
                f"{as_flag(name)}: expected none beside --minutes, which chooses it; leave one of the two out"
            )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("--minutes: expected one process, got several (accelerate launch), which it cannot measure")
