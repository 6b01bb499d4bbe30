"""The model: its config and classes, the streaming decoder, loading, sizes.

Names are looked up on first use, so importing the package costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modeling.auto import ScratchGPTConfig, ScratchGPTForCausalLM, ScratchGPTForMaskedLM, ScratchGPTModel

__all__ = ["ScratchGPTConfig", "ScratchGPTForCausalLM", "ScratchGPTForMaskedLM", "ScratchGPTModel"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from modeling.imports import quick_imports

        with quick_imports():
            from modeling import auto

        return getattr(auto, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
