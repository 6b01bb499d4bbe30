"""The ScratchGPT model: attention, MLP, block, base model, and heads for causal and masked language modelling.

Axes in tensor names: B batch, L tokens of this call, S tokens attended to (cached ones included), E hidden_size,
H query heads, G key/value heads, D head_dim, F half of a width, V vocabulary.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional, init
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast, MaskedLMOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import logging

from .configuration_scratchgpt import NEWEST_TRANSFORMERS, ScratchGPTConfig, version_numbers

logger = logging.get_logger(__name__)


class PositionFrequencies(nn.Module):
    """The frequencies that rotary and sinusoidal positions share: theta^(-2i / width) for each pair i."""

    inv_freq: torch.Tensor

    def __init__(self, width: int, theta: float) -> None:
        super().__init__()
        self.width, self.theta = width, theta
        self.register_buffer("inv_freq", self.frequencies(), persistent=False)

    def frequencies(self) -> torch.Tensor:
        return self.theta ** -(torch.arange(0, self.width, 2, dtype=torch.float32) / self.width)

    def angles(self, position_ids_BL: torch.Tensor) -> torch.Tensor:
        return position_ids_BL[..., None].float() * self.inv_freq.float()


class RotaryEmbedding(PositionFrequencies):
    """Cosines and sines by which queries and keys are rotated (RoFormer, arXiv:2104.09864).

    `config.rope_parameters` may stretch them to a longer context: see `scaled_frequencies`.
    """

    def __init__(self, config: ScratchGPTConfig) -> None:
        config.validate_rope_parameters()
        assert config.head_dim is not None
        assert config.rope_parameters is not None
        self.config, self.attention_scaling = config, 1.0
        super().__init__(config.head_dim, config.rope_parameters["rope_theta"])

    def frequencies(self, length: int = 0) -> torch.Tensor:
        if not self.config.scales_positions:
            return super().frequencies()
        inv_freq, self.attention_scaling = scaled_frequencies(self.config, length)
        return inv_freq

    @torch.no_grad()
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines (B, L, D) for position_ids (B, L); x is there for its device alone."""
        if (self.config.rope_parameters or {}).get("rope_type") == "dynamic":
            self.inv_freq = self.frequencies(int(position_ids.max()) + 1).to(x.device)
        angles_BLF = self.angles(position_ids)
        angles_BLD = torch.cat((angles_BLF, angles_BLF), dim=-1)
        return angles_BLD.cos() * self.attention_scaling, angles_BLD.sin() * self.attention_scaling


class SinusoidalEmbedding(PositionFrequencies):
    """Sines in the even columns and cosines in the odd ones (Attention Is All You Need, section 3.5)."""

    def forward(self, position_ids_BL: torch.Tensor) -> torch.Tensor:
        angles_BLF = self.angles(position_ids_BL)
        return torch.stack((angles_BLF.sin(), angles_BLF.cos()), dim=-1).flatten(-2)


def rotate(x_BHLD: torch.Tensor, cos_BLD: torch.Tensor, sin_BLD: torch.Tensor) -> torch.Tensor:
    """Rotate the pairs (i, i + D/2) of every head by their angle."""
    first, second = x_BHLD.chunk(2, dim=-1)
    cos, sin = (table_BLD.unsqueeze(1).to(x_BHLD.dtype) for table_BLD in (cos_BLD, sin_BLD))
    return x_BHLD * cos + torch.cat((-second, first), dim=-1) * sin


