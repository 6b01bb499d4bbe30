"""Checks a bundle: an isolated process loads the folder, must compute what this process computes, and generates."""

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub_export.code_version import differs_from_project, installed_transformers, read_code, refuse_newer
from hub_export.isolation import run_fresh
from modeling import quick_imports, register
from modeling.loading import is_masked_lm, read_weights

if TYPE_CHECKING:
    from torch import Tensor

# Letters beyond ASCII, an emoji of several code points, runs of blanks, digits, and a special token.
PROBE_TEXT = "The robot's 3 moons…  naïve café,\n\n Αθήνα 東京 👩‍🚀 don't <|endoftext|>\tend 1234567"
PROMPT = "The"

RENEW = "`python -m hub_export push` publishes it with this project's code"
OTHER_CODE_TOLERANCE = 1e-5
"""Of the logits where the folder's code is not this project's, whose order of adding up may be another."""

logger = logging.getLogger(__name__)

_PROOF = Path(__file__).with_name("checks.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What a successful verification found."""

    checks: tuple[str, ...]  # names of the checks that held, in order
    parameters: int  # numbers stored in model.safetensors
    seconds: float  # wall time of the verification
    transformers: str  # the version that it was checked with

    def __str__(self) -> str:
        return (
            f"verified in {self.seconds:.1f} s with transformers {self.transformers}, {self.parameters:,} parameters: "
            f"{', '.join(self.checks)}"
        )


def verify(folder: str | Path, *, checkpoint: str | Path | None = None) -> Proof:
    """Loads `folder` as anybody would, in an isolated process, and compares it with `checkpoint`.

    The process has an empty HF_HOME, no network, another working directory, no PYTHONPATH and no token. It loads the
    config, both models, the tokenizers (with and without remote code, and the from-scratch one) and a pipeline
    (text-generation, or fill-mask for a masked model); weights must be finite, tied weights tied, the tokenizers
    agree, and the logits of fixed ids equal, bit for bit, those computed here by the classes of `modeling` (to 1e-5
    where the folder's code is another version).

    A causal model also generates, greedy and sampled, with and without a cache, with a static one and as a padded
    batch, after prompts of several lengths: the logits of every step must be those of one pass over the same text
    without a cache, to 1e-4.

    The folder's code is run.

    Args:
        folder: the bundle.
        checkpoint: where the reference weights are (default: `folder` itself).

    Raises:
        ValueError: `folder` is no model folder, its code is later than this project's, or a check failed; the message
            says which and why.
    """
    start = time.perf_counter()
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder}: expected a model folder, but it has no config.json. "
            "Give a folder that `python -m hub_export bundle RUN --out DIR` wrote."
        )
    code = read_code(folder)
    refuse_newer(code, folder)
    weights = read_weights(folder)
    logger.info("checking the folder in an isolated process (about ten seconds, a large model takes longer) …")
    with tempfile.TemporaryDirectory(prefix="scratchgpt-proof-") as scratch_name:
        scratch = Path(scratch_name)
        report = run_fresh(_PROOF, scratch, _task(folder, Path(checkpoint or folder), scratch))
    transformers = report["transformers"] or installed_transformers()
    if "failed" in report:
        advice = "export another checkpoint, or report the message if the checkpoint itself loads."
        if code is not None and not code.takes(transformers):
            advice = f"its code is of version {code.version}, made for {code.range}: {RENEW}."
        raise ValueError(
            f"{folder}: expected a folder that works anywhere, but with transformers {transformers} the check "
            f"{report['failed']!r} failed: {report['error']}. Nothing should be published from it; {advice}"
        )
    return Proof(
        checks=tuple(report["checks"]),
        parameters=weights.parameters,
        seconds=time.perf_counter() - start,
        transformers=transformers,
    )


def _task(folder: Path, checkpoint: Path, scratch: Path) -> dict[str, Any]:
    with quick_imports():
        import torch
        from safetensors.torch import save_file

        register()

    save_file(_reference_logits(checkpoint), scratch / "reference.safetensors")
    return {
        "folder": str(folder.resolve()),
        "reference": str(scratch / "reference.safetensors"),
        "threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "probe": PROBE_TEXT,
        "prompt": PROMPT,
        "masked": is_masked_lm(folder),
        "tolerance": OTHER_CODE_TOLERANCE if differs_from_project(folder) else 0.0,
    }


def _reference_logits(checkpoint: Path) -> dict[str, "Tensor"]:
    """The logits that our own classes compute from `checkpoint` on the CPU, and the input ids they belong to."""
    import torch
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    from modeling import ScratchGPTForCausalLM, ScratchGPTForMaskedLM

    model_class = ScratchGPTForMaskedLM if is_masked_lm(checkpoint) else ScratchGPTForCausalLM
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
