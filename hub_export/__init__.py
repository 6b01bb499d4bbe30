"""From a run folder to a folder that the Hugging Face Hub can serve: copied, described, checked, published."""

from .bundle import bundle
from .verify import Proof, verify

__all__ = ["Proof", "bundle", "verify"]