class RMSNorm(nn.RMSNorm):
    """torch's, made to work in its input's type where autocast gives it another than its weight's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def make_norm(config: ScratchGPTConfig, width: int) -> nn.Module:
    """The normalisation that the config names, over `width` values."""
    kind = nn.LayerNorm if config.norm == "layernorm" else RMSNorm
    return kind(width, eps=config.norm_eps)


def residual_projection(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    """A linear layer back to the residual stream, marked for `_init_weights`, which starts it differently."""
    linear = nn.Linear(inputs, outputs, bias=bias)
    linear.is_residual_projection = True  # pyright: ignore[reportArgumentType]
    return linear


class AttentionMask:
    """Which tokens each token may see, in one forward pass.

    Made when the first layer asks, and kept for the others: only then is it known how many keys there are, since a
    static cache holds room for tokens to come. (To ask the cache for that would be one more name of transformers.)

    given: as the model takes it: None, 2-D (B, S; 0 at padding), or ready for the attention function.
    place_L: the index of each token of this call among the keys.
    past: how many keys the cache holds already, an int or (static caches) a tensor.
    position_ids: as given by the caller, or None; without a mask, another text begins where they do not count on.
    Raises ValueError for a 2-D mask that is too short.
    """

    def __init__(
        self,
        given: torch.Tensor | None,
        place_L: torch.Tensor,
        past: int | torch.Tensor,
        position_ids: torch.Tensor | None,
        is_causal: bool,
    ) -> None:
        compiling, is_masked = torch.compiler.is_compiling(), given is not None
        self.is_ready = given is not None and (not isinstance(given, torch.Tensor) or given.dim() != 2)
        if given is not None and not self.is_ready and not compiling:
            end = place_L.shape[0] + past
            if given.shape[1] < end:
                raise ValueError(
                    f"expected an attention_mask for all {int(end)} tokens, those in the cache included, got one for "
                    f"{given.shape[1]}."
                )
            given = None if bool(given.all()) else given
        self.given, self.place_L, self.past, self.is_causal = given, place_L, past, is_causal
        self.text_BL: torch.Tensor | None = None
        self.made: torch.Tensor | None = None
        if position_ids is not None and not is_masked and isinstance(past, int) and past == 0:
            begins_BL = functional.pad(position_ids[:, 1:] != position_ids[:, :-1] + 1, (1, 0))
            if compiling or bool(begins_BL.any()):
                self.text_BL = begins_BL.cumsum(-1)

    def over(self, k_BGSD: torch.Tensor) -> torch.Tensor | None:
        """The mask (B or 1, 1, L, S), True where a token may be seen, on the device of the keys; None where no mask is
        needed: if it is causal, the attention function then leaves out what comes later, else nothing."""
        keys, device = k_BGSD.shape[2], k_BGSD.device
        if self.is_ready:
            return self.given.to(device) if isinstance(self.given, torch.Tensor) else self.given
        length = self.place_L.shape[0]
        is_full = isinstance(self.past, int) and keys == self.past + length  # no room for tokens to come
        if is_full and self.given is None and self.text_BL is None and (self.past == 0 or length == 1):
            return None
        if self.made is None:
            self.made = self.make(torch.arange(keys, device=self.place_L.device))
        return self.made.to(device)

    def make(self, key_S: torch.Tensor) -> torch.Tensor:
        """The mask over the keys with these indices."""
        itself_LS = key_S == self.place_L[:, None]
        mask = (key_S <= self.place_L[:, None] if self.is_causal else torch.ones_like(itself_LS))[None, None]
        if self.given is not None:
            room = key_S.shape[0] - self.given.shape[1]
            mask = mask & functional.pad(self.given.bool(), (0, room))[:, None, None]
        if self.text_BL is not None:
            mask = mask & (self.text_BL[:, None, :, None] == self.text_BL[:, None, None, :])
        return mask | itself_LS  # a padded token sees itself at least: softmax over nothing is not a number


def eager_attention(
    module: nn.Module,
    q_BHLD: torch.Tensor,
    k_BGSD: torch.Tensor,
    v_BGSD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    is_causal: bool = True,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out, in transformers' interface. Returns the output (B, L, H, D) and the weights (B, H, L, S).

    The mask may be one to add, one that is True where attention is allowed, or None: then `is_causal` decides.
    """
    groups = q_BHLD.shape[1] // k_BGSD.shape[1]
    k_BHSD, v_BHSD = k_BGSD.repeat_interleave(groups, dim=1), v_BGSD.repeat_interleave(groups, dim=1)
    scores_BHLS = q_BHLD @ k_BHSD.transpose(-2, -1) * scaling
    if attention_mask is None and is_causal and scores_BHLS.shape[-2] > 1:
        attention_mask = torch.ones_like(scores_BHLS[0, 0], dtype=torch.bool).tril()
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores_BHLS = scores_BHLS.masked_fill(~attention_mask, torch.finfo(scores_BHLS.dtype).min)
    elif attention_mask is not None:
        scores_BHLS = scores_BHLS + attention_mask
    weights_BHLS = functional.softmax(scores_BHLS, dim=-1, dtype=torch.float32).to(q_BHLD.dtype)
    weights_BHLS = functional.dropout(weights_BHLS, dropout, dropout > 0)
    return (weights_BHLS @ v_BHSD).transpose(1, 2), weights_BHLS


