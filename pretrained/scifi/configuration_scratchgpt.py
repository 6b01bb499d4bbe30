"""The configuration of a ScratchGPT model: every field typed, explained, and checked against the others.

Two families share it. *Classic* is what the tutorials teach (LayerNorm, learned positions, ReLU, an output layer of
its own); the defaults are the science-fiction recipe. *Modern* stays within the shape of transformers' Qwen3 (RMSNorm,
rotary positions, normed queries and keys, a gated SiLU MLP, tied embeddings, no biases).
"""

import difflib
import inspect
import os
import re
from collections.abc import Iterable
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import transformers
from transformers import PretrainedConfig
from transformers.activations import ACT2FN

CODE_VERSION = "0.2.0"
"""Version of ScratchGPT that these files belong to; config.json keeps it as `scratchgpt_version`."""
LOWEST_TRANSFORMERS, NEWEST_TRANSFORMERS = "4.57.6", "5.24.0"
"""The versions of transformers between which these files were run (docs/compatibility.md); newer ones are allowed."""


def version_numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparisons: (5, 24, 0) of "5.24.0", "5.24.0rc1" and "5.24.0.dev0"."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


if version_numbers(transformers.__version__) < version_numbers(LOWEST_TRANSFORMERS):
    raise ImportError(
        f"ScratchGPT models need transformers {LOWEST_TRANSFORMERS} or newer, got {transformers.__version__}: "
        "run `pip install --upgrade transformers`."
    )

