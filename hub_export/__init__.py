"""From a run folder to a folder that the Hugging Face Hub can serve: copied, described, checked, published."""

from hub_export.bundle import bundle
from hub_export.verify import Verification, verify

__all__ = ["Verification", "bundle", "verify"]
