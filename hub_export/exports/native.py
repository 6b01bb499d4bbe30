"""A model folder under a stock architecture: for everybody who wants no remote code, or another program."""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub_export import card
from hub_export.bundle import TOKENIZER_FILES, check_private, private_places
from hub_export.code_version import write_config
from hub_export.exports.common import Run, check_free, find_source, greedy, load_scratch
from hub_export.verify import PROBE_TEXT, PROMPT, probe_ids, run_isolated
from modeling.loading import has_chat_template
from modeling.stored.weights import read_weights
from storage.files import atomic_folder
from storage.model_card import card_facts, read_card
from storage.prompts import read_prompts
from storage.records import read_json_object
from storage.run_folder import RunFolder, step_of

if TYPE_CHECKING:
    from modeling import ScratchGPTForCausalLM

TOLERANCE = 1e-5
STOCK_TYPES = ("qwen3", "gpt2")

logger = logging.getLogger(__name__)

_OPTIONAL_TOKENIZER_FILES = ("special_tokens_map.json", "added_tokens.json")


def native(
    run: Run,
    out: Path,
    *,
    checkpoint: str = "best",
    force: bool = False,
    license: str | None = None,
    language: str | None = None,
) -> str:
    """Make a folder that transformers loads without remote code (as Qwen3 or GPT-2), and check it.

    An isolated process without remote code loads the folder: its logits must equal those of our own class to 1e-5 (plus
    1e-5 of their size), its greedy text and its token ids must be the same.

    Args:
        run: a run folder, or a bundle.
        out: the folder to make.
        checkpoint: which one of a run: `best`, `latest` or `step-NNNNNN`.
        force: replace such a folder that exists under this name; any other never is.
        license: license of the weights, as the Hub spells it, for the card; unset: a bundle's own, else mit.
        language: language of the corpus, as a code, for the card; unset: a bundle's own, else en.

    Returns:
        What was written and what was checked.

    Raises:
        ValueError: the model has no stock counterpart (the message names the fields), `run` or `out` is not what is
            expected, or the check failed.
        OSError: the folder cannot be written, or the disk is full.
    """
    from hub_export.exports.stock import stock_model
    from tokenization.saving import complete_config

    check_free(out, force, is_ours=_is_ours(out), kind="folder of `native`")
    source, run_folder = find_source(run, checkpoint)
    if run_folder is None and step_of(source) is not None:  # a checkpoint that was named by its folder
        run_folder = RunFolder.containing(source)
    model = load_scratch(source)
    stock = stock_model(model)
    with atomic_folder(out, replace=force) as folder:
        stock.to(_stored_dtype(source)).save_pretrained(folder)
        _keep_old_keys(folder)
        for name in ("generation_config.json", *TOKENIZER_FILES, *_OPTIONAL_TOKENIZER_FILES):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        complete_config(folder)
        text = render_card(folder, source, run_folder, out.name, license, language)
        (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")
        check_private(folder, machine_paths=private_places(source, out))
        difference = _check(folder, model, source)
    return (
        f"{out}: {type(stock).__name__}, which transformers loads without remote code. Checked in an isolated process: "
        f"logits within {difference:.2g}, the same greedy text, the same token ids."
    )


def _is_ours(folder: Path) -> bool:
    """Whether `native` made the folder."""
    card_path, config = folder / "README.md", folder / "config.json"
    if not (config.is_file() and card_path.is_file()) or (folder / "training").exists():
        return False
    is_stock = read_json_object(config).get("model_type") in STOCK_TYPES
    return is_stock and "ScratchGPT" in card_path.read_text(encoding="utf-8")


def _stored_dtype(source: Path) -> Any:
    import torch

    return getattr(torch, str(read_json_object(source / "config.json").get("dtype") or "float32"))


def _keep_old_keys(folder: Path) -> None:
    """Writes what `rope_parameters` say under the names that transformers 4, and programs that follow it, read only."""
    config = read_json_object(folder / "config.json")
    if config["model_type"] == "qwen3":
        scaling = dict(config["rope_parameters"])
        config["rope_theta"] = scaling.pop("rope_theta")
        if scaling["rope_type"] != "default":
            config["rope_scaling"] = scaling
    write_config(folder, config)


def render_card(
    folder: Path, source: Path, run_folder: RunFolder | None, title: str, license: str | None, language: str | None
) -> str:
    """The text of README.md.

    Args:
        folder: the export so far (its config, weights and tokenizer are described).
        source: the checkpoint or bundle that was exported.
        run_folder: the run of the checkpoint; None: what the card in `source` states is stated again.
        title: the heading.
        license: license of the weights, as the Hub spells it; None: a bundle's own, else mit.
        language: language of the corpus, as a code; None: a bundle's own, else en.

    Raises:
        ValueError: a file of the run is damaged.
    """
    from huggingface_hub import ModelCardData

    config, weights = read_json_object(folder / "config.json"), read_weights(folder)
    context = config.get("max_position_embeddings") or config["n_positions"]
    if run_folder:
        base = run_folder.state.get("base_model") or {}
        trained_on, cut_short = card.training_text(run_folder), run_folder.state.get("cut_short")
        origin = f"the recipe `{run_folder.recipe.get('recipe', 'unknown')}`, checkpoint `{source.name}`"
        prompts, terms = run_folder.prompts(), dict[str, Any]()
    else:
        data, _ = read_card(source)
        facts, repository = card_facts(data), data.get("base_model")
        base = {"name": facts.get("base_model"), "repository": repository if isinstance(repository, str) else None}
        trained_on, cut_short, origin = facts.get("trained_on"), facts.get("cut_short"), "a bundle"
        prompts, terms = read_prompts(source), data
    metadata = ModelCardData(
        language=language or terms.get("language") or card.LANGUAGE,
        license=license or terms.get("license") or card.LICENSE,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["scratchgpt", "from-scratch"],
        base_model=base.get("repository"),
    )
    return card.render(
        "native_card.md.jinja",
        metadata=metadata.to_yaml(),
        title=title,
        parameters=f"{weights.parameters:,}",
        corpus=f" on {trained_on}" if trained_on else "",
        base=base.get("name"),
        base_corpus=base.get("trained_on"),
        chats=has_chat_template(folder),
        example_chat=card.example_chat(card.example_prompt(prompts)),
        cut_short=cut_short,
        architecture=config["architectures"][0],
        context=f"{context:,}",
        new_tokens=min(100, context // 2),
        results=_results(run_folder, source),
        origin=origin,
        tolerance=f"{TOLERANCE:g}",
    )


def _results(run_folder: RunFolder | None, source: Path) -> dict[str, str] | None:
    names = ("validation_loss", "perplexity", "bits_per_byte")
    step = step_of(source)
    record = run_folder.record_at(step, "validation_loss") if run_folder and step is not None else {}
    return {name: f"{record[name]:.4f}" for name in names} if all(record.get(name) for name in names) else None


def _check(folder: Path, model: "ScratchGPTForCausalLM", source: Path) -> float:
    """The largest difference between the logits; raises ValueError when a check failed."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    input_ids_BL = probe_ids(model)
    with torch.inference_mode():
        logits_BLV = model(input_ids_BL).logits
    prompt_1L, text_1L = greedy(model, tokenizer, PROMPT)
    logger.info("checking the folder in an isolated process (about ten seconds) …")
    task = {
        "check": "native",
        "folder": str(folder.resolve()),
        "tolerance": TOLERANCE,
        "probe": PROBE_TEXT,
        "probe_ids": tokenizer(PROBE_TEXT)["input_ids"],
    }
    reference = {"input_ids": input_ids_BL, "logits": logits_BLV, "prompt": prompt_1L, "text": text_1L}
    report = run_isolated(task, reference=reference)
    if "failed" in report:
        raise ValueError(
            f"{folder}: expected a folder that computes what the checkpoint computes, but the check "
            f"{report['failed']!r} failed: {report['error']}. Nothing was left under the final name."
        )
    return report["difference"]