class ScratchGPTAttention(nn.Module):
    """Multi-head attention; num_key_value_heads below num_attention_heads makes it grouped (GQA)."""

    def __init__(self, config: ScratchGPTConfig, layer_idx: int) -> None:
        super().__init__()
        assert config.num_key_value_heads is not None
        assert config.head_dim is not None
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = True
        self.head_dim: int = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = config.head_dim**-0.5
        query_width = config.num_attention_heads * config.head_dim
        key_width = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_width, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_width, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_width, bias=config.attention_bias)
        self.o_proj = residual_projection(query_width, config.hidden_size, bias=config.attention_output_bias)
        self.q_norm = make_norm(config, config.head_dim) if config.qk_norm else nn.Identity()
        self.k_norm = make_norm(config, config.head_dim) if config.qk_norm else nn.Identity()

    def forward(
        self,
        x_BLE: torch.Tensor,
        mask: AttentionMask,
        rotation: tuple[torch.Tensor, torch.Tensor] | None = None,
        past_key_values: Cache | None = None,
        output_attentions: bool = False,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the output (B, L, E) and the attention weights (B, H, L, S), None unless eager attention ran."""
        by_head = (*x_BLE.shape[:-1], -1, self.head_dim)
        q_BHLD = self.q_norm(self.q_proj(x_BLE).view(by_head)).transpose(1, 2)
        k_BGSD = self.k_norm(self.k_proj(x_BLE).view(by_head)).transpose(1, 2)
        v_BGSD = self.v_proj(x_BLE).view(by_head).transpose(1, 2)
        if rotation is not None:
            q_BHLD, k_BGSD = rotate(q_BHLD, *rotation), rotate(k_BGSD, *rotation)
        if past_key_values is not None:
            more = {"cache_kwargs": {"cache_position": mask.place_L.to(x_BLE.device)}} if CACHE_WANTS_POSITIONS else {}
            more = {"kwargs": kwargs} if is_paged(past_key_values) else more
            k_BGSD, v_BGSD = past_key_values.update(k_BGSD, v_BGSD, self.layer_idx, **more)
        attend: Callable = eager_attention  # which alone returns the weights
        if not output_attentions and self.config._attn_implementation not in ("eager", None):
            attend = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        rate = self.config.attention_dropout if self.training else 0.0
        heads_BLHD, weights_BHLS = attend(
            self, q_BHLD, k_BGSD, v_BGSD, mask.over(k_BGSD), dropout=rate, scaling=self.scaling, **kwargs
        )
        return self.o_proj(heads_BLHD.reshape(*x_BLE.shape[:-1], -1)), weights_BHLS


class ScratchGPTMLP(nn.Module):
    """down(act(up(x))), or with a gate down(act(gate(x)) * up(x)) (GLU variants, arXiv:2002.05202)."""

    def __init__(self, config: ScratchGPTConfig) -> None:
        super().__init__()
        assert config.intermediate_size is not None
        self.act_fn = nn.ReLU(inplace=True) if config.hidden_act == "relu" else ACT2FN[config.hidden_act]
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = residual_projection(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        if config.gated_mlp:
            self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.gated = config.gated_mlp
        self.dropout = nn.Dropout(config.mlp_dropout)

    def forward(self, x_BLE: torch.Tensor) -> torch.Tensor:
        if self.gated:
            return self.down_proj(self.dropout(self.act_fn(self.gate_proj(x_BLE)) * self.up_proj(x_BLE)))
        return self.down_proj(self.dropout(self.act_fn(self.up_proj(x_BLE))))


class ScratchGPTBlock(GradientCheckpointingLayer):
    """Attention, then MLP, each around the residual stream: x + f(norm(x)) (pre) or norm(x + f(x)) (post)."""

    def __init__(self, config: ScratchGPTConfig, layer_idx: int) -> None:
        super().__init__()
        self.pre_norm = config.norm_position == "pre"
        self.self_attn = ScratchGPTAttention(config, layer_idx)
        self.mlp = ScratchGPTMLP(config)
        self.input_layernorm = make_norm(config, config.hidden_size)
        self.post_attention_layernorm = make_norm(config, config.hidden_size)
        self.dropout = nn.Dropout(config.residual_dropout)

    def forward(self, x_BLE: torch.Tensor, **kwargs) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the residual stream (B, L, E) after the block, and the weights as ScratchGPTAttention does."""
        attention_BLE, weights_BHLS = self.self_attn(self.input_layernorm(x_BLE) if self.pre_norm else x_BLE, **kwargs)
        x_BLE = x_BLE + self.dropout(attention_BLE)
        if self.pre_norm:
            return x_BLE + self.dropout(self.mlp(self.post_attention_layernorm(x_BLE))), weights_BHLS
        x_BLE = self.input_layernorm(x_BLE)
        return self.post_attention_layernorm(x_BLE + self.dropout(self.mlp(x_BLE))), weights_BHLS


class ScratchGPTPreTrainedModel(PreTrainedModel):
    """What the base model and its heads share: names for transformers' tools, and the initialisation.

    | parameters                                | initializer "normal"        | initializer "pytorch"          |
    |-------------------------------------------|-----------------------------|--------------------------------|
    | embed_tokens, embed_positions             | normal, initializer_range   | normal, 1                      |
    | q_proj, k_proj, v_proj, gate_proj, up_proj | normal, initializer_range  | uniform, up to 1/sqrt(inputs)  |
    | lm_head weight, where it is not tied      | normal, initializer_range   | uniform, up to 1/sqrt(inputs)  |
    | o_proj, down_proj weights                 | the same, times the factor  | the same, times the factor     |
    | norm weights                              | 1                           | 1                              |
    | norm biases                               | 0                           | 0                              |
    | projections' biases                       | 0                           | as their weights               |

    The factor is 1 / sqrt(2 x num_hidden_layers), 1 or 0 where output_projection_init is "scaled", "normal" or "zero".
    "pytorch" is what torch gives nn.Embedding and nn.Linear (Kaiming uniform with a = sqrt(5)).
    """

    config_class = ScratchGPTConfig
    config: ScratchGPTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ScratchGPTBlock"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values", "cache"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True  # transformers finds out by a search for its own phrases in this file

    def tie_weights(self, *args, **kwargs) -> None:
        super().tie_weights(*args, **kwargs)
        head = self.get_output_embeddings() if self.config.tie_word_embeddings else None
        if LEAVES_TIED_WEIGHTS and kwargs.get("missing_keys") is not None and head is not None:
            head.weight = self.get_input_embeddings().weight

    def _init_weights(self, module: nn.Module) -> None:
        config, factor = self.config, 1.0
        if getattr(module, "is_residual_projection", False):
            factors = {"scaled": (2 * config.num_hidden_layers) ** -0.5, "normal": 1.0, "zero": 0.0}
            factor = factors[config.output_projection_init]
        as_pytorch = config.initializer == "pytorch"
        if as_pytorch and isinstance(module, nn.Linear):
            bound = factor * module.in_features**-0.5
            for parameter in module.parameters(recurse=False):
                init.uniform_(parameter, -bound, bound)
            return
        if isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, std=1.0 if as_pytorch else config.initializer_range * factor)
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, PositionFrequencies):
            module.inv_freq.copy_(module.frequencies())  # no weight: a model that is loaded does not bring it
        if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
            init.zeros_(module.bias)


