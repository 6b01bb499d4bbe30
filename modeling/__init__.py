"""The model: its config and classes, streaming generation, loading, inspection, sizes.

The classes are imported on first use, so importing the package costs nothing.
"""

import functools
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modeling.configuration_scratchgpt import ScratchGPTConfig
    from modeling.modeling_scratchgpt import ScratchGPTForCausalLM, ScratchGPTForMaskedLM, ScratchGPTModel

__all__ = ["ScratchGPTConfig", "ScratchGPTForCausalLM", "ScratchGPTForMaskedLM", "ScratchGPTModel"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(register(), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def register() -> Any:
    """Register ScratchGPT with transformers' Auto classes, so that this process loads it without remote code.

    Returns:
        The module of the model's classes.
    """
    with quick_imports():
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

        from modeling import modeling_scratchgpt as classes

    config = classes.ScratchGPTConfig
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, classes.ScratchGPTModel, exist_ok=True)
    AutoModelForCausalLM.register(config, classes.ScratchGPTForCausalLM, exist_ok=True)
    AutoModelForMaskedLM.register(config, classes.ScratchGPTForMaskedLM, exist_ok=True)
    return classes


@contextmanager
def quick_imports() -> Iterator[None]:
    """Skip garbage collection while the block imports torch, transformers or gradio, and afterwards for what they made.

    They make a million objects, none of which is ever garbage; collecting among them is 30 % of the CPU time of
    starting a run or the page. A block that imports few modules changes nothing.
    """
    enabled, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) - before > 100:
            gc.freeze()
        if enabled:
            gc.enable()
