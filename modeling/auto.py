"""The model's classes, made known to transformers' Auto classes: our own process loads them without remote code."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from modeling.configuration_scratchgpt import ScratchGPTConfig
from modeling.modeling_scratchgpt import ScratchGPTForCausalLM, ScratchGPTForMaskedLM, ScratchGPTModel

AutoConfig.register(ScratchGPTConfig.model_type, ScratchGPTConfig)
AutoModel.register(ScratchGPTConfig, ScratchGPTModel)
AutoModelForCausalLM.register(ScratchGPTConfig, ScratchGPTForCausalLM)
AutoModelForMaskedLM.register(ScratchGPTConfig, ScratchGPTForMaskedLM)

__all__ = ["ScratchGPTConfig", "ScratchGPTForCausalLM", "ScratchGPTForMaskedLM", "ScratchGPTModel"]
