"""Parameters, FLOPs and activations of a model, from its configuration alone: nothing is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modeling import ScratchGPTConfig


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
    attention (PaLM, arXiv:2204.02311, appendix B, which counts the full square and not only its causal half).
    """
    _, queries, _, _, layers = _widths(config)
    matrices = layers * _block_matrices(config) + config.vocab_size * config.hidden_size
    return 6.0 * matrices + 12.0 * layers * queries * sequence_length


def activation_bytes(config: ScratchGPTConfig, sequence_length: int, itemsize: int) -> int:
    """About how many bytes the forward pass of one sequence in training on the CPU (`train.kernels`) keeps for the
    backward pass, the loss left out.

    Args:
        sequence_length: in tokens.
        itemsize: bytes of a value that matrix products take: 2 under autocast, else 4. The residual stream has 4.
    """
    _, queries, keys, hidden, layers = _widths(config)
    width, masks = config.hidden_size, 2 * (2 * config.hidden_size) * (config.residual_dropout > 0)
    of_attention = 4 * queries + (queries + keys) * config.qk_norm
    # ReLU and its dropout keep their result alone; other activations their input too, and dropout its mask.
    kept = 4 if config.gated_mlp else 1 if config.hidden_act == "relu" else 2
    of_mlp = hidden * (kept + (config.mlp_dropout > 0 and kept > 1))
    weights = 2 * config.num_attention_heads * (sequence_length + 64) // 2  # or masks; the causal half, in blocks
    per_token = 4 * 2 * width + masks + itemsize * (2 * width + of_attention + of_mlp) + weights
    return layers * sequence_length * per_token


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