class ScratchGPTModel(ScratchGPTPreTrainedModel):
    """The decoder without an output layer.

    Classic family, where it departs from GPT-2 (Radford et al. 2019, and transformers' GPT2LMHeadModel):
    - queries, keys, values, output are four linear layers with Llama's names; heads may have any width (the tutorials'
      256 / 6 heads gives 42), the output projection leads back to hidden_size;
    - no bias on queries, keys and values by default, as the tutorials have it;
    - ReLU by default (Attention Is All You Need), gelu_new gives GPT-2;
    - an output layer of its own with a bias by default, as the tutorials have it;
    - post-norm blocks on request (Attention Is All You Need, section 5.4), still followed by the final norm;
    - sinusoidal positions on request; the embeddings are then multiplied by sqrt(hidden_size) (same paper, section
      3.4), otherwise the sines and cosines, up to 1 in size, would dominate them.

    Modern family, where it departs from Qwen3 (arXiv:2505.09388, and transformers' Qwen3ForCausalLM):
    - the default rotary base is 10,000 (RoFormer), fit for short contexts;
    - output projections may begin at zero (muP and the nanoGPT speed runs do so): every block begins as the identity;
    - the padding token's embedding is learned like the rest, so that it may be the end-of-text token;
    - no sliding window.
    """

    _auto_class = "AutoModel"

    def __init__(self, config: ScratchGPTConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.position_embedding == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        elif config.position_embedding == "sinusoidal":
            self.sinusoidal_emb = SinusoidalEmbedding(config.hidden_size, 10000.0)
        else:
            self.rotary_emb = RotaryEmbedding(config)
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(ScratchGPTBlock(config, index) for index in range(config.num_hidden_layers))
        self.norm = make_norm(config, config.hidden_size)
        self.gradient_checkpointing = False
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        is_causal: bool = True,
        **kwargs,
    ) -> BaseModelOutputWithPast | tuple:
        """Hidden states (B, L, E) after the final norm, and the cache where `use_cache`.

        input_ids (B, L), or inputs_embeds (B, L, E) in their place. attention_mask (B, S) is 0 at padding.
        position_ids (B, L) default to counting on from the cache, which may come under any name (`take_cache`).
        `is_causal=False` attends both ways. What is left unsaid is the config's.
        Raises ValueError for no input or two, past the end of a learned position table, and where a cache is missing;
        TypeError for an argument that the model would have to act on and does not know.
        """
        config = self.config
        use_cache = config.use_cache if use_cache is None else use_cache
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return_dict = config.return_dict if return_dict is None else return_dict
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds: one of the two, not both.")
        is_checkpointing = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        implementation = config._attn_implementation or "eager"
        cache = take_cache(kwargs, past_key_values, implementation)
        if is_checkpointing and (use_cache or cache is not None):
            logger.warning_once(
                "Gradient checkpointing computes blocks twice, which a cache does not bear: it is left out."
            )
            use_cache, cache = False, None
        x_BLE = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        length, past = x_BLE.shape[1], cache.get_seq_length() if isinstance(cache, Cache) else 0
        if not torch.compiler.is_compiling():  # looking at values would break the graph
            if use_cache and cache is None:
                check_beginning(length, attention_mask, position_ids)
            self.check_positions(length + past, position_ids)
        if use_cache and cache is None:
            cache = DynamicCache(config=config)

        place_L = torch.arange(length, device=x_BLE.device) + past  # a new tensor: a static cache counts in place
        mask = AttentionMask(attention_mask, place_L, past, position_ids, is_causal)
        mask.is_ready |= (makes_own_mask(implementation) and not output_attentions) or is_paged(cache)
        position_ids = place_L[None] if position_ids is None else position_ids
        rotation = None
        if config.position_embedding == "learned":
            x_BLE = x_BLE + self.embed_positions(position_ids)
        elif config.position_embedding == "sinusoidal":
            x_BLE = x_BLE * math.sqrt(config.hidden_size) + self.sinusoidal_emb(position_ids).to(x_BLE.dtype)
        else:
            rotation = self.rotary_emb(x_BLE, position_ids)
        x_BLE = self.dropout(x_BLE)

        if not is_causal:  # only then: before 5.0 a True would mask a single token's view of the cache
            kwargs["is_causal"] = False
        hidden_states, attentions = [], []
        for block in self.layers:
            hidden_states += [x_BLE] if output_hidden_states else []
            x_BLE, weights_BHLS = block(
                x_BLE,
                mask=mask,
                rotation=rotation,
                position_ids=position_ids,
                past_key_values=cache,
                output_attentions=output_attentions,
                **kwargs,
            )
            attentions += [weights_BHLS] if output_attentions else []
        x_BLE = self.norm(x_BLE)
        outputs = BaseModelOutputWithPast(  # by place, as the names of the fields change
            x_BLE,
            cache if use_cache else None,
            (*hidden_states, x_BLE) if output_hidden_states else None,
            tuple(attentions) if output_attentions else None,
        )
        return outputs if return_dict else outputs.to_tuple()

    def check_positions(self, end: int | torch.Tensor, position_ids: torch.Tensor | None) -> None:
        """Raise a ValueError when a learned table has no row for a position.

        end: one past the last token, counted from the beginning of the cache. Looks at the values of `position_ids`
        (which on a GPU waits for the device) only where `end` is suspicious, or it costs nothing.
        """
        context = self.config.max_position_embeddings
        if self.config.position_embedding != "learned":
            return
        if position_ids is not None and (position_ids.device.type == "cpu" or end > context):
            end = int(position_ids.max()) + 1
        if end > context:
            raise ValueError(
                f"the input reaches position {int(end)}, but this model has learned positions for {context} tokens "
                "(max_position_embeddings): shorten the input or slide the window over it."
            )


