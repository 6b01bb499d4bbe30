"""What the machine itself can do with a model's matrices: their products alone, with nothing between them, in buffers
made beforehand. What our training step and our decoder are compared with.

Axes: N tokens of all sequences in a row, L tokens of one, Z heads of some sequences in a row, D head_dim, I and O a
layer's inputs and outputs.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.fast_decoder import FastDecoder, product
from train.numerics.linear_cross_entropy import CROSS_ENTROPY_ALIGNMENT, CROSS_ENTROPY_ROWS

HEADS = 16
"""Attention's products are taken about so many heads at a time: the scores stay in the cache, as in good kernels."""


def step_products(config: ScratchGPTConfig, windows: int, length: int, dtype: torch.dtype) -> Callable[[], None]:
    """A call that computes all matrix products of a training step of `windows` windows of `length` tokens.

    Attention is counted as the full square, as `modeling.sizing.flops_per_token` counts it. The output layer's products
    are taken as `train.kernels` takes them, which is faster: in chunks of rows, on a padded vocabulary.
    """
    D, G, M = config.head_dim, config.num_key_value_heads, config.intermediate_size
    assert D is not None
    assert G is not None
    assert M is not None
    E, H, V, layers = config.hidden_size, config.num_attention_heads, config.vocab_size, config.num_hidden_layers
    tokens = windows * length
    rows, heads = math.gcd(CROSS_ENTROPY_ROWS, tokens), math.gcd(HEADS, windows * H)
    repeated = [
        (layers, linear_products(tokens, E, H * D, dtype)),
        (2 * layers, linear_products(tokens, E, G * D, dtype)),
        (layers, linear_products(tokens, H * D, E, dtype)),
        (layers * (2 if config.gated_mlp else 1), linear_products(tokens, E, M, dtype)),
        (layers, linear_products(tokens, M, E, dtype)),
        (tokens // rows, linear_products(rows, E, V + -V % CROSS_ENTROPY_ALIGNMENT, dtype)),
        (layers * windows * H // heads, attention_products(heads, length, D, dtype)),
    ]

    def products() -> None:
        for count, call in repeated:
            for _ in range(count):
                call()

    return products


def linear_products(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> Callable[[], None]:
    """A linear layer's three: its output, the gradient of its input, and that of its weight."""
    x_NI, y_NO = filled(rows, inputs, dtype=dtype), filled(rows, outputs, dtype=dtype)
    weight_OI = filled(outputs, inputs, dtype=dtype)
    grad_NI, grad_OI, grad_NO = torch.empty_like(x_NI), torch.empty_like(weight_OI), torch.empty_like(y_NO)

    def products() -> None:
        torch.mm(x_NI, weight_OI.t(), out=grad_NO)
        torch.mm(y_NO, weight_OI, out=grad_NI)
        torch.mm(y_NO.t(), x_NI, out=grad_OI)

    return products


def attention_products(heads: int, length: int, width: int, dtype: torch.dtype) -> Callable[[], None]:
    """Attention's six: scores and output, and the gradients of weights, values, queries and keys."""
    query_ZLD, score_ZLL = filled(heads, length, width, dtype=dtype), filled(heads, length, length, dtype=dtype)
    out_ZLD, out_ZLL = torch.empty_like(query_ZLD), torch.empty_like(score_ZLL)

    def products() -> None:
        for _ in range(2):
            torch.bmm(query_ZLD, query_ZLD.mT, out=out_ZLL)
            torch.bmm(score_ZLL, query_ZLD, out=out_ZLD)
            torch.bmm(score_ZLL.mT, query_ZLD, out=out_ZLD)

    return products


def token_products(model: ScratchGPTForCausalLM, dtype: torch.dtype) -> Callable[[], None]:
    """A call that computes all matrix-vector products of one generated token; attention's are left out.

    On the decoder's matrices: in float32 as the decoder multiplies with them, in other types with rows of outputs,
    which was fastest on an AVX2 machine.
    """
    calls: list[Callable[[], Tensor]] = []
    for matrix_IO in decoder_matrices(model):
        inputs, outputs = matrix_IO.shape
        if dtype == torch.float32:
            calls.append(partial(product, filled(1, inputs), matrix_IO))
        else:
            weight_OI = matrix_IO.t().to(dtype).contiguous()
            out_O = torch.empty(outputs, dtype=dtype)
            calls.append(partial(torch.mv, weight_OI, filled(inputs, dtype=dtype), out=out_O))

    def products() -> None:
        for call in calls:
            call()

    return products


def read_weights(model: ScratchGPTForCausalLM) -> Callable[[], None]:
    """A call that reads and adds up every value of the decoder's matrices: the machine's own rate of reading."""
    flat = [matrix_IO.t() if matrix_IO.stride(0) == 1 else matrix_IO for matrix_IO in decoder_matrices(model)]

    def read() -> None:
        for matrix in flat:
            matrix.sum()

    return read


@torch.inference_mode()
def decoder_matrices(model: ScratchGPTForCausalLM) -> list[Tensor]:
    """The matrices (I, O) that are read for every token, as `FastDecoder` lays them out."""
    decoder = FastDecoder(model, 1)
    of_blocks = ((block.qkv_EW, block.output_WE, block.up_EI, block.gate_EI, block.down_IE) for block in decoder.blocks)
    return [matrix for matrices in of_blocks for matrix in matrices if matrix is not None] + [decoder.head_EV]


def filled(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Small random numbers: products of them neither overflow nor become subnormal, which would be slow."""
    return torch.empty(shape, dtype=dtype).uniform_(-0.1, 0.1)
