"""A model folder under a stock architecture: for everybody who wants no remote code, or another program."""

import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub_export import card
from hub_export.bundle import TOKENIZER_FILES, check_private
from hub_export.isolation import run_fresh
from hub_export.run_folder import RunFolder, read_object, step_of
from hub_export.verify import PROBE_TEXT, PROMPT
from modeling.loading import read_weights
from storage.files import atomic_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from modeling import ScratchGPTForCausalLM

TOLERANCE = 1e-5
NEW_TOKENS = 24  # of the greedy text that is compared
STOCK_TYPES = ("qwen3", "gpt2")

logger = logging.getLogger(__name__)

_PROOF = Path(__file__).with_name("native_check.py")
_TEMPLATE = Path(__file__).parents[1] / "templates" / "native_card.md.jinja"
_OPTIONAL_TOKENIZER_FILES = ("special_tokens_map.json", "added_tokens.json")


def native(
    run: str | Path,
    out: str | Path,
    *,
    checkpoint: str = "best",
    force: bool = False,
    license: str = card.LICENSE,
    language: str = card.LANGUAGE,
) -> str:
    """Writes the weights as Qwen3ForCausalLM or GPT2LMHeadModel to the folder `out`, named only once it is proved.

    A fresh process without remote code loads the folder: its logits must equal those of our own class to 1e-5 (plus
    1e-5 of their size), its greedy text and its token ids must be the same.

    Args:
        run: a run folder, or a bundle.
        out: the folder to make.
        checkpoint: of a run: `best` (default), `latest` or `step-NNNNNN`.
        force: whether such a folder that exists under this name is replaced (default: no; any other never is).
        license, language: for the card's front matter (defaults: mit, en).

    Returns:
        In words, what was written and what was checked.

    Raises:
        ValueError: the model has no stock counterpart (the message names the fields), `run` or `out` is not what is
            expected, or the proof failed.
        OSError: the folder cannot be written, or the disk is full.
    """
    from hub_export.exports.stock import stock_model
    from tokenization.saving import name_known_class

    out = Path(out)
    _check_target(out, force)
    source, run_folder = find_source(run, checkpoint)
    model = load_scratch(source)
    stock = stock_model(model)
    with atomic_folder(out, replace=force) as folder:
        stock.to(_stored_dtype(source)).save_pretrained(folder)
        _keep_old_keys(folder / "config.json")
        for name in ("generation_config.json", *TOKENIZER_FILES, *_OPTIONAL_TOKENIZER_FILES):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        name_known_class(folder)
        text = _render_card(folder, source, run_folder, out.name, license, language)
        (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")
        check_private(folder, machine_paths=(source, out, Path.cwd(), Path.home(), Path(__file__).parents[2]))
        difference = _prove(folder, model, source)
    return (
        f"{out}: {type(stock).__name__}, which transformers loads without remote code. Proved in a fresh process: "
        f"logits within {difference:.2g}, the same greedy text, the same token ids."
    )


def find_source(run: str | Path, checkpoint: str) -> tuple[Path, RunFolder | None]:
    """The model folder to export, and the run it belongs to: None for a bundle or another folder with a config.json.

    Raises:
        ValueError: there is neither a run nor a model folder, or the run has no such checkpoint.
    """
    path = Path(run)
    if (path / "config.json").is_file() and not (path / "run.json").is_file():
        return path, None
    run_folder = RunFolder.read(path)
    return run_folder.checkpoint(checkpoint), run_folder


def load_scratch(source: Path) -> "ScratchGPTForCausalLM":
    """Our own causal model in a folder, in float32 on the CPU, in evaluation mode.

    Raises:
        ValueError: the folder holds another model, a masked one, or a damaged one.
    """
    from modeling.loading import load_causal_lm

    read_weights(source)
    model_type = read_object(source / "config.json").get("model_type")
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


def example_prompt(source: Path, run_folder: RunFolder | None) -> str:
    """The first prompt that the run or the bundle has written down, else a neutral word."""
    path = (run_folder.path if run_folder else source) / "prompts.json"
    prompts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return next((prompt for prompt in prompts if isinstance(prompt, str) and prompt.strip()), PROMPT)


def _check_target(out: Path, force: bool) -> None:
    if not os.path.lexists(out):
        return
    card_path, config = out / "README.md", out / "config.json"
    ours = config.is_file() and card_path.is_file() and "ScratchGPT" in card_path.read_text(encoding="utf-8")
    if not ours or (out / "training").exists() or read_object(config).get("model_type") not in STOCK_TYPES:
        raise ValueError(
            f"{out}: expected a name that is free, but something that no `native` made is there (so not even --force "
            "replaces it). Remove it yourself or choose another --out."
        )
    if not force:
        raise ValueError(
            f"{out}: expected a name that is free, but a folder that `native` made is there. Add --force to replace it."
        )


def _stored_dtype(source: Path) -> Any:
    import torch

    return getattr(torch, str(read_object(source / "config.json").get("dtype") or "float32"))


def _keep_old_keys(path: Path) -> None:
    """Writes what `rope_parameters` say under the names that transformers 4, and programs that follow it, read only."""
    config = read_object(path)
    if config["model_type"] == "qwen3":
        scaling = dict(config["rope_parameters"])
        config["rope_theta"] = scaling.pop("rope_theta")
        if scaling["rope_type"] != "default":
            config["rope_scaling"] = scaling
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n")


def _render_card(
    folder: Path, source: Path, run_folder: RunFolder | None, title: str, license: str, language: str
) -> str:
    import jinja2
    from huggingface_hub import ModelCardData

    config, weights = read_object(folder / "config.json"), read_weights(folder)
    context = config.get("max_position_embeddings") or config["n_positions"]
    metadata = ModelCardData(
        language=language,
        license=license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["scratchgpt", "from-scratch"],
    )
    corpus, origin = "", "a bundle"
    if run_folder:
        corpus = f" on {card.describe_corpus(run_folder.recipe)}"
        origin = f"the recipe `{run_folder.recipe.get('recipe', 'unknown')}`, checkpoint `{source.name}`"
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=metadata.to_yaml(),
        title=title,
        parameters=f"{weights.parameters:,}",
        corpus=corpus,
        architecture=config["architectures"][0],
        context=f"{context:,}",
        new_tokens=min(100, context // 2),
        results=_results(run_folder, source),
        origin=origin,
        tolerance=f"{TOLERANCE:g}",
    )


def _results(run_folder: RunFolder | None, source: Path) -> dict[str, str] | None:
    names = ("validation_loss", "perplexity", "bits_per_byte")
    if run_folder is None:
        return None
    step = step_of(source)
    records = [record for record in run_folder.metrics() if record.get("step") == step]
    measured = [record for record in records if all(record.get(name) is not None for name in names)]
    return {name: f"{measured[-1][name]:.4f}" for name in names} if measured else None


def _prove(folder: Path, model: "ScratchGPTForCausalLM", source: Path) -> float:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    length = min(model.config.max_position_embeddings, 64)
    input_ids_BL = torch.arange(2 * length).mul(7919).remainder(model.config.vocab_size).view(2, length)
    with torch.inference_mode():
        logits_BLV = model(input_ids_BL).logits
    prompt_1L, text_1L = greedy(model, tokenizer, PROMPT)
    reference = {"input_ids": input_ids_BL, "logits": logits_BLV, "prompt": prompt_1L, "text": text_1L}
    logger.info("proving the folder in a fresh process (about ten seconds) …")
    with tempfile.TemporaryDirectory(prefix="scratchgpt-native-") as name:
        scratch = Path(name)
        save_file({key: value.contiguous() for key, value in reference.items()}, scratch / "reference.safetensors")
        task = {
            "folder": str(folder.resolve()),
            "reference": str(scratch / "reference.safetensors"),
            "threads": torch.get_num_threads(),
            "tolerance": TOLERANCE,
            "probe": PROBE_TEXT,
            "probe_ids": tokenizer(PROBE_TEXT)["input_ids"],
        }
        report = run_fresh(_PROOF, scratch, task)
    if "failed" in report:
        raise ValueError(
            f"{folder}: expected a folder that computes what the checkpoint computes, but the check "
            f"{report['failed']!r} failed: {report['error']}. Nothing was left under the final name."
        )
    return report["difference"]