class ScratchGPTWithOutputLayer(ScratchGPTPreTrainedModel):
    """The base model and a linear layer from its hidden states to the vocabulary."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012
    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012

    def __init__(self, config: ScratchGPTConfig) -> None:
        super().__init__(config)
        self.model = ScratchGPTModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.lm_head_bias)
        self.post_init()


class ScratchGPTForCausalLM(ScratchGPTWithOutputLayer, GenerationMixin):
    """The model that predicts the next token."""

    _auto_class = "AutoModelForCausalLM"

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        shift_labels: torch.Tensor | None = None,
        **kwargs,
    ) -> CausalLMOutputWithPast | tuple:
        """Logits (B, L, V), and the mean cross-entropy in nats a token where labels are given.

        labels (B, L) are the inputs themselves, shifted here; shift_labels (B, L) are already the next tokens; -100
        is left out of either. `num_items_in_batch` divides the loss in place of the number of targets.
        `logits_to_keep` says for which positions logits are wanted: the last so many (0: all), or a tensor of indices
        (for all rows, or one row of them for each) or of truth values (B, L), whose logits (N, V) then come in a row.
        The other arguments and the errors are the base model's.
        """
        with_loss = labels is not None or shift_labels is not None
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=False if use_cache is None and with_loss else use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **kwargs,
        )
        logits, loss = self.lm_head(select_positions(outputs.last_hidden_state, logits_to_keep)), None
        if with_loss:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.config.vocab_size,
                num_items_in_batch=kwargs.get("num_items_in_batch"),
                shift_labels=None if shift_labels is None else shift_labels.contiguous(),
            )
        cache = getattr(outputs, CACHE_FIELD)
        outputs = CausalLMOutputWithPast(loss, logits, cache, outputs.hidden_states, outputs.attentions)
        return outputs if (self.config.return_dict if return_dict is None else return_dict) else outputs.to_tuple()

    def generate(self, inputs: torch.Tensor | None = None, *args, **kwargs):
        """As transformers' own, but an empty prompt (B, 0), which is what the tokenizers make of "", begins a text.

        The token `bos_token_id` then takes its place, as where no prompt is given. Raises ValueError if there is none.
        """
        prompt = inputs if inputs is not None else kwargs.get("input_ids")
        if isinstance(prompt, torch.Tensor) and prompt.dim() == 2 and prompt.shape[1] == 0:
            settings = kwargs.get("generation_config") or self.generation_config
            bos = kwargs.get("bos_token_id", getattr(settings, "bos_token_id", None))
            bos = self.config.bos_token_id if bos is None else bos
            if bos is None:
                raise ValueError("expected a prompt, got one without tokens, and this model has no bos_token_id.")
            begin_BL = torch.full((prompt.shape[0], 1), bos, dtype=torch.long, device=prompt.device)
            kwargs.pop("input_ids", None)
            inputs, kwargs["attention_mask"] = begin_BL, torch.ones_like(begin_BL)
        return super().generate(inputs, *args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]


def select_positions(x_BLE: torch.Tensor, logits_to_keep: int | torch.Tensor) -> torch.Tensor:
    """The hidden states of the positions that logits are wanted for (see `ScratchGPTForCausalLM.forward`)."""
    if not isinstance(logits_to_keep, torch.Tensor):
        return x_BLE[:, slice(-logits_to_keep, None)]
    if logits_to_keep.dim() == 1:
        return x_BLE[:, logits_to_keep]
    if logits_to_keep.dtype == torch.bool:
        return x_BLE[logits_to_keep]
    return x_BLE.take_along_dim(logits_to_keep[..., None], dim=1)


class ScratchGPTForMaskedLM(ScratchGPTWithOutputLayer):
    """The model that fills in blanks: every position sees the whole text."""

    _auto_class = "AutoModelForMaskedLM"

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> MaskedLMOutput | tuple:
        """Logits (B, L, V) for the token at each position, and their mean cross-entropy in nats where labels ask.

        labels (B, L) hold the original token at the blanks and -100 elsewhere. The other arguments and the errors are
        the base model's.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            is_causal=False,
            **kwargs,
        )
        logits, loss = self.lm_head(outputs.last_hidden_state), None
        if labels is not None:
            items = kwargs.get("num_items_in_batch")
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, num_items_in_batch=items
            )
        outputs = MaskedLMOutput(loss, logits, outputs.hidden_states, outputs.attentions)
        return outputs if (self.config.return_dict if return_dict is None else return_dict) else outputs.to_tuple()


