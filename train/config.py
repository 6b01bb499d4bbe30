"""The typed config tree of a run: seven sections, each field explained and given its range where it is declared.

A recipe is a function in `train/recipes/` that returns one full `Config`; the command line replaces single fields. The
resolved tree is written to `recipe.json`; pydantic checks its types and ranges (`from_json`), `train.checks` the rest.
"""

import dataclasses
import json
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from modeling.fields import config_fields
from storage.run_folder import RunFolder

if TYPE_CHECKING:
    from modeling import ScratchGPTConfig

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "numpy")

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
InnerShare = Annotated[float, Field(gt=0, lt=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]  # of a running mean


class Section:
    """What all sections have in common."""

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def flag(alias: str) -> Any:
    """A field that has a short flag too."""
    return tyro.conf.arg(aliases=(alias,))


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusConfig(Section):
    """Where the text comes from."""

    source: Literal["stories", "gutenberg", "hub", "local"] = "local"
    """Stories: our generator, with a known entropy. Gutenberg: books by id over HTTP. Hub: a data set of the Hugging
    Face Hub. Local: `paths`."""
    paths: Annotated[tuple[Path, ...], flag("--corpus")] = ()
    """Files, folders or globs: txt, md, html, epub, docx, odt, pdf, subtitles, jsonl, json, csv, parquet, zip, tar, and
    gz, xz, zst of them (docs/corpora.md); or one .npy file of `python -m tokenization encode`, its tokenizer in
    `tokenizer.path`. Given on the command line, they replace the recipe's own source."""
    text_field: Annotated[str, flag("--text-field")] = "text"
    """Field of JSON records, or column of tables, parquet files and data sets, that holds the text."""
    encoding: Annotated[str | None, flag("--encoding")] = None
    """Encoding of texts that are not UTF-8, such as cp1251, koi8-r, gbk, big5, shift_jis, utf-16; unset: what the file
    states or what is recognised."""
    skip_broken: bool = False
    """Leave out, by name, files that cannot be read, instead of stopping at the first."""
    dataset: str | None = None
    """Id of a data set on the Hub, for `source = hub`."""
    dataset_config: str | None = None
    """Its configuration, where it has several."""
    joined_rows: bool = False
    """The data set's rows are pieces of one running text, not documents of their own."""
    passage_characters: CountOrZero = 0
    """Cut text without borders into documents, each a number of lines with at least so many characters in all; 1: every
    line with text is a document. 0: a file, record or data set's row is one."""
    books: Literal["any", "scifi"] = "any"
    """Scifi: a file of Gutenberg's with the number of one of that recipe's books must have its title, or is refused.
    With --corpus the value is any where neither the recipe is scifi nor this flag is given."""
    gutenberg_url: str = "https://www.gutenberg.org"
    """Base URL of Project Gutenberg or a mirror."""
    stories: Count = 30_000
    """Number of training stories, for `source = stories`."""
    validation_stories: Count = 500
    """Number of held-out stories, for `source = stories`."""
    seed: int = 0
    """Seed of the story generator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig(Section):
    """How text becomes ids."""

    kind: Literal["bpe", "characters", "wordpiece", "sentencepiece", "gpt2"] = "bpe"
    """Bpe: our byte-level BPE. Characters: one token each. WordPiece and SentencePiece: trained by their libraries.
    Gpt2: GPT-2's own vocabulary, from the Hub."""
    vocab_size: int = 8257
    """Size of the vocabulary, in tokens; for `bpe` 256 bytes, the merges and the special tokens. Characters and gpt2
    have the size they have."""
    path: Path | None = None
    """Folder of a tokenizer that exists already, instead of training one."""


# Fields of the model's config that a run sets by itself, or that have no place on a command line.
_NOT_SETTINGS = {"vocab_size", "rope_parameters", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id"}


def _with_model_fields(section: type) -> type:
    """Declare the fields of `ScratchGPTConfig` in a section: their types, defaults and explanations."""
    for declared in config_fields():
        if declared.name not in _NOT_SETTINGS:
            kind = float if declared.type == float | int else declared.type
            section.__annotations__[declared.name] = Annotated[kind, tyro.conf.arg(help=declared.help)]
            setattr(section, declared.name, declared.default)
    return section


@dataclass(frozen=True, kw_only=True, slots=True)
@_with_model_fields
class ModelConfig(Section):
    """The architecture; the fields are those of `ScratchGPTConfig`, which validates them."""

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...

    def build(self, *, vocab_size: int, end_of_text: int, **more: Any) -> "ScratchGPTConfig":
        """The model's config for a vocabulary of `vocab_size` whose document separator has the id `end_of_text`.

        `more`: fields of `ScratchGPTConfig` that this section has not.
        """
        from modeling import ScratchGPTConfig

        return ScratchGPTConfig(
            **dataclasses.asdict(self),
            vocab_size=vocab_size,
            bos_token_id=end_of_text,
            eos_token_id=end_of_text,
            **more,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig(Section):
    """How ids become batches."""

    batch_size: Count = 32
    """Windows per optimizer step, over all devices and accumulation steps."""
    gradient_accumulation_steps: Count = 1
    """Micro-batches per optimizer step, for a GPU's memory; must divide batch_size. On a CPU a pass has as many
    windows as 512 MiB of activations allow instead; where not even 4 fit, at most a micro-batch."""
    windows: Literal["random", "shuffled", "packed"] = "random"
    """Random: windows at uniformly random places. Shuffled: the whole text in windows, shuffled again each epoch.
    Packed: every window begins at a document (or a piece of a long one), documents shuffled again each epoch."""
    objective: Literal["causal", "masked", "chat"] = "causal"
    """Causal: predict the next token. Masked: predict tokens that were hidden, from both sides (BERT). Chat: predict
    the next token of the answers in chats (JSON lines of messages, or questions about our stories); needs --from."""
    mask_rate: InnerShare = 0.15
    """Share of the tokens that the masked objective selects; of these 80 % become the mask token, 10 % a random one."""
    split: Literal["tokens", "text", "files"] = "tokens"
    """What is cut off for validation: the end of each chunk of tokens, the end of each chunk of text, or whole files.
    (Stories and data sets that have a validation split of their own keep it.)"""
    validation_chunk: Annotated[int, Field(ge=2)] = 20_000
    """The text is cut in chunks of so many tokens, or characters …"""
    validation_fraction: InnerShare = 0.1
    """… and this share at the end of each, or of the files, is for validation."""
    evaluation_windows: Count = 384
    """Size of the fixed set of validation windows, and of that of training windows whose loss is measured beside it.
    All validation documents count where their entropy is known (stories). More than the validation text has: all of it,
    once. 384 windows of each cost about 7 % of a run that evaluates every 100 steps of 32 windows."""
    replay: Annotated[Path | None, flag("--replay")] = None
    """With --from: the folder of the run on the old text, from which some windows of each batch are, so that the model
    forgets less of it."""
    replay_share: InnerShare = 0.2
    """Share of the windows of a batch that --replay takes from the old text."""
    teacher: Annotated[str | None, flag("--teacher")] = None
    """A ScratchGPT model (as for --from) whose probabilities are half of what is learnt (knowledge distillation)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig(Section):
    """How weights move."""

    name: Literal["adamw", "muon"] = "adamw"
    """AdamW on everything, or Muon on the blocks' matrices and AdamW on the rest."""
    learning_rate: NotNegative = 1e-3
    """Peak learning rate of AdamW."""
    beta1: Decay = 0.9
    """Decay of AdamW's first moment."""
    beta2: Decay = 0.999
    """Decay of AdamW's second moment."""
    eps: NotNegative = 1e-8
    """AdamW's epsilon."""
    weight_decay: NotNegative = 0.01
    """Decoupled weight decay of AdamW."""
    weight_decay_on: Literal["matrices", "everything"] = "matrices"
    """Matrices: norms, biases and embeddings of positions do not decay. Everything: torch's default, all do."""
    muon_learning_rate: NotNegative = 0.02
    """Peak learning rate of Muon."""
    muon_momentum: Decay = 0.95
    """Nesterov momentum of Muon."""
    muon_weight_decay: NotNegative = 0.1
    """Decoupled weight decay of Muon."""
    max_grad_norm: NotNegative = 0.0
    """The gradient's norm is clipped to this; 0: no clipping."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig(Section):
    """How the learning rate moves."""

    name: Literal["constant", "plateau", "cosine", "wsd"] = "constant"
    """Constant, reduced on a plateau of the validation loss, cosine, or warm-up, stable, decay."""
    warmup_steps: CountOrZero = 0
    """Steps of linear warm-up."""
    decay_fraction: Share = 0.5
    """Share of all steps over which `wsd` falls linearly."""
    final_ratio: Share = 0.0
    """Learning rate at the end over the peak (`cosine`, `wsd`); the least that `plateau` falls to."""
    plateau_factor: Share = 0.1
    """What the learning rate is multiplied by on a plateau."""
    plateau_patience: Count = 5
    """Evaluations in a row without an improvement that change nothing; after one more the learning rate falls."""
    plateau_threshold: Share = 1e-3
    """Relative fall of the validation loss that counts as an improvement."""


_COMPILE = {False: "no", True: "yes"}  # as recipe.json of earlier versions has it


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig(Section):
    """How long, where, and what is kept."""

    dir: Annotated[Path | None, flag("--run-dir")] = None
    """The run's folder; unset: runs/RECIPE."""
    resume: Annotated[bool, flag("--resume")] = False
    """Resume from the latest checkpoint of the folder, if it has one."""
    keep_tokens: Annotated[bool, flag("--keep-tokens")] = False
    """Resume with the tokens in the folder even where the files of the corpus have changed since they were made."""
    base_model: Annotated[str | None, flag("--from")] = None
    """A ScratchGPT model to go on from, in place of random weights: a bundle, a checkpoint, a run folder (its best
    checkpoint) or a Hub id. Its architecture and its tokenizer are kept; the optimizer is new."""
    steps: Annotated[Count, flag("--steps")] = 10_000
    """Optimizer steps."""
    minutes: Annotated[NotNegative, flag("--minutes")] = 0.0
    """With the recipe modern: minutes that the whole command may take. This machine is measured for a few seconds, and
    model, vocabulary, batch, steps and schedule are chosen for the lowest expected loss. 0: as the recipe says."""
    max_seconds: NotNegative = 0.0
    """Time limit of the steps of all sessions, in seconds. Where the machine is too slow for `steps`, the limit is
    stretched, up to `max_stretch` times; only then is the schedule shortened, and the run says that it was cut short. A
    run that its limit has cut short gets it again when it is resumed. 0: none."""
    max_stretch: Annotated[float, Field(ge=1)] = 1.0
    """How many times as long the time limit may become. 1: a hard limit, as a --run.max-seconds on the command line
    is without this flag."""
    skip_batches: tuple[Count, ...] = ()
    """Numbers of batches that are left out, from 1; a run that stops because of one says its number."""
    spike_factor: NotNegative = 100.0
    """A run stops, before the weights move, at a gradient norm of more than so many times the largest of the last 100
    steps, and at a loss that is five times both that of the first step and that of guessing. 0: only at numbers that
    are not finite."""
    seed: Annotated[int, Field(ge=0, lt=2**63), flag("--seed")] = 1337
    """Seed of weights, batches and dropout."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Auto: bf16 where the device computes it natively (and, on a CPU, the model is 64 wide or more)."""
    threads: CountOrZero = 0
    """CPU threads; 0: torch's choice, a thread a core or OMP_NUM_THREADS; a run with a time limit tries fewer, again
    when its pace changes. The number changes the last bits of a result: give one to repeat such a run exactly."""
    tracker: Annotated[Literal["none", "trackio", "tensorboard", "wandb"], flag("--tracker")] = "none"
    """Experiment tracker that gets the metrics too, through accelerate."""
    compile: Annotated[Literal["try", "yes", "no"], BeforeValidator(lambda given: _COMPILE.get(given, given))] = "try"
    """Whether steps go through torch.compile. Try: a run of ten minutes or more on CUDA, on a CPU one with one thread
    and a time limit of half an hour or more, measures it in a minute or two and keeps it if 5 % faster."""
    evaluate_every: Count = 100
    """Steps between evaluations."""
    checkpoint_every: Count = 500
    """Steps between checkpoints (the last step makes one too)."""
    keep_checkpoints: Count = 2
    """Checkpoints kept besides the best: the latest ones."""
    log_every: Count = 10
    """Steps between lines of metrics.jsonl."""
    sample_tokens: CountOrZero = 100
    """Length of the samples written at each checkpoint, in tokens; shorter ones are written at steps 1, 3, 10, 30,
    100, 300 and so on, if it is not 0."""
    output_tokens: CountOrZero = 0
    """At the end, text of so many tokens from an empty prompt is shown and written to output.txt; 0: none."""
    push: Annotated[str | None, flag("--push")] = None
    """At the end, publish the run on the Hugging Face Hub under this name (`user/name`); unset: no."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(Section):
    """One run."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    run: RunConfig = field(default_factory=RunConfig)


_ADAPTER = TypeAdapter(Config)
# pydantic's kinds of errors in the words of the messages; a kind that is missing here keeps pydantic's own words.
_EXPECTED = {
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "less than {lt:g}",
    "literal_error": "{expected}",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "dataclass_type": "its fields and their values",
}


def as_json(config: Config) -> dict[str, Any]:
    """The tree as plain JSON values."""
    return _ADAPTER.dump_python(config, mode="json", warnings=False)


def from_json(tree: dict[str, Any]) -> Config:
    """The tree that `as_json` wrote; what it leaves out has its default.

    Raises:
        ValueError: for a section or field that does not exist, or a value of another type or out of range; the
            message names the flag, what was expected and what was got.
    """
    try:
        return _ADAPTER.validate_json(json.dumps(tree))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"][:2]))
        if first["type"] == "unexpected_keyword_argument":
            check_name(name)
        raise ValueError(f"{as_flag(name)}: {_explain(first)}") from None


def as_flag(name: str) -> str:
    """The flag of a `section.field`."""
    return f"--{name.replace('_', '-')}"


def field_types() -> dict[str, Any]:
    """The type of every field, as `section.field`; with its range, if it has one."""
    return {
        f"{section}.{name}": hint
        for section, kind in get_type_hints(Config).items()
        for name, hint in get_type_hints(kind, include_extras=True).items()
    }


def check_name(text: str) -> str:
    """`section.field`, of a name that may be written with hyphens.

    Raises:
        ValueError: for a field that does not exist; the message lists those of the section.
    """
    name = text.replace("-", "_")
    known = field_types()
    if name not in known:
        section = name.split(".")[0] + "."
        close = [other for other in known if other.startswith(section)]
        expected = ", ".join(close) if close else "section.field, such as optimizer.learning_rate"
        raise ValueError(f"unknown field {text!r}: expected {expected}")
    return name


def parse_field(name: str, text: str) -> Any:
    """The value of a field of numbers, words or truth values that a text stands for.

    Raises:
        ValueError: naming the field, what was expected and what was got.
    """
    hint = field_types()[name]
    if text.lower() == "none" and NoneType in _alternatives(hint):
        return None
    try:
        return TypeAdapter(hint).validate_strings(text)
    except ValidationError as error:
        raise ValueError(f"{name}: {_explain(error.errors()[0])}") from None


def numeric_type(name: str) -> type[int] | type[float] | None:
    """`int` or `float` for a field of numbers, else None."""
    return next((kind for kind in (int, float) if kind in _alternatives(field_types()[name])), None)


def value_of(config: Config, name: str) -> Any:
    """The value of a `section.field`."""
    section, leaf = name.split(".")
    return getattr(getattr(config, section), leaf)


def replace_fields(config: Config, values: dict[str, Any]) -> Config:
    """The config with the values of some `section.field` replaced."""
    for name, value in values.items():
        section, leaf = name.split(".")
        changed = dataclasses.replace(getattr(config, section), **{leaf: value})
        config = dataclasses.replace(config, **{section: changed})
    return config


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself, without a range."""
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _explain(error: Any) -> str:
    words = _EXPECTED.get(error["type"]) or error["msg"].removeprefix("Input should be ")
    return f"expected {words.format_map(error.get('ctx', {}))}, got {error['input']!r}"


def write_recipe(config: Config, recipe: str, folder: RunFolder, fitted: dict[str, Any] | None = None) -> None:
    """Write recipe.json: the resolved config, the git commit and the versions of the libraries.

    Args:
        fitted: the fields, by name, that were changed to fit a time or a short text (`train.data.fitting`).
    """
    folder.write_recipe(
        {
            "recipe": recipe,
            "config": as_json(config),
            "fitted": fitted or {},
            "git_commit": git_commit(),
            "versions": {name: version(name) for name in LIBRARIES},
        }
    )


def git_commit() -> str | None:
    """The commit of the sources, with a `+` when they differ from it; None outside a repository."""

    def git(*words: str) -> Any:
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)

    try:
        head, status = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    except OSError:
        return None
    return head.stdout.strip() + ("+" if status.stdout else "") if head.returncode == 0 else None
