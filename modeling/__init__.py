# pyright: strict, reportUnknownMemberType=false, reportUnknownArgumentType=false
"""The model: its config and classes, streaming generation, loading, inspection, sizes.

The classes are imported on first use, so importing the package costs nothing.
"""

import functools
import gc
import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modeling.configuration_scratchgpt import ScratchGPTConfig
    from modeling.modeling_scratchgpt import ScratchGPTForCausalLM, ScratchGPTForMaskedLM, ScratchGPTModel

PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
"""Environment variables: the first is OpenMP's, the second of libgomp, which torch's wheels for Linux bring."""

_importing = threading.RLock()

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
def quick_imports() -> Generator[None]:
    """Skip garbage collection while the block imports torch, transformers or gradio, and afterwards for what they made.

    They make a million objects, none of which is ever garbage; collecting among them is 30 % of the CPU time of
    starting a run or the page. A block that imports few modules changes nothing.

    One thread at a time: transformers finds its names when they are first asked for, and two threads that ask at once
    have got "cannot import name".
    """
    with _importing:
        enabled, before = gc.isenabled(), len(sys.modules)
        gc.disable()
        try:
            yield
        finally:
            if len(sys.modules) - before > 100:
                gc.freeze()
            if enabled:
                gc.enable()


def wait_passively() -> None:
    """Let torch's OpenMP threads sleep while they wait for each other; only before torch is imported has it an effect.

    By default they spin. A training on a machine where something else runs too then burns the time that the thread
    needs which all others wait for: `benchmarks/threads.py` measures it. Child processes inherit the choice; whoever
    has set OMP_WAIT_POLICY or GOMP_SPINCOUNT keeps what they have set.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ.update(PASSIVE_WAITING)