# --- Longer contexts -------------------------------------------------------------------------------------------------


def scaled_frequencies(config: ScratchGPTConfig, length: int = 0) -> tuple[torch.Tensor, float]:
    """Rotary frequencies (F) stretched to a longer context, and what the cosines and sines are multiplied by.

    The types and their settings (`config.rope_parameters`) are transformers': linear (arXiv:2306.15595) divides all
    frequencies by the factor; dynamic ("NTK-aware") raises theta with the length of the text, in tokens; llama3 (Llama
    3.1) and yarn (arXiv:2309.00071) divide slow frequencies, which make few periods within the original context, and
    keep fast ones.
    """
    settings = config.rope_parameters or {}
    kind, theta, factor, width = settings["rope_type"], settings["rope_theta"], settings["factor"], config.head_dim
    assert width is not None
    context = config.max_position_embeddings
    original_context = settings.get("original_max_position_embeddings") or context
    if kind == "dynamic":
        theta *= (factor * max(length, context) / context - (factor - 1)) ** (width / (width - 2))
    inv_freq = theta ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    if kind == "dynamic":
        return inv_freq, 1.0
    if kind == "linear":
        return inv_freq / factor, 1.0
    if kind == "llama3":
        periods_F = original_context * inv_freq / (2 * math.pi)
        low, high = settings["low_freq_factor"], settings["high_freq_factor"]
        kept_F, scaling = ((periods_F - low) / (high - low)).clamp(0, 1), 1.0
    else:
        kept_F, scaling = yarn_ramp(settings, width, original_context), yarn_scaling(settings)
    return kept_F * inv_freq + (1 - kept_F) * inv_freq / factor, scaling


