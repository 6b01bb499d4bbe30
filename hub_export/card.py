"""The model card: front matter the Hub reads, and a page that people read."""

import json
import re
from pathlib import Path
from typing import Any

from hub_export.run_folder import RunFolder, read_object, step_of
from hub_export.vocabulary import Vocabulary
from modeling.families import describe_architecture
from modeling.loading import Weights, is_masked_lm, read_weights

LICENSE = "mit"
LANGUAGE = "en"
TAGS = ("scratchgpt", "from-scratch", "custom_code")
SAMPLES = 3  # texts shown
SAMPLE_LENGTH = 600  # characters of each text shown

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md.jinja"
_METRICS = {"loss": "Loss (nats per token)", "perplexity": "Perplexity", "bits_per_byte": "Bits per byte"}
_MASKED_METRICS = {
    "loss": "Masked loss (nats per hidden token)",
    "masked_perplexity": "Masked perplexity (exp of the masked loss)",
    "pseudo_perplexity": "Pseudo-perplexity (one token hidden in each window)",
}


def render_card(
    folder: Path,
    run: RunFolder,
    checkpoint: Path,
    *,
    repo: str | None,
    license: str = LICENSE,
    language: str = LANGUAGE,
) -> str:
    """Writes the text of README.md.

    Args:
        folder: the bundle so far (its config, weights and pictures are described).
        run: where recipe, results and samples are read from.
        checkpoint: the checkpoint that was copied.
        repo: `user/name` on the Hub; None when it is not known yet (the card then says to put it in).
        license: identifier of the weights' license, as the Hub spells it (default: mit).
        language: code of the corpus' language (default: en).

    Raises:
        ValueError: a record of the run is damaged.
    """
    import jinja2

    step = step_of(checkpoint)
    config = read_object(folder / "config.json")
    weights = read_weights(folder)
    recipe = str(run.recipe.get("recipe", "unknown"))
    title = repo.split("/")[-1] if repo else f"scratchgpt-{recipe}"
    corpus = describe_corpus(run.recipe)
    masked, vocabulary = is_masked_lm(folder), Vocabulary.read(folder)
    metrics = _MASKED_METRICS if masked else _METRICS
    results = _results(run, step, metrics)
    example = _example_prompt(folder)
    sample_step, samples = _samples(run, step, masked)
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=_metadata(
            title,
            recipe,
            results,
            metrics,
            license,
            language,
            vocabulary.mask_token if masked else None,
            hub_dataset(run.recipe),
        ),
        masked=masked,
        vocabulary=vocabulary,
        title=title,
        parameters=_rounded(weights.parameters),
        corpus=corpus,
        repo=repo or f"your-name/{title}",
        published=repo is not None,
        example_prompt=_literal(vocabulary.with_blank(example) if masked else example),
        has_slow_tokenizer=(folder / "slow").is_dir(),
        has_loss_picture=(folder / "loss.png").is_file(),
        model_facts=_model_facts(config, weights),
        training_facts=_training_facts(run, recipe, step),
        results={name: f"{value:.4f}" for name, value in results.items()} if results else None,
        mask_rate=f"{run.recipe.get('config', {}).get('data', {}).get('mask_rate', 0.15):.0%}",
        floor=None if masked else _floor(run, results),
        samples=samples,
        sample_step=sample_step,
        context=f"{config['max_position_embeddings']:,}",
        new_tokens=min(100, config["max_position_embeddings"] // 2),
        recipe=recipe,
        checkpoint=checkpoint.name,
        versions=", ".join(f"{name} {version}" for name, version in run.recipe.get("versions", {}).items()),
    )


def describe_corpus(recipe: dict[str, Any]) -> str:
    """Says in words what text a run was trained on, from its recipe.json: never a path of the machine."""
    corpus = recipe.get("config", {}).get("corpus", {})
    source, paths = corpus.get("source"), corpus.get("paths") or []
    if source == "stories":
        return f"{corpus.get('stories', 0):,} short English stories made by ScratchGPT's own generator"
    if dataset := hub_dataset(recipe):
        return f"the data set `{dataset}` of the Hugging Face Hub"
    # A folder given to a recipe of books is read as these books and nothing else; a file is read as it is.
    of_books = source == "gutenberg" or (len(paths) == 1 and Path(paths[0]).is_dir())
    if of_books and corpus.get("books") == "scifi":
        return "books of early science fiction from Project Gutenberg"
    return "Project Gutenberg books" if source == "gutenberg" else "its maker's own text files"


def hub_dataset(recipe: dict[str, Any]) -> str | None:
    """The id of the Hub's data set that a run was trained on, from its recipe.json; None for any other text."""
    corpus = recipe.get("config", {}).get("corpus", {})
    dataset = str(corpus.get("dataset") or "") if corpus.get("source") == "hub" else ""
    is_id = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", dataset) and not Path(dataset).is_dir()
    return dataset if is_id else None


