"""The ScratchGPT model: attention, MLP, block, base model, and heads for causal and masked language modelling.

Axes in tensor names: B batch, L tokens of this call, S tokens attended to (cached ones included), N tokens of all
sequences in a row, E hidden_size, H query heads, G key/value heads, D head_dim, F half of a width, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import TypedDict, Unpack

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.utils import GenerationMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast, MaskedLMOutput
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel, slice_logits_to_keep
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_scratchgpt import ScratchGPTConfig
from .kernels_scratchgpt import IGNORE_INDEX, blocked_attention, dropout, eager_attention, output_layer_loss


class Options(TypedDict, total=False):
    """What every forward takes beside its own arguments."""

    output_attentions: bool | None
    output_hidden_states: bool | None
    return_dict: bool | None
    num_items_in_batch: torch.Tensor | int | None


class BaseOptions(Options, total=False):
    """What the base model's forward takes besides; the heads set it."""

    is_causal: bool


class Waves(nn.Module):
    """The angles that rotary and sinusoidal positions share: position x theta^(-2i / width) for each pair i."""

    inv_freq: torch.Tensor

    def __init__(self, width: int, theta: float) -> None:
        super().__init__()
        self.width, self.theta = width, theta
        self.register_buffer("inv_freq", self.frequencies(), persistent=False)

    def frequencies(self) -> torch.Tensor:
        return self.theta ** -(torch.arange(0, self.width, 2, dtype=torch.float32) / self.width)

    def angles(self, position_ids_BL: torch.Tensor) -> torch.Tensor:
        return position_ids_BL[..., None].float() * self.inv_freq.float()


class RotaryEmbedding(Waves):
    """Cosines and sines that turn queries and keys by their position (RoFormer, arXiv:2104.09864).

    Scaled to a longer context as `config.rope_parameters` say, by transformers' own functions. Its interface is that of
    transformers' rotary embeddings; `x` is there for its device alone.
    """

    original_inv_freq: torch.Tensor

    def __init__(self, config: ScratchGPTConfig) -> None:
        config.validate_rope_parameters()
        self.config, self.rope_type = config, config.rope_parameters["rope_type"]
        super().__init__(config.head_dim, config.rope_parameters["rope_theta"])
        self.max_seq_len_cached = self.original_max_seq_len = config.max_position_embeddings
        self.register_buffer("original_inv_freq", self.inv_freq.clone(), persistent=False)

    def frequencies(self) -> torch.Tensor:
        self.attention_scaling = 1.0
        if self.rope_type == "default":
            return super().frequencies()
        inv_freq, self.attention_scaling = ROPE_INIT_FUNCTIONS[self.rope_type](self.config)
        return inv_freq

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles_BLF = self.angles(position_ids)
        angles_BLD = torch.cat((angles_BLF, angles_BLF), dim=-1)
        return angles_BLD.cos() * self.attention_scaling, angles_BLD.sin() * self.attention_scaling


class SinusoidalEmbedding(Waves):
    """Sines in the even columns and cosines in the odd ones (Attention Is All You Need, section 3.5)."""

    def forward(self, position_ids_BL: torch.Tensor) -> torch.Tensor:
        angles_BLF = self.angles(position_ids_BL)
        return torch.stack((angles_BLF.sin(), angles_BLF.cos()), dim=-1).flatten(-2)


def rotate(x_BHLD: torch.Tensor, cos_BLD: torch.Tensor, sin_BLD: torch.Tensor) -> torch.Tensor:
    """Turn the pairs (i, i + D/2) of every head by their angle."""
    first, second = x_BHLD.chunk(2, dim=-1)
    cos, sin = (wave.unsqueeze(1).to(x_BHLD.dtype) for wave in (cos_BLD, sin_BLD))
    return x_BHLD * cos + torch.cat((-second, first), dim=-1) * sin


