"""Checks a bundle: an isolated process loads the folder, must compute what this process computes, and generates."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub_export.code_version import Code, installed_transformers, other_code, read_code, refuse_newer
from modeling import quick_imports, register
from modeling.loading import is_masked_lm
from modeling.stored.weights import read_weights
from storage.files import temporary_folder
from storage.records import read_json_object
from storage.run_folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

# Letters beyond ASCII, an emoji of several code points, runs of blanks, digits, and a special token.
PROBE_TEXT = "The robot's 3 moons…  naïve café,\n\n Αθήνα 東京 👩‍🚀 don't <|endoftext|>\tend 1234567"
PROMPT = "The"
OTHER_CODE_TOLERANCE = 1e-5
"""Of the logits where the folder's code is not this project's, which may add up in another order."""
CHECKS = Path(__file__).with_name("checks.py")
# What would lead the isolated process back to this project, to the user's caches or to the user's account.
_FOREIGN_VARIABLES = ("HF_", "HUGGING", "TRANSFORMERS_", "PYTHON", "PYTORCH_", "TORCH")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What a successful check found."""

    checks: tuple[str, ...]  # names of the checks that held, in order
    parameters: int  # numbers stored in model.safetensors
    seconds: float  # wall time
    transformers: str  # the version that it was checked with

    def __str__(self) -> str:
        return (
            f"verified in {self.seconds:.1f} s with transformers {self.transformers}, {self.parameters:,} parameters: "
            f"{', '.join(self.checks)}"
        )


def verify(
    folder: str | Path, *, checkpoint: str | Path | None = None, trust_remote_code: bool = False
) -> Verification:
    """Load `folder` in an isolated process, without this project installed, and compare it with `checkpoint`.

    It loads the config, both models, the tokenizers (with and without remote code, and the from-scratch one) and a
    pipeline (text-generation, or fill-mask for a masked model); weights must be finite, tied weights tied, the
    tokenizers agree, and the logits of fixed ids equal, bit for bit, those computed here by the classes of `modeling`
    (to 1e-5 where the folder's code is another version).

    A causal model also generates, greedily and sampled, with and without a cache, with a static one and as a padded
    batch, after prompts of several lengths: the logits of every step must be those of one pass over the same text
    without a cache, to 1e-4.

    The folder's code is run; code that is not this project's only where that is asked for.

    Args:
        folder: the bundle.
        checkpoint: where the reference weights are (default: `folder` itself).
        trust_remote_code: run code that differs from this project's (default: refuse it).

    Raises:
        ValueError: `folder` is no model folder, its code is later than this project's or differs from it, or a check
            failed; the message says which and why.
    """
    start = time.perf_counter()
    folder = Path(folder)
    code = code_of(folder, str(folder))
    other = other_code(folder)
    if other and not trust_remote_code:
        raise ValueError(
            f"{folder}: expected this project's code, but {', '.join(other[:5])} "
            f"{'differs' if len(other) == 1 else 'differ'} from it, and the check would run it. Read the code; where "
            "you trust it, add --trust-remote-code to `python -m hub_export verify`."
        )
    weights = read_weights(folder)
    logger.info("checking the folder in an isolated process (about ten seconds, a large model takes longer) …")
    report = run_isolated(
        {
            "check": "bundle",
            "folder": str(folder.resolve()),
            "probe": PROBE_TEXT,
            "prompt": PROMPT,
            "masked": is_masked_lm(folder),
            "tolerance": OTHER_CODE_TOLERANCE if other else 0.0,
        },
        reference=_reference_logits(Path(checkpoint or folder)),
    )
    transformers = report.get("transformers") or installed_transformers()
    if "failed" in report:
        advice = "export another checkpoint, or report the message if the checkpoint itself loads."
        if not code.takes(transformers):
            advice = (
                f"its code is of version {code.version}, made for {code.range}: `python -m hub_export push` publishes "
                "it with this project's code."
            )
        raise ValueError(
            f"{folder}: expected a folder that works anywhere, but with transformers {transformers} the check "
            f"{report['failed']!r} failed: {report['error']}. Nothing should be published from it; {advice}"
        )
    return Verification(
        checks=tuple(report["checks"]),
        parameters=weights.parameters,
        seconds=time.perf_counter() - start,
        transformers=transformers,
    )