def yarn_ramp(settings: dict[str, Any], width: int, context: int) -> torch.Tensor:
    """How far YaRN keeps each frequency (F): 1 from beta_fast periods within the context on, 0 up to beta_slow."""

    def pair_with(periods: float) -> float:
        return width * math.log(context / (periods * 2 * math.pi)) / (2 * math.log(settings["rope_theta"]))

    first, last = pair_with(settings.get("beta_fast") or 32), pair_with(settings.get("beta_slow") or 1)
    if settings.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    pair_F = torch.arange(width // 2, dtype=torch.float32)
    return 1 - ((pair_F - first) / ((last - first) or 0.001)).clamp(0, 1)


def yarn_scaling(settings: dict[str, Any]) -> float:
    """What YaRN multiplies cosines and sines by, so that attention stays as sharp in a longer context."""
    if (given := settings.get("attention_factor")) is not None:
        return given
    growth = 0.1 * math.log(settings["factor"])
    numerator, denominator = settings.get("mscale"), settings.get("mscale_all_dim")
    if numerator and denominator:
        return (numerator * growth + 1) / (denominator * growth + 1)
    return growth + 1


# --- Bridges to transformers ----------------------------------------------------------------------------------
# Published with a model, this file stays as it is while transformers changes. So it imports little of it, and all that
# differs between its versions (LOWEST_ to NEWEST_TRANSFORMERS, and later ones) is here.

# The name of the cache among a model's outputs, "cache" from 5.24 on: in every version the second field.
CACHE_FIELD = fields(BaseModelOutputWithPast)[1].name
# Before 5.4 a cache had to be given the positions of the tokens that it is given.
CACHE_WANTS_POSITIONS = "cache_kwargs" in inspect.signature(Cache.update).parameters
# 5.3 takes the tied weight of remote code for one that was in the file, and leaves it as it was: unset.
LEAVES_TIED_WEIGHTS = version_numbers(transformers.__version__)[:2] == (5, 3)
# Arguments that transformers may hand to any model, and that change nothing here. (Where several texts share a row,
# `position_ids` tell them apart, so the borders that flash attention is given say nothing new.)
WITHOUT_EFFECT = frozenset(
    {
        *("cache_position", "num_items_in_batch", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"),
        *("seq_idx", "token_type_ids"),
    }
)

if version_numbers(transformers.__version__) > version_numbers(NEWEST_TRANSFORMERS):
    logger.warning(
        f"transformers {transformers.__version__} is newer than {NEWEST_TRANSFORMERS}, the newest that this ScratchGPT "
        "model's code was tested with. If something fails, look for a newer revision of the model, or run "
        f"`pip install transformers=={NEWEST_TRANSFORMERS}`."
    )


def take_cache(arguments: dict[str, Any], cache: Any, implementation: str) -> Any:
    """The cache: the one given, else the one among the other arguments, taken out of them under whatever name it came
    ("past_key_values" up to 5.23, then "cache").

    A cache is transformers' Cache or (continuous batching from 5.22 on) another object with an `update`. Raises
    TypeError for a second one, and for an unknown argument that holds numbers, text or a flag: the model would have to
    act on it. (Other objects are no input: generate hands its tokenizer to every model.) They may be any where the
    attention function is handed all of them on.
    """
    hands_on = makes_own_mask(implementation)
    for name, value in list(arguments.items()):
        if isinstance(value, Cache) or (not hands_on and is_paged(value)):
            if cache is not None:
                raise TypeError(f"expected one cache, got a second one as {name!r}.")
            cache = arguments.pop(name)
    for name, value in arguments.items():
        is_input = value is not False and isinstance(value, torch.Tensor | int | float | str | tuple | list | dict)
        if not is_input or name in WITHOUT_EFFECT or hands_on or is_paged(cache):
            continue
        raise TypeError(
            f"ScratchGPT's forward does not know the argument {name!r}, and without it the result could be wrong. "
            f"Leave it out; if transformers itself gave it, use version {NEWEST_TRANSFORMERS}, the newest that this "
            "code was tested with."
        )
    return cache


def is_paged(cache: Any) -> bool:
    """Whether this is a cache that several requests share (continuous batching), which is passed all arguments."""
    return not isinstance(cache, Cache | dict | set) and callable(getattr(cache, "update", None))


def makes_own_mask(implementation: str) -> bool:
    """Whether an attention function is handed all arguments, and makes its mask of them: flash attention (also as a
    kernel of the Hub, "kernels-community/flash-attn2") and paged attention."""
    return "flash" in implementation or implementation.startswith("paged")


def check_beginning(length: int, attention_mask: Any, position_ids: torch.Tensor | None) -> None:
    """Raise a ValueError when no token of the text's beginning is here, but no cache came with those before either.

    So it would be if transformers handed the cache over in a way that this file does not know.
    """
    is_wider = isinstance(attention_mask, torch.Tensor) and attention_mask.shape[-1] > length
    if is_wider or (position_ids is not None and int(position_ids.min()) > 0):
        raise ValueError(
            "expected the cache of the tokens before these, got none: the text would be written as if there were "
            "nothing before. Give past_key_values, or use_cache=False if that is meant. If you called generate(), use "
            f"transformers {NEWEST_TRANSFORMERS}, the newest that this code was tested with."
        )


__all__ = ["ScratchGPTForCausalLM", "ScratchGPTForMaskedLM", "ScratchGPTModel", "ScratchGPTPreTrainedModel"]
