"""The typed config tree of a run: seven sections, each field explained where it is declared.

A recipe is a function in `train/recipes/` that returns one full `Config`; the command line replaces single fields
(`--section.field value`); what is left unsaid is the recipe's. The resolved tree is written to `recipe.json`.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

import tyro

if TYPE_CHECKING:
    from modeling import ScratchGPTConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusConfig:
    """Where the text comes from."""

    source: Literal["stories", "gutenberg", "hub", "local"] = "local"
    """Stories: our generator, with a known entropy. Gutenberg: books by id over HTTP. Hub: a data set of the Hugging
    Face Hub. Local: `paths`."""
    paths: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=("--corpus",))] = ()
    """Files (txt, jsonl, parquet; gz, xz, zst of them), folders or globs. Given on the command line, they replace the
    recipe's own source."""
    text_field: str = "text"
    """Field of jsonl records, or column of parquet files and data sets, that holds the text."""
    skip_broken: bool = False
    """Leave out, by name, files that cannot be read, instead of stopping at the first."""
    dataset: str | None = None
    """Id of a data set on the Hub, for `source = hub`."""
    dataset_config: str | None = None
    """Its configuration, where it has several."""
    joined_rows: bool = False
    """The data set's rows are pieces of one running text, not documents of their own."""
    books: Literal["any", "scifi"] = "any"
    """Scifi: files with the number of one of that recipe's books must have its title; the wrong book is refused."""
    gutenberg_url: str = "https://www.gutenberg.org"
    """Base URL of Project Gutenberg or a mirror."""
    stories: int = 30_000
    """Number of training stories, for `source = stories`."""
    validation_stories: int = 500
    """Number of held-out stories, for `source = stories`."""
    seed: int = 0
    """Seed of the story generator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """How text becomes ids."""

    kind: Literal["bpe", "characters", "wordpiece", "sentencepiece", "gpt2"] = "bpe"
    """Bpe: our byte-level BPE. Characters: one token each. WordPiece and SentencePiece: trained by their libraries.
    Gpt2: GPT-2's own vocabulary, from the Hub."""
    vocab_size: int = 8257
    """Size of the vocabulary, in tokens; for `bpe` 256 bytes, the merges and the special tokens. Characters and gpt2
    have the size they have."""
    path: Path | None = None
    """Folder of a tokenizer that exists already, instead of training one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The architecture; the names are those of `ScratchGPTConfig`, which validates them."""

    hidden_size: int = 256
    """Width of the residual stream."""
    intermediate_size: int | None = None
    """Width inside the MLP; unset: 4 x hidden_size."""
    num_hidden_layers: int = 6
    """Number of blocks."""
    num_attention_heads: int = 6
    """Number of query heads."""
    num_key_value_heads: int | None = None
    """Number of key and value heads (grouped-query attention); unset: as many as query heads."""
    head_dim: int | None = None
    """Width of a head; unset: hidden_size // num_attention_heads."""
    max_position_embeddings: int = 256
    """Context length, in tokens."""
    hidden_act: str = "relu"
    """Activation of the MLP, by its transformers name."""
    gated_mlp: bool = False
    """A gate beside the up projection (SwiGLU with hidden_act silu)."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Kind of normalisation."""
    norm_position: Literal["pre", "post"] = "pre"
    """Pre: x + f(N(x)). Post: N(x + f(x))."""
    norm_eps: float = 1e-5
    """Epsilon inside the normalisation."""
    position_embedding: Literal["learned", "sinusoidal", "rope"] = "learned"
    """How positions enter."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    qk_norm: bool = False
    """RMSNorm on queries and keys, per head."""
    attention_bias: bool = False
    """Bias of the query, key and value projections."""
    attention_output_bias: bool = True
    """Bias of the attention's output projection."""
    mlp_bias: bool = True
    """Bias of the MLP's projections."""
    lm_head_bias: bool = True
    """Bias of the output layer."""
    tie_word_embeddings: bool = False
    """Output layer and token embedding share their weights."""
    embedding_dropout: float = 0.0
    """Dropout rate after the embeddings."""
    attention_dropout: float = 0.0
    """Dropout rate on the attention weights."""
    residual_dropout: float = 0.0
    """Dropout rate on what each block adds to the residual stream."""
    initializer_range: float = 0.02
    """Standard deviation of the weights at the start."""
    output_projection_init: Literal["scaled", "normal", "zero"] = "scaled"
    """Start of the projections that write to the residual stream: GPT-2's 1/sqrt(2 layers), plain, or zero."""

    def build(self, *, vocab_size: int, end_of_text: int) -> "ScratchGPTConfig":
        """The model's config for a vocabulary of `vocab_size` whose document separator has the id `end_of_text`."""
        from modeling import ScratchGPTConfig

        return ScratchGPTConfig(
            **dataclasses.asdict(self), vocab_size=vocab_size, bos_token_id=end_of_text, eos_token_id=end_of_text
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """How ids become batches."""

    batch_size: int = 32
    """Windows per optimizer step, over all devices and accumulation steps."""
    gradient_accumulation_steps: int = 1
    """Micro-batches per optimizer step; must divide batch_size."""
    windows: Literal["random", "packed"] = "random"
    """Random: windows at uniformly random places. Packed: every window begins at a document (or a piece of a long
    one), documents shuffled anew each epoch."""
    objective: Literal["causal", "masked"] = "causal"
    """Causal: predict the next token. Masked: predict tokens that were hidden, from both sides (BERT)."""
    mask_rate: float = 0.15
    """Share of the tokens that the masked objective selects; of these 80 % become the mask token, 10 % a random one."""
    split: Literal["tokens", "text", "files"] = "tokens"
    """What is cut off for validation: the end of each chunk of tokens, the end of each chunk of text, or whole files.
    (Stories and data sets that have a validation split of their own keep it.)"""
    validation_chunk: int = 20_000
    """The text is cut in chunks of so many tokens, or characters …"""
    validation_fraction: float = 0.1
    """… and this share at the end of each, or of the files, is for validation."""
    evaluation_windows: int = 384
    """Size of the fixed set of validation windows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """How weights move."""

    name: Literal["adamw", "muon"] = "adamw"
    """AdamW on everything, or Muon on the blocks' matrices and AdamW on the rest."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    beta1: float = 0.9
    """Decay of AdamW's first moment."""
    beta2: float = 0.999
    """Decay of AdamW's second moment."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    weight_decay: float = 0.01
    """Decoupled weight decay on matrices (AdamW); norms, biases and embeddings of positions have none."""
    muon_learning_rate: float = 0.02
    """Peak learning rate of Muon."""
    muon_momentum: float = 0.95
    """Nesterov momentum of Muon."""
    muon_weight_decay: float = 0.1
    """Decoupled weight decay of Muon."""
    max_grad_norm: float = 0.0
    """The gradient's norm is clipped to this; 0: no clipping."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """How the learning rate moves."""

    name: Literal["constant", "plateau", "cosine", "wsd"] = "constant"
    """Constant, reduced on a plateau of the validation loss, cosine, or warm-up, stable, decay."""
    warmup_steps: int = 0
    """Steps of linear warm-up."""
    decay_fraction: float = 0.5
    """Share of all steps over which `wsd` falls linearly."""
    final_ratio: float = 0.0
    """Learning rate at the end over the peak (`cosine`, `wsd`); the least that `plateau` falls to."""
    plateau_factor: float = 0.1
    """What the learning rate is multiplied by on a plateau."""
    plateau_patience: int = 5
    """Evaluations without an improvement that make a plateau."""
    plateau_threshold: float = 1e-3
    """Relative fall of the validation loss that counts as an improvement."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """How long, where, and what is kept."""

    dir: Annotated[Path | None, tyro.conf.arg(aliases=("--run-dir",))] = None
    """The run's folder; unset: runs/RECIPE."""
    resume: Annotated[bool, tyro.conf.arg(aliases=("--resume",))] = False
    """Go on from the latest checkpoint of the folder, if it has one."""
    steps: Annotated[int, tyro.conf.arg(aliases=("--steps",))] = 10_000
    """Optimizer steps."""
    max_seconds: float = 0.0
    """Time limit of the steps, in seconds; the schedule shrinks to fit where the machine is too slow. 0: none."""
    seed: Annotated[int, tyro.conf.arg(aliases=("--seed",))] = 1337
    """Seed of weights, batches and dropout."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Auto: bf16 where the device computes it natively (and, on a CPU, the model is 256 wide or more)."""
    threads: int = 0
    """CPU threads; 0: torch's choice."""
    tracker: Annotated[Literal["none", "trackio", "tensorboard", "wandb"], tyro.conf.arg(aliases=("--tracker",))] = (
        "none"
    )
    """Experiment tracker that gets the metrics too, through accelerate."""
    compile: bool = False
    """Compile the model with torch.compile."""
    evaluate_every: int = 100
    """Steps between evaluations."""
    checkpoint_every: int = 500
    """Steps between checkpoints (the last step makes one too)."""
    keep_checkpoints: int = 2
    """Checkpoints kept besides the best: the latest ones."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    sample_tokens: int = 100
    """Length of the samples written at each checkpoint, in tokens."""
    output_tokens: int = 0
    """At the end, text of so many tokens from an empty prompt is shown and written to output.txt; 0: none."""
    push: Annotated[str | None, tyro.conf.arg(aliases=("--push",))] = None
    """At the end, publish the run on the Hugging Face Hub under this name (`user/name`); unset: no."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """One run."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    run: RunConfig = field(default_factory=RunConfig)


_AT_LEAST = {
    "corpus.stories": 1, "corpus.validation_stories": 1, "data.batch_size": 1, "data.gradient_accumulation_steps": 1,
    "data.validation_chunk": 2, "data.evaluation_windows": 1, "optimizer.learning_rate": 0, "optimizer.eps": 0,
    "optimizer.weight_decay": 0, "optimizer.muon_learning_rate": 0, "optimizer.muon_weight_decay": 0,
    "optimizer.max_grad_norm": 0, "schedule.warmup_steps": 0, "schedule.plateau_patience": 1, "run.steps": 1,
    "run.max_seconds": 0, "run.threads": 0, "run.evaluate_every": 1, "run.checkpoint_every": 1,
    "run.keep_checkpoints": 1, "run.log_every": 1, "run.sample_tokens": 0, "run.output_tokens": 0,
}  # fmt: skip
_BETWEEN_0_AND_1 = (
    "data.validation_fraction", "optimizer.beta1", "optimizer.beta2", "optimizer.muon_momentum",
    "schedule.decay_fraction", "schedule.final_ratio", "schedule.plateau_factor", "schedule.plateau_threshold",
)  # fmt: skip


def value_of(config: Config, name: str) -> Any:
    """The value of `section.field`."""
    section, leaf = name.split(".")
    return getattr(getattr(config, section), leaf)


def validate(config: Config) -> None:
    """Check every range that the types do not say.

    Raises:
        ValueError: naming the flag, what was expected and what was got.
    """

    def flag(name: str) -> str:
        return "--" + name.replace("_", "-")

    for name, least in _AT_LEAST.items():
        if not value_of(config, name) >= least:
            raise ValueError(f"{flag(name)}: expected at least {least}, got {value_of(config, name)}")
    for name in _BETWEEN_0_AND_1:
        if not 0 <= value_of(config, name) <= 1:
            raise ValueError(f"{flag(name)}: expected a number from 0 to 1, got {value_of(config, name)}")
    if not 0 < config.data.validation_fraction < 1:
        raise ValueError(
            f"--data.validation-fraction: expected more than 0 and less than 1, got {config.data.validation_fraction}"
        )
    if config.data.batch_size % config.data.gradient_accumulation_steps:
        raise ValueError(
            f"--data.gradient-accumulation-steps: expected a divisor of the batch size {config.data.batch_size}, "
            f"got {config.data.gradient_accumulation_steps}"
        )
    if config.corpus.source == "hub" and config.corpus.dataset is None:
        raise ValueError("--corpus.dataset: expected the id of a data set on the Hub, got none")
    config.model.build(vocab_size=config.tokenizer.vocab_size, end_of_text=config.tokenizer.vocab_size - 1)


def as_json(config: Config) -> dict[str, Any]:
    """The tree as plain JSON values."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def from_json(tree: dict[str, Any]) -> Config:
    """The tree that `as_json` wrote.

    Raises:
        ValueError: for a section or field that does not exist.
    """

    def value(kind: Any, raw: Any) -> Any:
        if raw is None:
            return None
        kinds = get_args(kind) or (kind,)
        if Path in kinds:
            return tuple(Path(item) for item in raw) if isinstance(raw, list) else Path(raw)
        return raw

    sections = {}
    for name, kind in get_type_hints(Config).items():
        hints = get_type_hints(kind)
        given = tree.get(name, {})
        if unknown := sorted(set(given) - set(hints)):
            raise ValueError(f"recipe section {name!r}: expected the fields {sorted(hints)}, got also {unknown}")
        sections[name] = kind(**{key: value(hints[key], raw) for key, raw in given.items()})
    if unknown := sorted(set(tree) - set(sections)):
        raise ValueError(f"recipe: expected the sections {sorted(sections)}, got also {unknown}")
    return Config(**sections)
