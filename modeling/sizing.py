"""Parameters, FLOPs and memory of a model, from its configuration alone: nothing is built."""

from dataclasses import dataclass

from modeling.configuration_scratchgpt import ScratchGPTConfig

CROSS_ENTROPY_ROWS = 512
"""Tokens whose logits exist at once while the loss is computed (`train.kernels`)."""


def count_parameters(config: ScratchGPTConfig) -> int:
    """Number of weights of `ScratchGPTForCausalLM(config)` (and of the masked model, which has the same), exactly.

    A tied output layer's weight is the embedding table and counts once.
    """
    embeddings = config.vocab_size * config.hidden_size
    if config.position_embedding == "learned":
        embeddings += config.max_position_embeddings * config.hidden_size
    head = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    head += config.vocab_size if config.lm_head_bias else 0
    head_dim, queries, keys, hidden, layers = _widths(config)
    gates = 2 if config.gated_mlp else 1
    biases = (
        (queries + 2 * keys) * config.attention_bias
        + config.hidden_size * config.attention_output_bias
        + (gates * hidden + config.hidden_size) * config.mlp_bias
    )
    norm_vectors = 2 if config.norm == "layernorm" else 1
    norms = norm_vectors * (2 * config.hidden_size + 2 * head_dim * config.qk_norm)
    block = _block_matrices(config) + biases + norms
    return embeddings + layers * block + norm_vectors * config.hidden_size + head


def flops_per_token(config: ScratchGPTConfig, sequence_length: int) -> float:
    """Floating-point operations to train on one token, forward and backward, at a sequence length in tokens.

    6 for each weight of a matrix product (2 forward, 4 backward; Kaplan et al., arXiv:2001.08361, section 2.1), the
    output layer included and embedding tables left out, plus 12 x layers x heads x head_dim x sequence_length for
    attention (PaLM, arXiv:2204.02311, appendix B, which counts the whole square and not only its causal half).
    """
    _, queries, _, _, layers = _widths(config)
    matrices = layers * _block_matrices(config) + config.vocab_size * config.hidden_size
    return 6.0 * matrices + 12.0 * layers * queries * sequence_length


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Bytes that training holds at its peak, at the end of the forward pass."""

    weights: int
    """The parameters."""
    gradients: int
    """One gradient for each parameter."""
    optimizer: int
    """The optimizer's running averages."""
    activations: int
    """What the forward pass keeps for the backward pass, and the logits and probabilities of one chunk of rows."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def memory_bytes(
    config: ScratchGPTConfig,
    *,
    batch_size: int,
    sequence_length: int,
    bytes_per_value: int = 4,
    optimizer_averages: int = 2,
) -> MemoryEstimate:
    """Estimate the memory of a step of `python -m train`, whose loss never holds all logits.

    batch_size counts sequences of sequence_length tokens. bytes_per_value is 4 for float32, 2 for pure bfloat16.
    optimizer_averages is the optimizer's float32 values for each parameter: 2 for AdamW, 1 for Muon or momentum, 0
    for plain SGD. Activations are an estimate: what autograd saves in eager mode with sdpa; allocators add to it.
    """
    _, queries, keys, hidden, layers = _widths(config)
    width, parameters = config.hidden_size, count_parameters(config)
    rate = config.residual_dropout
    # Per token: both norms' inputs, both norms' outputs, queries, keys, values, heads' outputs, the MLP's inner values.
    values = 4 * width + 2 * queries + 2 * keys + (4 if config.gated_mlp else 1) * hidden
    if config.hidden_act != "relu" and not config.gated_mlp:
        values += hidden
    if config.qk_norm:
        values += queries + keys
    masks = 2 * width * bool(rate)
    if config.attention_dropout:
        masks += config.num_attention_heads * sequence_length // 2
    per_token = layers * (values * bytes_per_value + 2 * masks) + 3 * width * bytes_per_value
    rows = min(CROSS_ENTROPY_ROWS, batch_size * sequence_length)
    chunk = 2 * rows * config.vocab_size * max(bytes_per_value, 4)
    return MemoryEstimate(
        weights=parameters * bytes_per_value,
        gradients=parameters * bytes_per_value,
        optimizer=parameters * 4 * optimizer_averages,
        activations=batch_size * sequence_length * per_token + chunk,
    )


def _widths(config: ScratchGPTConfig) -> tuple[int, int, int, int, int]:
    """head_dim, the widths of all queries, of all keys and of the MLP, and the number of blocks."""
    head_dim, key_heads, hidden = config.head_dim, config.num_key_value_heads, config.intermediate_size
    assert head_dim is not None
    assert key_heads is not None
    assert hidden is not None
    return head_dim, config.num_attention_heads * head_dim, key_heads * head_dim, hidden, config.num_hidden_layers


def _block_matrices(config: ScratchGPTConfig) -> int:
    """Weights of one block's matrix products."""
    _, queries, keys, hidden, _ = _widths(config)
    return config.hidden_size * (2 * queries + 2 * keys + (3 if config.gated_mlp else 2) * hidden)