def code_of(folder: Path, name: str) -> Code:
    """The code in a model folder of ours.

    Raises:
        ValueError: it is another folder, or its code is later than this project's; the message calls it `name`.
    """
    if RunFolder(folder).has_state:
        raise ValueError(
            f"{name}: expected a bundle, but this is a run. `python -m hub_export bundle {name} --out DIR` makes one, "
            "and checks it."
        )
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{name}: expected a model folder, but it has no config.json. Give a folder that `python -m hub_export "
            "bundle RUN --out DIR` wrote, or a model on the Hub, `user/name`."
        )
    model_type = read_json_object(folder / "config.json").get("model_type")
    code = read_code(folder)
    if model_type != "scratchgpt" or code is None:
        raise ValueError(
            f"{name}: expected a model with code of ours, model_type 'scratchgpt', got {model_type!r} "
            f"{'without' if code is None else 'with'} configuration_scratchgpt.py. Only such a model can be verified."
        )
    refuse_newer(code, name)
    return code


def run_isolated(
    task: dict[str, Any], *, reference: "dict[str, Tensor] | None" = None, hub_cache: Path | None = None
) -> dict[str, Any]:
    """The report of checks.py on a task, run in an isolated process.

    The process has an empty HF_HOME, another working directory and no PYTHONPATH; no GPU; and no token and no network
    for Hugging Face's libraries. A process that ends without a report counts as a failed check.

    Args:
        task: `check`, the name of the check, and what it needs; of this process come the number of threads and the
            precision of matrix products.
        reference: tensors that the check compares with; the task then has the path of their file as `reference`.
        hub_cache: a cache of the Hub's client that holds what it loads by a repository's name (default: an empty one).
    """
    with temporary_folder("scratchgpt-check-") as folder:
        if reference is not None:
            import torch
            from safetensors.torch import save_file

            save_file({key: tensor.contiguous() for key, tensor in reference.items()}, folder / "reference.safetensors")
            task = task | {
                "reference": str(folder / "reference.safetensors"),
                "threads": torch.get_num_threads(),
                "matmul_precision": torch.get_float32_matmul_precision(),
            }
        (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-P", str(CHECKS), str(folder / "task.json")],
            cwd=folder,
            env=_environment(folder, hub_cache),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        with contextlib.suppress(FileNotFoundError, ValueError):  # none, or one for which there was no room
            return json.loads((folder / "report.json").read_text(encoding="utf-8"))
    error = (
        f"the process ended with status {done.returncode}: {done.stderr.strip()[-500:] or 'no message'}. "
        "Is there enough memory to load the model twice more, and room in the temporary folder (TMPDIR)?"
    )
    return {"checks": [], "failed": "isolated process", "error": error}


def _environment(folder: Path, hub_cache: Path | None) -> dict[str, str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        # HF_HUB_CACHE and its like stand above HF_HOME.
        if not name.startswith(_FOREIGN_VARIABLES) and not name.endswith("_CACHE")
    }
    return environment | {
        "HF_HOME": str(folder / "hf_home"),
        "HF_HUB_CACHE": str(hub_cache or folder / "hf_home" / "hub"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _reference_logits(checkpoint: Path) -> "dict[str, Tensor]":
    """The logits that our own classes compute from `checkpoint` on the CPU, and the input ids they belong to."""
    with quick_imports():
        import torch
        from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

        from modeling import ScratchGPTForCausalLM, ScratchGPTForMaskedLM

        register()
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
    input_ids_BL = probe_ids(model)
    with torch.inference_mode():
        return {"input_ids": input_ids_BL, "logits": model(input_ids_BL).logits}


def probe_ids(model: Any) -> "Tensor":
    """Input ids (2, L) from all over a model's vocabulary."""
    import torch

    length = min(model.config.max_position_embeddings, 64)
    return torch.arange(2 * length).mul(7919).remainder(model.config.vocab_size).view(2, length)
