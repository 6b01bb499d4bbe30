"""What transformers' model tests ask of a "model tester": tiny configs and inputs, for ScratchGPT, Llama and GPT-2."""

from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model, LlamaConfig, LlamaForCausalLM, LlamaModel

from modeling import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM, ScratchGPTModel
from tests.modeling.families import MODERN

SHAPE = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


class ModelTester:
    """One family at toy size."""

    config_class: Any = ScratchGPTConfig
    base_model_class: Any = ScratchGPTModel
    causal_lm_class: Any = ScratchGPTForCausalLM
    fields: dict[str, Any] = {}  # noqa: RUF012
    width: dict[str, int] = {"hidden_size": 64}  # noqa: RUF012
    batch_size = 5
    seq_length = 7
    is_training = True
    hidden_size = SHAPE["hidden_size"]
    num_hidden_layers = SHAPE["num_hidden_layers"]
    num_attention_heads = SHAPE["num_attention_heads"]
    vocab_size = SHAPE["vocab_size"]

    def get_config(self) -> Any:
        return self.config_class(**SHAPE | self.fields)

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        """A config and a batch in which one row is padded on the right (ids above the special ones)."""
        ids_BL = torch.randint(3, self.vocab_size, (self.batch_size, self.seq_length))
        mask_BL = torch.ones_like(ids_BL)
        mask_BL[0, -2:] = 0
        return self.get_config(), {"input_ids": ids_BL, "attention_mask": mask_BL}


class ClassicTester(ModelTester):
    pass


class ModernTester(ModelTester):
    fields = MODERN


class MaskedTester(ModelTester):
    causal_lm_class = None
    masked_lm_class = ScratchGPTForMaskedLM
    fields = MODERN


class LlamaTester(ModelTester):
    config_class = LlamaConfig
    base_model_class = LlamaModel
    causal_lm_class = LlamaForCausalLM


class GPT2Tester(ModelTester):
    config_class = GPT2Config
    base_model_class = GPT2Model
    causal_lm_class = GPT2LMHeadModel
    width = {"n_embd": 64}  # noqa: RUF012
