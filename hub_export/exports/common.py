"""What the exports share: the model they start from, its greedy text, and the file they write to."""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from modeling.loading import load_causal_lm
from modeling.stored.weights import read_weights
from storage.records import read_json_object
from storage.run_folder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from modeling import ScratchGPTForCausalLM

Run = Annotated[str | Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
"""The parameter of a command that stands without a flag."""
NEW_TOKENS = 24  # of the greedy text that is compared


def find_source(run: str | Path, checkpoint: str) -> tuple[Path, RunFolder | None]:
    """The model folder to export, and the run it belongs to: None for a bundle or another folder with a config.json.

    Raises:
        ValueError: there is neither a run nor a model folder, or the run has no such checkpoint.
    """
    path = Path(run)
    if (path / "config.json").is_file() and not RunFolder(path).has_state:
        return path, None
    run_folder = RunFolder.open(run)
    return run_folder.checkpoint(checkpoint), run_folder


def load_scratch(source: Path) -> "ScratchGPTForCausalLM":
    """Our own causal model in a folder, in float32 on the CPU, in evaluation mode.

    Raises:
        ValueError: the folder holds another model, a masked one, or a damaged one.
    """
    read_weights(source)
    model_type = read_json_object(source / "config.json").get("model_type")
    if model_type != "scratchgpt":
        raise ValueError(
            f"{source}: expected a model of ours, model_type 'scratchgpt', got {model_type!r}. "
            "Give a run folder, or a folder that `python -m hub_export bundle` wrote."
        )
    return load_causal_lm(source, device="cpu")


def greedy(model: Any, tokenizer: "PreTrainedTokenizerBase", prompt: str, count: int = NEW_TOKENS) -> tuple[Any, Any]:
    """Token ids (1, L) of a prompt, cut to half the context, and of the prompt with its greedy continuation."""
    import torch

    context = model.config.max_position_embeddings
    ids_1L = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"][:, : max(1, context // 2)]
    count = min(count, context - ids_1L.shape[1])
    with torch.inference_mode():
        text_1L = model.generate(ids_1L, attention_mask=torch.ones_like(ids_1L), max_new_tokens=count, do_sample=False)
    return ids_1L, text_1L


def require(*packages: str, for_what: str) -> None:
    """Check that optional packages are installed.

    Raises:
        ValueError: one is missing; the message has the pip command.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{for_what} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            f"pip install {' '.join(missing)}"
        )


def begins_with(path: Path, magic: bytes) -> bool:
    """Whether a file is there that has these first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def check_free(out: Path, force: bool, *, is_ours: bool, kind: str) -> None:
    """Refuse a name that is not free, unless what is there `is_ours`, of this `kind`, and `force` allows replacing it.

    Raises:
        ValueError: saying what is there.
    """
    if not os.path.lexists(out) or (is_ours and force):
        return
    if is_ours:
        found, advice = f"a {kind} is there", "Add --force to replace it, or choose another --out."
    else:
        found = f"something that is no {kind} is there (so not even --force replaces it)"
        advice = "Remove it yourself or choose another --out."
    raise ValueError(f"{out}: expected a name that is free, but {found}. {advice}")
