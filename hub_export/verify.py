"""Proves a bundle: a fresh process elsewhere loads the flat folder and must compute what this process computes."""

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling.importing import quick_imports

from .fresh import run_fresh
from .run_folder import is_masked
from .weights import read_weights

if TYPE_CHECKING:
    from torch import Tensor

# Letters beyond ASCII, an emoji of several code points, runs of blanks, digits, and a special token.
PROBE_TEXT = "The robot's 3 moons…  naïve café,\n\n Αθήνα 東京 👩‍🚀 don't <|endoftext|>\tend 1234567"
PROMPT = "The"

logger = logging.getLogger(__name__)

_PROOF = Path(__file__).with_name("proof.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What a successful verification found."""

    checks: tuple[str, ...]  # names of the checks that held, in order
    parameters: int  # numbers stored in model.safetensors
    seconds: float  # wall time of the verification

    def __str__(self) -> str:
        return f"verified in {self.seconds:.1f} s, {self.parameters:,} parameters: {', '.join(self.checks)}"


def verify(folder: str | Path, *, checkpoint: str | Path | None = None) -> Proof:
    """Loads `folder` as a stranger would, in a fresh process, and compares it with `checkpoint`.

    The process has an empty HF_HOME, no network, another working directory, no PYTHONPATH and no token. It loads the
    config, both models, the tokenizers (with and without remote code, and the from-scratch one) and a pipeline
    (text-generation, or fill-mask for a masked model); weights must be finite, tied weights tied, the tokenizers
    agree, and the logits of fixed ids equal, bit for bit, those computed here by the classes of `modeling`.

    Args:
        folder: the bundle.
        checkpoint: where the reference weights are (default: `folder` itself).

    Raises:
        ValueError: `folder` is no model folder, or a check failed; the message says which and why.
    """
    start = time.perf_counter()
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder}: expected a model folder, but it has no config.json. "
            "Give a folder that `python -m hub_export bundle RUN --out DIR` wrote."
        )
    weights = read_weights(folder)
    logger.info("proving the folder in a fresh process (about ten seconds) …")
    with tempfile.TemporaryDirectory(prefix="scratchgpt-proof-") as scratch_name:
        scratch = Path(scratch_name)
        report = run_fresh(_PROOF, scratch, _task(folder, Path(checkpoint or folder), scratch))
    if "failed" in report:
        raise ValueError(
            f"{folder}: expected a folder that loads anywhere, but the check {report['failed']!r} failed: "
            f"{report['error']}. Nothing should be published from it; export another checkpoint, "
            "or report the message if the checkpoint itself loads."
        )
    return Proof(checks=tuple(report["checks"]), parameters=weights.parameters, seconds=time.perf_counter() - start)


def _task(folder: Path, checkpoint: Path, scratch: Path) -> dict[str, Any]:
    with quick_imports():
        import torch
        from safetensors.torch import save_file

        import modeling.auto  # noqa: F401

    save_file(_reference_logits(checkpoint), scratch / "reference.safetensors")
    return {
        "folder": str(folder.resolve()),
        "reference": str(scratch / "reference.safetensors"),
        "threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "probe": PROBE_TEXT,
        "prompt": PROMPT,
        "masked": is_masked(folder),
    }


def _reference_logits(checkpoint: Path) -> dict[str, "Tensor"]:
    """The logits that our own classes compute from `checkpoint` on the CPU, and the input ids they belong to."""
    import torch
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    from modeling import ScratchGPTForCausalLM, ScratchGPTForMaskedLM

    model_class = ScratchGPTForMaskedLM if is_masked(checkpoint) else ScratchGPTForCausalLM
    had_bars = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        model = model_class.from_pretrained(checkpoint).eval()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{checkpoint}: expected a checkpoint that loads, but it does not ({error}). "
            "It is damaged; take another checkpoint of the run (`--checkpoint`)."
        ) from error
    finally:
        if had_bars:
            enable_progress_bar()
    length = min(model.config.max_position_embeddings, 64)
    input_ids_BL = torch.arange(2 * length).mul(7919).remainder(model.config.vocab_size).view(2, length)
    with torch.inference_mode():
        logits_BLV = model(input_ids_BL).logits
    return {"input_ids": input_ids_BL, "logits": logits_BLV.contiguous()}