class RMSNorm(nn.RMSNorm):
    """torch's, made to work in its input's type where autocast gives it another than its weight's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def make_norm(config: ScratchGPTConfig, width: int) -> nn.Module:
    """The normalisation that the config names, over `width` values."""
    kind = nn.LayerNorm if config.norm == "layernorm" else RMSNorm
    return kind(width, eps=config.norm_eps)


def branch_end(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    """A linear layer back to the residual stream, marked for `_init_weights`, which starts it differently."""
    linear = nn.Linear(inputs, outputs, bias=bias)
    linear.ends_branch = True  # pyright: ignore[reportArgumentType]
    return linear


class ScratchGPTAttention(nn.Module):
    """Multi-head attention; num_key_value_heads below num_attention_heads makes it grouped (GQA)."""

    def __init__(self, config: ScratchGPTConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = True
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = config.head_dim**-0.5
        query_width = config.num_attention_heads * config.head_dim
        key_width = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_width, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_width, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_width, bias=config.attention_bias)
        self.o_proj = branch_end(query_width, config.hidden_size, bias=config.attention_output_bias)
        self.q_norm = make_norm(config, config.head_dim) if config.qk_norm else nn.Identity()
        self.k_norm = make_norm(config, config.head_dim) if config.qk_norm else nn.Identity()

    def forward(
        self,
        x_BLE: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
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
            k_BGSD, v_BGSD = past_key_values.update(k_BGSD, v_BGSD, self.layer_idx)
        rate = self.config.attention_dropout if self.training else 0.0
        attend: Callable = eager_attention
        if not kwargs.get("output_attentions"):
            attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        plain = attention_mask is None and past_key_values is None and not torch.compiler.is_compiling()
        if rate and plain and x_BLE.device.type == "cpu" and attend is sdpa_attention_forward:
            attend = blocked_attention
        heads_BLHD, weights_BHLS = attend(
            self, q_BHLD, k_BGSD, v_BGSD, attention_mask, dropout=rate, scaling=self.scaling, **kwargs
        )
        return self.o_proj(heads_BLHD.reshape(*x_BLE.shape[:-1], -1)), weights_BHLS


class ScratchGPTMLP(nn.Module):
    """down(act(up(x))), or with a gate down(act(gate(x)) * up(x)) (GLU variants, arXiv:2002.05202)."""

    def __init__(self, config: ScratchGPTConfig) -> None:
        super().__init__()
        self.act_fn = nn.ReLU(inplace=True) if config.hidden_act == "relu" else ACT2FN[config.hidden_act]
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = branch_end(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        if config.gated_mlp:
            self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.gated = config.gated_mlp

    def forward(self, x_BLE: torch.Tensor) -> torch.Tensor:
        if self.gated:
            return self.down_proj(self.act_fn(self.gate_proj(x_BLE)) * self.up_proj(x_BLE))
        return self.down_proj(self.act_fn(self.up_proj(x_BLE)))


class ScratchGPTBlock(GradientCheckpointingLayer):
    """Attention, then MLP, each around the residual stream: x + f(norm(x)) (pre) or norm(x + f(x)) (post)."""

    def __init__(self, config: ScratchGPTConfig, layer_idx: int) -> None:
        super().__init__()
        self.pre_norm = config.norm_position == "pre"
        self.residual_dropout = config.residual_dropout
        self.self_attn = ScratchGPTAttention(config, layer_idx)
        self.mlp = ScratchGPTMLP(config)
        self.input_layernorm = make_norm(config, config.hidden_size)
        self.post_attention_layernorm = make_norm(config, config.hidden_size)

    def forward(self, x_BLE: torch.Tensor, **kwargs) -> torch.Tensor:
        if self.pre_norm:
            x_BLE = x_BLE + self.drop(self.self_attn(self.input_layernorm(x_BLE), **kwargs)[0])
            return x_BLE + self.drop(self.mlp(self.post_attention_layernorm(x_BLE)))
        x_BLE = self.input_layernorm(x_BLE + self.drop(self.self_attn(x_BLE, **kwargs)[0]))
        return self.post_attention_layernorm(x_BLE + self.drop(self.mlp(x_BLE)))

    def drop(self, x_BLE: torch.Tensor) -> torch.Tensor:
        return dropout(x_BLE, self.residual_dropout, self.training)


class ScratchGPTPreTrainedModel(PreTrainedModel):
    """What the base model and its heads share: names for transformers' tools, and the initialisation.

    | parameters                                | initial value                                            |
    |-------------------------------------------|----------------------------------------------------------|
    | embed_tokens, embed_positions             | normal, initializer_range                                |
    | q_proj, k_proj, v_proj, gate_proj, up_proj | normal, initializer_range                               |
    | lm_head weight, where it is not tied      | normal, initializer_range                                |
    | o_proj, down_proj, "scaled"               | normal, initializer_range / sqrt(2 x num_hidden_layers)  |
    | o_proj, down_proj, "normal"               | normal, initializer_range                                |
    | o_proj, down_proj, "zero"                 | 0                                                        |
    | norm weights                              | 1                                                        |
    | all biases                                | 0                                                        |
    """

    config_class = ScratchGPTConfig
    config: ScratchGPTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ScratchGPTBlock"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": ScratchGPTBlock, "attentions": ScratchGPTAttention}  # noqa: RUF012

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if getattr(module, "ends_branch", False):
            std *= {"scaled": (2 * self.config.num_hidden_layers) ** -0.5, "normal": 1.0, "zero": 0.0}[
                self.config.output_projection_init
            ]
        if isinstance(module, nn.Linear | nn.Embedding):
            init.normal_(module.weight, std=std)
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, Waves):
            for buffer in module.buffers():
                init.copy_(buffer, module.frequencies())
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
      3.4), else waves of height 1 would drown them.

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
        self.layers = nn.ModuleList(ScratchGPTBlock(config, index) for index in range(config.num_hidden_layers))
        self.norm = make_norm(config, config.hidden_size)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[BaseOptions],
    ) -> BaseModelOutputWithPast:
        """Hidden states (B, L, E) after the final norm, and the cache where `use_cache`.

        input_ids (B, L), or inputs_embeds (B, L, E) in their place. attention_mask (B, S) is 0 at padding.
        position_ids (B, L) default to counting on from the cache. `is_causal=False` attends both ways.
        Raises ValueError for no input or two, and past the end of a learned position table.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds: one of the two, not both.")
        x_BLE = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        attention_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=x_BLE,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        self.check_context(x_BLE.shape[1], past_key_values, position_ids)
        if position_ids is None:
            past = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = (torch.arange(x_BLE.shape[1], device=x_BLE.device) + past).unsqueeze(0)

        rotation = None
        if self.config.position_embedding == "learned":
            x_BLE = x_BLE + self.embed_positions(position_ids)
        elif self.config.position_embedding == "sinusoidal":
            waves_BLE = self.sinusoidal_emb(position_ids).to(x_BLE.dtype)
            x_BLE = x_BLE * math.sqrt(self.config.hidden_size) + waves_BLE
        else:
            rotation = self.rotary_emb(x_BLE, position_ids)
        x_BLE = dropout(x_BLE, self.config.embedding_dropout, self.training)
        for block in self.layers:
            x_BLE = block(
                x_BLE,
                rotation=rotation,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(x_BLE), past_key_values=past_key_values if use_cache else None
        )

    def check_context(self, length: int, cache: Cache | None, position_ids: torch.Tensor | None) -> None:
        """Raise a ValueError when a learned table has no row for a position.

        Looks at the values of `position_ids` (which waits for the device) only when the lengths alone are suspicious.
        """
        context = self.config.max_position_embeddings
        if self.config.position_embedding != "learned" or torch.compiler.is_compiling():
            return
        past = 0 if cache is None else cache.get_seq_length()
        end = length + past if cache is None or isinstance(past, int) else cache.get_max_length()
        if end <= context:
            return
        end = length + int(past) if position_ids is None else int(position_ids.max()) + 1
        if end > context:
            raise ValueError(
                f"the input reaches position {end}, but this model has learned positions for {context} tokens "
                "(max_position_embeddings): shorten the input or slide the window over it."
            )


