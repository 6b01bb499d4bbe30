"""The limits that the benchmarks of training and generation compare with, in small."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import generation, training_step
from benchmarks._limits import decoder_matrices, read_weights, step_products, token_products
from modeling import ScratchGPTConfig, ScratchGPTForCausalLM
from modeling.sizing import count_parameters, flops_per_token

SMALL = {"vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
SHAPES = [SMALL, SMALL | {"num_attention_heads": 4, "num_key_value_heads": 2, "gated_mlp": True}]
MATRIX_VECTOR = {
    operation: lambda matrix, *_, **__: 2 * matrix[0] * matrix[1]
    for operation in (torch.ops.aten.mv, torch.ops.aten._embedding_bag, torch.ops.aten._embedding_bag_forward_only)
}
"""Their operations from the shapes, which torch's counter does not know; a sum of all of a matrix's rows is one too."""


@pytest.mark.parametrize("fields", SHAPES, ids=["classic", "grouped and gated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_products_of_a_step_are_those_that_its_operations_are_counted_by(fields, dtype) -> None:
    config = ScratchGPTConfig(**fields)
    products = step_products(config, 5, 8, dtype)
    with FlopCounterMode(display=False) as counted:
        products()
    assert counted.get_total_flops() == 5 * 8 * flops_per_token(config, 8)


@pytest.mark.parametrize("fields", SHAPES, ids=["classic", "grouped and gated"])
def test_a_token_reads_every_weight_of_a_matrix_once(fields) -> None:
    model = ScratchGPTForCausalLM(ScratchGPTConfig(**fields, lm_head_bias=False, norm="rmsnorm"))
    matrices = sum(
        weight.numel() for name, weight in model.named_parameters() if weight.dim() == 2 and "embed" not in name
    )
    assert sum(matrix.numel() for matrix in decoder_matrices(model.eval())) == matrices < count_parameters(model.config)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=MATRIX_VECTOR) as counted:
            token_products(model, dtype)()
        assert counted.get_total_flops() == 2 * matrices
    read_weights(model)()


def test_both_benchmarks_run() -> None:
    threads = torch.get_num_threads()
    step = training_step.measure(batch_size=1, sequence_length=16, steps=1)
    assert step["scratchgpt_seconds"] > 0 < step["products_seconds"]
    texts = generation.run(new_tokens=4, rounds=1)
    assert texts["same_greedy_tokens"]
    assert set(texts["ratio"]) == set(texts["tokens_per_second"]) > set(texts["share_of_limit"])
    assert torch.get_num_threads() == threads