def fence_for(text: str) -> str:
    """A code fence that nothing in `text` can close: longer than its longest run of backticks."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))


def _metadata(
    title: str,
    recipe: str,
    results: dict[str, float] | None,
    metrics: dict[str, str],
    license: str,
    language: str,
    mask_token: str | None,
    dataset: str | None,
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    task = "text-generation" if mask_token is None else "fill-mask"
    evaluations = [
        EvalResult(
            task_type=task,
            task_name=task.capitalize().replace("-", " "),
            dataset_type=dataset or recipe,
            dataset_name=f"held-out text of the {recipe} recipe",
            dataset_split="validation",
            metric_type=metric,
            metric_name=metrics[metric],
            metric_value=round(value, 4),
        )
        for metric, value in (results or {}).items()
    ]
    return ModelCardData(
        language=language,
        license=license,
        library_name="transformers",
        pipeline_tag=task,
        tags=list(TAGS),
        datasets=[dataset] if dataset else None,
        mask_token=mask_token,  # pyright: ignore[reportCallIssue]  goes to the front matter; None is left out
        model_name=title if evaluations else None,
        eval_results=evaluations or None,
    ).to_yaml()


def _results(run: RunFolder, step: int, metrics: dict[str, str]) -> dict[str, float] | None:
    """The metrics of the exported step by name; None when the run has not measured them.

    metrics.jsonl holds those of every evaluated step, run.json the latest ones.
    """
    evaluation = _record_at(run, step, "validation_loss")
    if not evaluation and run.state.get("step") == step:
        evaluation = run.state.get("evaluation") or {}
    found = {name: evaluation.get("validation_loss" if name == "loss" else name) for name in metrics}
    values = {name: float(value) for name, value in found.items() if value is not None}
    return values if len(values) == len(metrics) else None


def _record_at(run: RunFolder, step: int, field: str) -> dict[str, Any]:
    """The last record of metrics.jsonl of that step that has `field`; {} when there is none."""
    matching = [record for record in run.metrics() if record.get("step") == step and record.get(field) is not None]
    return matching[-1] if matching else {}


def _floor(run: RunFolder, results: dict[str, float] | None) -> dict[str, str] | None:
    floor = run.state.get("floor_bits_per_byte")
    if not floor or not results:
        return None
    return {"bits_per_byte": f"{floor:.4f}", "distance": f"{100 * (results['bits_per_byte'] / floor - 1):.1f} %"}


def _model_facts(config: dict[str, Any], weights: Weights) -> list[tuple[str, str]]:
    return [
        ("parameters", f"{weights.parameters:,}"),
        ("number format", ", ".join(weights.dtypes)),
        ("layers", f"{config['num_hidden_layers']:,}"),
        ("width", f"{config['hidden_size']:,}"),
        ("heads", f"{config['num_attention_heads']:,}"),
        ("context", f"{config['max_position_embeddings']:,} tokens"),
        ("vocabulary", f"{config['vocab_size']:,} tokens"),
        ("family", describe_architecture(config)),
    ]


def _training_facts(run: RunFolder, recipe: str, step: int) -> list[tuple[str, str]]:
    """Rows of the training table: what the run has recorded, and nothing it has not."""
    record = _record_at(run, step, "tokens_seen") or (run.state if run.state.get("step") == step else {})
    facts = [("text", describe_corpus(run.recipe)), ("recipe", f"`{recipe}`"), ("steps", f"{step:,}")]
    if tokens_seen := record.get("tokens_seen"):
        facts.append(("tokens seen", f"{tokens_seen:,}"))
    if batch_size := run.recipe.get("config", {}).get("data", {}).get("batch_size"):
        facts.append(("windows per step", f"{batch_size:,}"))
    if seconds := record.get("seconds"):
        facts.append(("time", _duration(seconds)))
    return facts


def _samples(run: RunFolder, step: int, masked: bool) -> tuple[int, list[dict[str, str]]]:
    """The step of the last samples written up to `step`, and up to three of them with the fences they need.

    Those of a masked model are a text with blanks, and the text filled.
    """
    records = [record for record in run.samples() if record.get("step", step + 1) <= step and record.get("text")]
    last = records[-1]["step"] if records else step
    texts = []
    for record in [record for record in records if record["step"] == last][:SAMPLES]:
        prompt, text = record.get("prompt") or "", record["text"]
        if masked:
            texts.append(f"{_printable(prompt)}\n→ {_printable(text)}")
        else:
            texts.append(_printable(text if text.startswith(prompt) else prompt + text))
    return last, [{"text": text, "fence": fence_for(text)} for text in texts if text]


def _printable(text: str) -> str:
    """Cuts a long text at a word, and shows what no page can show (control characters) as U+FFFD."""
    text = re.sub(r"[^\S\n]|[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]", _shown, text.replace("\r\n", "\n")).strip()
    if len(text) <= SAMPLE_LENGTH:
        return text
    return re.sub(r"\s+\S*\Z", "", text[:SAMPLE_LENGTH]) + " …"


def _shown(match: re.Match[str]) -> str:
    return " " if match[0].isspace() else "\ufffd"


def _example_prompt(folder: Path) -> str:
    """The first prompt of prompts.json; a neutral one when there is none."""
    path = folder / "prompts.json"
    prompts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    usable = [prompt for prompt in prompts if isinstance(prompt, str) and prompt.strip() and "`" not in prompt]
    return _printable(usable[0]) if usable else "Once"


def _literal(text: str) -> str:
    """`text` as a Python string literal."""
    return json.dumps(text, ensure_ascii=False)


def _rounded(parameters: int) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if parameters >= size:
            return f"{parameters / size:.1f} {word}"
    return str(parameters)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or "less than a second"
