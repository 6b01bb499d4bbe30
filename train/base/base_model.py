"""The model that a run goes on from (`--from`): found, checked, and its weights taken.

Its architecture and its tokenizer are kept. The optimizer and the schedule are new: the moments of the old ones belong
to the old text, and a bundle or a model of the Hub has none.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from modeling import ScratchGPTConfig
from modeling.loading import fetch, find_folder, is_masked_lm, load_model, split_hub_id
from storage.model_card import PLACEHOLDER_OWNER, card_facts, read_card
from storage.records import read_json_object
from storage.run_folder import RunFolder, model_name
from storage.text import first_line
from tokenization import load_tokenizer
from train.checks import DROPOUT_FIELDS
from train.config import Config, ModelConfig, from_json, replace_fields

_NOT_IN_CONFIG = ("rope_parameters", "pad_token_id")
"""What a model's config has beside the fields of a run's `model` section, and what must be kept too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    """A model that a run goes on from."""

    kept: dict[str, Any]
    """Arguments of `ScratchGPTConfig` that the run's config cannot say: scaled rotary positions, the pad token."""
    facts: dict[str, Any]
    """For run.json and the card: `name`, `repository` (None where it is on no Hub), `trained_on`; no path."""
    weights: dict[str, Any] | None
    """The state dict, in float32; None where the run has a checkpoint of its own."""

    def fill(self, model: nn.Module) -> None:
        """Put the weights into a model of the same architecture."""
        assert self.weights is not None
        model.load_state_dict(self.weights)


def start_from(config: Config, kept: Collection[str], folder: RunFolder) -> tuple[Config, BaseModel | None]:
    """The config with the architecture and the tokenizer of `run.base_model`, and that model; (config, None) without.

    Dropout, which is a setting of the training, is the config's where it is kept, else the model's. A folder in which
    the run began takes what it recorded: the model may be gone or have changed since.

    Args:
        kept: the fields whose values were asked for (`train.checks.kept_fields`).

    Raises:
        ValueError: the model is not there, cannot be loaded, is no causal ScratchGPT model, or its tokenizer has
            another vocabulary.
    """
    given = config.run.base_model
    if given is None:
        return config, None
    saved = folder.peek_recipe().get("config") or {}
    # A path is recorded as an absolute one, and on a command line it stays as given where there is nothing.
    if folder.is_begun and (saved.get("run") or {}).get("base_model") in (given, str(Path(given).resolve())):
        recorded = from_json(saved)
        config = replace(config, run=replace(config.run, base_model=recorded.run.base_model))
        config = _with_base(config, kept, asdict(recorded.model), recorded.tokenizer.path)
        if checkpoints := folder.checkpoints():
            more = _kept(ScratchGPTConfig.from_pretrained(checkpoints[max(checkpoints)]))
            facts = folder.peek_state().get("base_model")
            return config, BaseModel(kept=more, facts=facts or {"name": Path(given).name}, weights=None)
    place = find_causal(given, "--from")
    model, tokenizer = load_model(place, device="cpu"), _load_tokenizer(place)
    _check_vocabulary(given, model.config, tokenizer)
    if folder.tokenizer.exists() and load_tokenizer(folder.tokenizer).get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"{folder.tokenizer}: expected the vocabulary of --from {given}, got another, of which the tokens of this "
            "run are or will be; choose another --run-dir, or delete the folder"
        )
    config = _with_base(config, kept, _fields(model.config), place)
    return config, BaseModel(kept=_kept(model.config), facts=_facts(given, place), weights=model.state_dict())


def find_causal(given: str, flag: str) -> Path:
    """The folder of a model, which is one of ours and causal. Raises ValueError as `start_from`, with the flag."""
    try:
        place = find_folder(given) or fetch(given)
        config = read_json_object(place / "config.json")
    except ValueError as error:
        raise ValueError(f"{flag} {given}: {error}") from error
    if config.get("model_type") != "scratchgpt":
        raise ValueError(
            f"{flag} {given}: expected a model of ScratchGPT (model_type scratchgpt), got one of type "
            f"{config.get('model_type')}; docs/finetune.md has a program that trains such a model on"
        )
    if is_masked_lm(place):
        raise ValueError(
            f"{flag} {given}: expected a causal model, which predicts the next token, got a masked one, which fills "
            "blanks; take a model that was trained without --data.objective masked"
        )
    return place.resolve()


def _load_tokenizer(place: Path) -> Any:
    try:
        return load_tokenizer(place)
    except Exception as error:  # each library below has exceptions of its own for a broken file
        raise ValueError(
            f"--from {place}: expected a tokenizer beside the model, got none that can be loaded "
            f"({first_line(error)}); put the tokenizer of this model there, or give the run or the bundle that it is of"
        ) from error


def _check_vocabulary(given: str, config: ScratchGPTConfig, tokenizer: Any) -> None:
    if len(tokenizer) != config.vocab_size:
        raise ValueError(
            f"--from {given}: expected a tokenizer of {config.vocab_size} tokens, as the model has, got one of "
            f"{len(tokenizer)}; put the tokenizer of this model into its folder"
        )
    if tokenizer.eos_token_id is None or tokenizer.eos_token_id != config.bos_token_id:
        raise ValueError(
            f"--from {given}: expected a tokenizer whose end-of-text token has the id {config.bos_token_id}, with "
            f"which the model begins a text, got {tokenizer.eos_token_id}; put the tokenizer of this model there"
        )


def _with_base(config: Config, kept: Collection[str], shape: dict[str, Any], tokenizer: Path | None) -> Config:
    """The config with the architecture `shape`, but for `kept` rates of dropout, and the tokenizer of a folder."""
    fields = {f"model.{name}": value for name, value in shape.items()}
    for name in DROPOUT_FIELDS:
        if name in kept:
            del fields[name]
    return replace_fields(config, {**fields, "tokenizer.path": tokenizer})


def _fields(config: ScratchGPTConfig) -> dict[str, Any]:
    """A model's config as the fields of a run's `model` section."""
    return {field.name: getattr(config, field.name) for field in fields(ModelConfig)}


def _kept(config: ScratchGPTConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in _NOT_IN_CONFIG if getattr(config, name) is not None}


def _facts(given: str, place: Path) -> dict[str, Any]:
    """What run.json and the card say of the model, from its run or its card."""
    data, _ = read_card(place)
    card = card_facts(data)
    stated = card.get("repository", "")
    hub = split_hub_id(given)
    repository = hub[0] if hub else stated if stated and not stated.startswith(f"{PLACEHOLDER_OWNER}/") else None
    run = RunFolder.containing(place)
    trained_on = run.trained_on if run and run.corpus_config else card.get("trained_on")
    name = given if hub else repository or model_name(place)
    return {"name": name, "repository": repository, "trained_on": trained_on}