class ScratchGPTForCausalLM(ScratchGPTPreTrainedModel, GenerationMixin):
    """The model that predicts the next token."""

    _auto_class = "AutoModelForCausalLM"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012
    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012

    def __init__(self, config: ScratchGPTConfig) -> None:
        super().__init__(config)
        self.model = ScratchGPTModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.lm_head_bias)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        skip_logits: bool = False,
        shift_labels: torch.Tensor | None = None,
        **kwargs: Unpack[Options],
    ) -> CausalLMOutputWithPast:
        """Logits (B, L, V), and the mean cross-entropy in nats a token where labels are given.

        labels (B, L) are the inputs themselves, shifted here; shift_labels (B, L) are already the next tokens; -100
        is left out of either. With `skip_logits` the loss never holds all logits, and `logits` is None.
        `logits_to_keep` (0: all) counts the last positions that logits are wanted for.
        Raises ValueError for `skip_logits` without labels.
        """
        with_loss = labels is not None or shift_labels is not None
        if skip_logits and not with_loss:
            raise ValueError("skip_logits leaves only the loss, which needs labels: give labels or shift_labels.")
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=False if use_cache is None and with_loss else use_cache,
            **kwargs,
        )
        logits, loss = None, None
        if labels is not None and shift_labels is None:
            shift_labels = functional.pad(labels, (0, 1), value=IGNORE_INDEX)[:, 1:]
        if skip_logits and shift_labels is not None:
            hidden_NE = outputs.last_hidden_state.flatten(0, 1)
            count = kwargs.get("num_items_in_batch")
            loss = output_layer_loss(self.lm_head, hidden_NE, shift_labels.flatten(), count)
        else:
            logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
            if with_loss:
                loss = self.loss_function(
                    logits=logits,
                    labels=labels,
                    vocab_size=self.config.vocab_size,
                    shift_labels=None if shift_labels is None else shift_labels.contiguous(),
                    **kwargs,
                )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class ScratchGPTForMaskedLM(ScratchGPTPreTrainedModel):
    """The model that fills in blanks: every position sees the whole text."""

    _auto_class = "AutoModelForMaskedLM"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012
    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012

    def __init__(self, config: ScratchGPTConfig) -> None:
        super().__init__(config)
        self.model = ScratchGPTModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.lm_head_bias)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        skip_logits: bool = False,
        **kwargs: Unpack[Options],
    ) -> MaskedLMOutput:
        """Logits (B, L, V) for the token at each position, and their mean cross-entropy in nats where labels ask.

        labels (B, L) hold the original token at the blanks and -100 elsewhere. With `skip_logits` only the blanks go
        through the output layer, and `logits` is None. Raises ValueError for `skip_logits` without labels.
        """
        if skip_logits and labels is None:
            raise ValueError("skip_logits leaves only the loss, which needs labels: give labels.")
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=False,
            is_causal=False,
            **kwargs,
        )
        logits, loss = None, None
        if skip_logits and labels is not None:
            blank_BL = labels != IGNORE_INDEX
            hidden_NE = outputs.last_hidden_state[blank_BL]
            loss = output_layer_loss(self.lm_head, hidden_NE, labels[blank_BL], kwargs.get("num_items_in_batch"))
        else:
            logits = self.lm_head(outputs.last_hidden_state)
            if labels is not None:
                loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = ["ScratchGPTForCausalLM", "ScratchGPTForMaskedLM", "ScratchGPTModel", "ScratchGPTPreTrainedModel"]