AUTO_MAP = {
    "AutoConfig": "configuration_scratchgpt.ScratchGPTConfig",
    "AutoModel": "modeling_scratchgpt.ScratchGPTModel",
    "AutoModelForCausalLM": "modeling_scratchgpt.ScratchGPTForCausalLM",
    "AutoModelForMaskedLM": "modeling_scratchgpt.ScratchGPTForMaskedLM",
}
# Names, in a config.json, the version of ScratchGPT that wrote it.
VERSION_KEY = "scratchgpt_version"
# What transformers and its tools write into a config.json beside a model's own fields.
FOREIGN_KEYS = frozenset(
    {
        *("model_type", "auto_map", "name_or_path", "num_labels", "dtype", "torch_dtype", "tokenizer_class"),
        *("task_specific_params", VERSION_KEY),
        *("attn_implementation", "experts_implementation", "output_attentions", "rope_scaling"),
        "quantization_config",
    }
)
# Rotary positions: what scales them to a longer context, and the settings that each kind must and may have.
ROPE_TYPES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "default": (frozenset(), frozenset()),
    "linear": (frozenset({"factor"}), frozenset()),
    "dynamic": (frozenset({"factor"}), frozenset()),
    "yarn": (
        frozenset({"factor"}),
        frozenset({"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}),
    ),
    "llama3": (
        frozenset({"factor", "low_freq_factor", "high_freq_factor"}),
        frozenset(),
    ),
}
COMMON_ROPE_SETTINGS = frozenset({"rope_theta", "original_max_position_embeddings"})
# Lists, in a config.json, the attributes that somebody set on the config and that mean nothing to the model.
EXTRA_KEYS = "extra_keys"


def is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type: a class, a union, a Literal, or a list of one of them."""
    if get_origin(kind) is UnionType:
        return any(is_a(value, option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(is_a(item, get_args(kind)[0]) for item in value)
    return isinstance(value, get_origin(kind) or kind) and (kind is bool or not isinstance(value, bool))


class ScratchGPTConfig(PretrainedConfig):
    """Shape and choices of a ScratchGPT model. All arguments are keywords; an unknown one is a ValueError."""

    model_type = "scratchgpt"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]  # noqa: RUF012  the second from transformers 5.24 on
    base_model_tp_plan = {  # noqa: RUF012
        "layers.*.self_attn.q_proj": "colwise",
        "layers.*.self_attn.k_proj": "colwise",
        "layers.*.self_attn.v_proj": "colwise",
        "layers.*.self_attn.q_norm": "replicated_with_grad_allreduce",
        "layers.*.self_attn.k_norm": "replicated_with_grad_allreduce",
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.gate_proj": "colwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }
    _auto_class = "AutoConfig"

    vocab_size: int = 8257
    """Number of tokens, special ones included."""
    hidden_size: int = 256
    """Width of the residual stream."""
    intermediate_size: int | None = None
    """Width of the MLP's hidden layer; None is 4 x hidden_size."""
    num_hidden_layers: int = 6
    """Number of blocks."""
    num_attention_heads: int = 6
    """Query heads of each attention."""
    num_key_value_heads: int | None = None
    """Key and value heads, each shared by an equal group of query heads; None is num_attention_heads."""
    head_dim: int | None = None
    """Width of one head; None is hidden_size // num_attention_heads. The heads need not add up to hidden_size."""
    max_position_embeddings: int = 256
    """Context length in tokens: the most a learned table can number, the length trained at for the other positions."""

    hidden_act: str = "relu"
    """Activation of the MLP, a name from transformers' ACT2FN."""
    gated_mlp: bool = False
    """True: down(act(gate(x)) * up(x)); False: down(act(up(x)))."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Kind of every norm, those of queries and keys included. LayerNorm has weight and bias, RMSNorm a weight."""
    norm_position: Literal["pre", "post"] = "pre"
    """pre: x + f(norm(x)); post: norm(x + f(x)). Both end in a final norm."""
    norm_eps: float | int = 1e-5
    """Added to the variance in every norm."""
    position_embedding: Literal["learned", "sinusoidal", "rope"] = "learned"
    """learned: a table added to the embeddings; sinusoidal: fixed sines and cosines; rope: rotated queries and keys."""
    rope_theta: float | int = 10000.0
    """Base of the rotary frequencies; read only with position_embedding="rope"."""
    rope_parameters: dict[str, Any] | None = None
    """Rotary positions as transformers' own models state them: rope_type (default, linear, dynamic, yarn or llama3),
    rope_theta, and the numbers of that type, which scale the positions to a longer context. None is the default type
    with the field rope_theta; {} stands for positions that are not rotary."""
    qk_norm: bool = False
    """True: norm each head's query and key before the rotation."""
    attention_bias: bool = False
    """Bias in the projections to queries, keys and values."""
    attention_output_bias: bool = True
    """Bias in the projection from the heads back to hidden_size."""
    mlp_bias: bool = True
    """Bias in the MLP's projections."""
    lm_head_bias: bool = True
    """Bias of the output layer. Allowed beside tied embeddings: BERT's output layer is tied and has one."""
    tie_word_embeddings: bool = False
    """True: the output layer's weight is the embedding table."""

    embedding_dropout: float | int = 0.0
    """Probability of dropping a value of the embedded input while training."""
    attention_dropout: float | int = 0.0
    """Probability of dropping an attention weight while training."""
    residual_dropout: float | int = 0.0
    """Probability of dropping a value of an attention's or MLP's output while training."""
    mlp_dropout: float | int = 0.0
    """Probability of dropping a value of the MLP's hidden layer while training."""
    initializer: Literal["normal", "pytorch"] = "normal"
    """normal: initial embeddings and projections from N(0, initializer_range), biases zero. pytorch: torch's own
    defaults, embeddings from N(0, 1), weights and biases of projections uniform up to 1 / sqrt(inputs)."""
    initializer_range: float | int = 0.02
    """Standard deviation of the initial embeddings and projections; read only with initializer="normal"."""
    output_projection_init: Literal["scaled", "normal", "zero"] = "scaled"
    """Initial o_proj and down_proj: scaled by 1 / sqrt(2 x num_hidden_layers), like the rest, or zero."""

    use_cache: bool = True
    """Return keys and values for the next step unless specified otherwise."""
    bos_token_id: int | None = None
    """Id of the token that begins a text."""
    eos_token_id: int | list[int] | None = None
    """Id, or ids, of the token that ends a text."""
    pad_token_id: int | None = None
    """Id of the token that fills up a batch. Its embedding is learned like any other: it may be the eos token."""

    def __init__(self, **kwargs: Any) -> None:
        # An __init__ of its own: before 5.4 transformers' configs were no dataclasses, and every version takes one.
        defaults = {name: getattr(ScratchGPTConfig, name) for name in FIELDS}
        values = {name: kwargs.pop(name, default) for name, default in defaults.items()}
        rope_scaling, extra_keys = kwargs.pop("rope_scaling", None), kwargs.pop(EXTRA_KEYS, ())
        version = str(kwargs.pop(VERSION_KEY, CODE_VERSION))
        self._reject_unknown((name for name in kwargs if name not in extra_keys), version)
        super().__init__(**kwargs)  # first: before 5.0 it sets some of our fields to its own defaults
        for name, value in values.items():
            setattr(self, name, value)
        if not self.gated_mlp:
            plan: dict[str, Any] = dict(type(self).base_model_tp_plan or {})
            plan.pop("layers.*.mlp.gate_proj", None)
            self.base_model_tp_plan = plan  # pyright: ignore[reportAttributeAccessIssue]
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None and self.num_attention_heads > 0:
            self.head_dim = self.hidden_size // self.num_attention_heads
        self.validate_sizes()
        self.validate_choices()
        self.rope_parameters = self._complete_rope_parameters(dict(rope_scaling or self.rope_parameters or {}))
        self.validate_rope_parameters()

    def __setattr__(self, name: str, value: Any) -> None:
        """Check the type of a field, and keep rope_theta and rope_parameters in step when either is set later."""
        if name in FIELDS and not is_a(value, FIELDS[name]):
            kinds = get_args(FIELDS[name]) or (FIELDS[name],)
            expected = " or ".join(getattr(kind, "__name__", repr(kind)) for kind in kinds)
            raise ValueError(
                f"{name} must be {expected.replace('NoneType', 'None')}; got {value!r} ({type(value).__name__})."
            )
        if name == "rope_parameters" and value and self.rope_parameters:
            value = {"rope_type": value.get("type", "default"), "rope_theta": self.rope_theta, **value}
        super().__setattr__(name, value)
        if name == "rope_theta" and self.rope_parameters:
            self.rope_parameters["rope_theta"] = value

    def _complete_rope_parameters(self, given: dict[str, Any]) -> dict[str, Any]:
        """Rotary settings with their type, base and (where it matters) the context length that they stretch."""
        if self.position_embedding != "rope":
            return given
        self.rope_theta = given.get("rope_theta", self.rope_theta)
        complete = {"rope_type": given.pop("type", "default"), "rope_theta": self.rope_theta, **given}
        if complete["rope_type"] in ("yarn", "llama3"):
            complete.setdefault("original_max_position_embeddings", self.max_position_embeddings)
        return complete

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write config.json with an `auto_map` for every class, so that a saved folder loads under each head."""
        self.auto_map = dict(AUTO_MAP)
        for validate in (self.validate_sizes, self.validate_choices, self.validate_rope_parameters):
            validate()  # fields may have been set since this config was made
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As transformers' own, with the version of this code, and under `extra_keys` the names of attributes that were
        set from outside."""
        written = super().to_dict()
        if written["rope_parameters"]:
            written["rope_theta"] = written["rope_parameters"]["rope_theta"]
        if not self.scales_positions:
            del written["rope_parameters"]
        written[VERSION_KEY] = CODE_VERSION
        known = FIELDS.keys() | FOREIGN_KEYS | PretrainedConfig().to_dict().keys()
        extra_keys = sorted(name for name in written if name not in known and not name.startswith("_"))
        return written | ({EXTRA_KEYS: extra_keys} if extra_keys else {})

    @property
    def scales_positions(self) -> bool:
        """Whether rotary positions are scaled to a longer context than the one trained at."""
        return (self.rope_parameters or {}).get("rope_type", "default") != "default"

    def _reject_unknown(self, names: Iterable[str], version: str) -> None:
        """Raise a ValueError for a name that is neither a field nor one of transformers' own keys."""
        known = FOREIGN_KEYS | PretrainedConfig().to_dict().keys()
        for name in names:
            if name in known or name.startswith("_"):
                continue
            close = difflib.get_close_matches(name, FIELDS, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"the fields are {', '.join(sorted(FIELDS))}."
            if version_numbers(version) > version_numbers(CODE_VERSION):
                hint = f"ScratchGPT {version} wrote it, and this is the code of {CODE_VERSION}: take the newer code."
            raise ValueError(f"ScratchGPTConfig has no field {name!r}; {hint}")

    def validate_sizes(self) -> None:
        """Raise a ValueError for a number out of its range."""
        if 0 < self.hidden_size < self.num_attention_heads and self.head_dim == 0:
            raise ValueError(
                f"hidden_size {self.hidden_size} leaves nothing for each of {self.num_attention_heads} heads: "
                "use fewer heads, a larger hidden_size, or set head_dim."
            )
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("embedding_dropout", "attention_dropout", "residual_dropout", "mlp_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a probability, at least 0 and below 1; got {getattr(self, name)}.")
        for name in ("norm_eps", "rope_theta", "initializer_range"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}.")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, name)
            for token_id in value if isinstance(value, list) else [value]:
                if token_id is not None and not 0 <= token_id < self.vocab_size:
                    raise ValueError(
                        f"{name} must be a token of the vocabulary, 0 to {self.vocab_size - 1}; got {token_id}."
                    )

    def validate_choices(self) -> None:
        """Raise a ValueError for fields that make no sense together."""
        assert self.num_key_value_heads is not None
        assert self.head_dim is not None
        if self.hidden_act not in ACT2FN:
            close = difflib.get_close_matches(self.hidden_act, ACT2FN, n=3) or ["relu", "gelu_new", "silu"]
            raise ValueError(
                f"hidden_act {self.hidden_act!r} is no activation of transformers; try {' or '.join(close)}."
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads must divide num_attention_heads, since each key head serves an equal group of "
                f"query heads; got {self.num_key_value_heads} for {self.num_attention_heads}."
            )
        if self.position_embedding == "rope" and self.head_dim % 2:
            raise ValueError(
                f"rotary positions turn the values of a head in pairs, so head_dim must be even; got {self.head_dim}: "
                "set head_dim, or change hidden_size or num_attention_heads."
            )
        if self.position_embedding == "sinusoidal" and self.hidden_size % 2:
            raise ValueError(
                f"sinusoidal positions are pairs of sine and cosine, so hidden_size must be even; "
                f"got {self.hidden_size}."
            )
        if self.initializer == "pytorch" and self.initializer_range != 0.02:
            raise ValueError(
                f'initializer_range {self.initializer_range} has no effect with initializer="pytorch": leave it out, '
                'or set initializer="normal".'
            )
        if self.initializer == "pytorch" and self.tie_word_embeddings:
            raise ValueError(
                'initializer="pytorch" draws embeddings from N(0, 1); as a tied output layer they would give logits of '
                'sqrt(hidden_size): set tie_word_embeddings=False, or initializer="normal".'
            )
        if self.position_embedding != "rope" and self.rope_theta != 10000:
            raise ValueError(
                f"rope_theta {self.rope_theta} has no effect with position_embedding={self.position_embedding!r}: "
                'leave it out, or set position_embedding="rope".'
            )

    def validate_rope_parameters(self) -> None:
        """Raise a ValueError for rotary settings that make no sense."""
        settings = {name: value for name, value in (self.rope_parameters or {}).items() if value is not None}
        if self.position_embedding != "rope":
            if settings:
                raise ValueError(
                    f"rope_parameters have no effect with position_embedding={self.position_embedding!r}: "
                    'leave them out, or set position_embedding="rope".'
                )
            return
        settings.pop("type", None)
        rope_type = settings.pop("rope_type", "default")
        if rope_type not in ROPE_TYPES:
            raise ValueError(f"rope_type must be one of {', '.join(ROPE_TYPES)}; got {rope_type!r}.")
        if settings.pop("partial_rotary_factor", 1) != 1:
            raise ValueError("partial_rotary_factor must be 1: this model turns every value of a head.")
        needed, possible = ROPE_TYPES[rope_type]
        if missing := sorted(needed - set(settings)):
            raise ValueError(f"rope_type {rope_type!r} needs {' and '.join(missing)} in rope_parameters.")
        if unknown := sorted(set(settings) - needed - possible - COMMON_ROPE_SETTINGS):
            raise ValueError(f"rope_type {rope_type!r} has no {' and no '.join(unknown)} in rope_parameters.")
        for name, value in settings.items():
            if name != "truncate" and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
                raise ValueError(f"{name} in rope_parameters must be a number above 0; got {value!r}.")
        if settings.get("factor", 1) < 1:
            raise ValueError(f"factor in rope_parameters must be at least 1; got {settings['factor']}.")
        if rope_type == "llama3" and settings["low_freq_factor"] >= settings["high_freq_factor"]:
            raise ValueError("low_freq_factor in rope_parameters must be below high_freq_factor.")
        if rope_type == "dynamic" and self.head_dim == 2:
            raise ValueError('rope_type "dynamic" needs a head_dim above 2.')


FIELDS: dict[str, Any] = inspect.get_annotations(ScratchGPTConfig)
"""The fields' names and types."""
