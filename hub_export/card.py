"""The model card: front matter the Hub reads, and a page that people read."""

import functools
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modeling.families import describe_architecture
from modeling.loading import is_masked_lm
from modeling.stored.weights import Weights, read_weights
from storage.corpus_facts import hub_dataset
from storage.model_card import FACTS, PLACEHOLDER_OWNER, card_facts, card_title, read_card
from storage.prompts import read_prompts
from storage.records import read_json_object
from storage.run_folder import RunFolder, model_name, step_of
from storage.text import duration

LICENSE = "mit"
LANGUAGE = "en"
TAGS = ("scratchgpt", "from-scratch", "custom_code")
SAMPLES = 3  # texts shown
SAMPLE_LENGTH = 600  # characters of each text shown
LEARNING_LENGTH = 160  # characters of a text from the early steps

PLACEHOLDER_NOTE = "Put the id of the repository, or the path of a local copy, in the place of `{}`."
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
    """The text of README.md.

    Its front matter has, under `storage.model_card.FACTS`, what the page shows of a model.

    Args:
        folder: the bundle so far (its config, weights and pictures are described).
        run: where recipe, results and samples are read from.
        checkpoint: the checkpoint that was copied.
        repo: `user/name` on the Hub; None when it is not known yet: `set_repository` puts it in.
        license: identifier of the weights' license, as the Hub spells it (default: mit).
        language: code of the corpus' language (default: en).

    Raises:
        ValueError: a record of the run is damaged.
    """
    step = step_of(checkpoint)
    assert step is not None, checkpoint
    config, weights = read_json_object(folder / "config.json"), read_weights(folder)
    masked, vocabulary = is_masked_lm(folder), Vocabulary.read(folder)
    recipe = str(run.recipe.get("recipe", "unknown"))
    title = repo.split("/")[-1] if repo else f"scratchgpt-{recipe}"
    address = repo or f"{PLACEHOLDER_OWNER}/{title}"
    metrics = _MASKED_METRICS if masked else _METRICS
    results = _results(run, step, metrics)
    progress = run.record_at(step, "tokens_seen") or (run.state if run.state.get("step") == step else {})
    base = run.state.get("base_model") or {}
    facts = {
        "repository": address,
        "trained_on": training_text(run),
        "base_model": base.get("name"),
        "recipe": recipe,
        "steps": step,
        "tokens_seen": progress.get("tokens_seen"),
        "floor_bits_per_byte": run.state.get("floor_bits_per_byte") if not masked else None,
        "cut_short": run.state.get("cut_short"),
    }
    facts = {name: value for name, value in facts.items() if value is not None}
    example = example_prompt(read_prompts(folder))
    sample_step, samples = _samples(run, step, masked)
    measured = run.evaluations(checkpoint.name)
    mask_token, dataset = vocabulary.mask_token if masked else None, hub_dataset(run.corpus_config)
    return render(
        "model_card.md.jinja",
        metadata=_metadata(
            title, facts, results, metrics, license, language, mask_token, dataset, base.get("repository")
        ),
        masked=masked,
        vocabulary=vocabulary,
        begin=None if vocabulary.begin_token is None else json.dumps(vocabulary.begin_token, ensure_ascii=False),
        title=title,
        parameters=_rounded(weights.parameters),
        corpus=facts["trained_on"],
        base=base.get("name"),
        base_corpus=base.get("trained_on"),
        repo=address,
        placeholder_note=None if repo else PLACEHOLDER_NOTE.format(address),
        example_chat=example_chat(example),
        example_prompt=json.dumps(vocabulary.with_blank(example) if masked else example, ensure_ascii=False),
        has_slow_tokenizer=(folder / "slow").is_dir(),
        has_loss_picture=(folder / "loss.png").is_file(),
        model_facts=_model_facts(config, weights),
        training_facts=_training_facts(run, facts, progress),
        cut_short=facts.get("cut_short"),
        resume_command=_resume_command(run),
        results={name: f"{value:.4f}" for name, value in results.items()} if results else None,
        mask_rate=f"{_config(run, 'data').get('mask_rate', 0.15):.0%}",
        floor=_floor(facts, results),
        unseen=_unseen(measured) if not masked else [],
        memorization=_memorization(measured),
        samples=samples,
        sample_step=sample_step,
        seeded_samples=[] if masked else _seeded_samples(measured),
        learning=[] if masked else _learning(run, step),
        context=f"{config['max_position_embeddings']:,}",
        new_tokens=min(100, config["max_position_embeddings"] // 2),
        recipe=recipe,
        checkpoint=checkpoint.name,
        versions=", ".join(f"{name} {version}" for name, version in run.recipe.get("versions", {}).items()),
    )


def set_repository(folder: Path, repo: str) -> None:
    """Put the id of the repository into the card of a bundle that was made before it was known, or for another one.

    Of another one, only what loads the model is changed: what people wrote about it, and a model of that name from
    which this one went on, stay.
    """
    path = folder / "README.md"
    data, body = read_card(folder)
    # Cards of version 0.1 have no facts; their title is the name in the placeholder.
    before = card_facts(data).get("repository") if FACTS in data else f"{PLACEHOLDER_OWNER}/{card_title(body)}"
    if not before or before == repo:
        return
    text = path.read_text(encoding="utf-8")
    if before.startswith(f"{PLACEHOLDER_OWNER}/"):
        text = text.replace(f"\n{PLACEHOLDER_NOTE.format(before)}\n", "\n").replace(before, repo)
    else:
        text = text.replace(f'"{before}"', f'"{repo}"').replace(f"  repository: {before}\n", f"  repository: {repo}\n")
    path.write_text(text, encoding="utf-8", newline="\n")


def example_prompt(prompts: list[str]) -> str:
    """The first prompt that can stand in the programs of a card, or "Once"."""
    return next((_printable(prompt) for prompt in prompts if "`" not in prompt), "Once")


def example_chat(question: str) -> str:
    """A chat with one question, as Python."""
    return json.dumps([{"role": "user", "content": question}], ensure_ascii=False)


def render(template: str, **values: Any) -> str:
    """A file of templates/, filled in; a value that is missing is an error."""
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """What a card must know of a tokenizer, read from its files without loading it."""

    mask_token: str | None
    begin_token: str | None  # what precedes each text of the training
    end_token: str | None  # where it pads too
    chats: bool  # whether it has a chat template
    surrounds: bool  # whether a call puts special tokens around the text
    spaces: Literal["joined", "dropped", "single"]  # part of the token behind them, no part of any, tokens themselves

    @classmethod
    def read(cls, folder: Path) -> "Vocabulary":
        """From tokenizer.json and tokenizer_config.json, and from config.json which token precedes a text.

        Raises:
            ValueError: one of them is damaged.
        """
        tokenizer, config = (read_json_object(folder / name) for name in ("tokenizer.json", "tokenizer_config.json"))
        values = ((name, config.get(f"{name}_token")) for name in ("bos", "eos", "pad", "mask"))
        named = {name: value.get("content") if isinstance(value, dict) else value for name, value in values}
        model = tokenizer.get("model") or {}
        template = (tokenizer.get("post_processor") or {}).get("single") or ()
        added = {token.get("id"): token.get("content") for token in tokenizer.get("added_tokens") or ()}
        special = {*added.values()}
        path = folder / "config.json"
        begin = read_json_object(path).get("bos_token_id") if path.is_file() else None
        letters = all(len(token) == 1 for token in model.get("vocab") or () if token not in special)
        return cls(
            mask_token=named["mask"],
            begin_token=added.get(begin, named["bos"]),
            end_token=named["eos"] if named["eos"] == named["pad"] else None,
            chats=bool(config.get("chat_template")),
            surrounds=any("SpecialToken" in piece for piece in template),
            spaces="dropped" if model.get("type") == "WordPiece" else "single" if letters else "joined",
        )

    def with_blank(self, text: str) -> str:
        """`text` with the mask token in the place of a word in its middle, or of a letter where tokens are letters."""
        assert self.mask_token is not None
        words = list(re.finditer(r" ?\S+", text))
        start, end = words[len(words) // 2].span() if words else (0, 0)
        if self.spaces == "single":
            start = (start + end) // 2
            end = start + 1
        elif self.spaces == "dropped" and text[start : start + 1] == " ":
            start += 1
        return text[:start] + self.mask_token + text[end:]


def fence_for(text: str) -> str:
    """A code fence that nothing in `text` can close: longer than its longest run of backticks."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))


def _metadata(
    title: str,
    facts: dict[str, Any],
    results: dict[str, float] | None,
    metrics: dict[str, str],
    license: str,
    language: str,
    mask_token: str | None,
    dataset: str | None,
    base_model: str | None,
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    task = "text-generation" if mask_token is None else "fill-mask"
    evaluations = [
        EvalResult(
            task_type=task,
            task_name=task.capitalize().replace("-", " "),
            dataset_type=dataset or facts["recipe"],
            dataset_name=f"held-out text of the {facts['recipe']} recipe",
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
        base_model=base_model,
        mask_token=mask_token,  # pyright: ignore[reportCallIssue]  goes to the front matter; None is left out
        model_name=title if evaluations else None,
        eval_results=evaluations or None,
        scratchgpt=facts,  # pyright: ignore[reportCallIssue]  likewise; storage.model_card.FACTS
    ).to_yaml()


def _results(run: RunFolder, step: int, metrics: dict[str, str]) -> dict[str, float] | None:
    """The metrics of the exported step by name; None when the run has not measured them."""
    evaluation = run.evaluation_at(step)
    found = {name: evaluation.get("validation_loss" if name == "loss" else name) for name in metrics}
    values = {name: float(value) for name, value in found.items() if value is not None}
    return values if len(values) == len(metrics) else None


def _floor(facts: dict[str, Any], results: dict[str, float] | None) -> dict[str, str] | None:
    floor = facts.get("floor_bits_per_byte")
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


def _training_facts(run: RunFolder, facts: dict[str, Any], progress: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of the training table: what the run has recorded, and nothing it has not."""
    rows = [("text", facts["trained_on"]), ("recipe", f"`{facts['recipe']}`"), ("steps", f"{facts['steps']:,}")]
    if base := facts.get("base_model"):
        rows.insert(0, ("base model", f"`{base}`"))
    if teacher := _config(run, "data").get("teacher"):
        rows.append(("teacher (knowledge distillation)", f"`{model_name(Path(teacher))}`"))
    if tokens_seen := facts.get("tokens_seen"):
        rows.append(("tokens seen", f"{tokens_seen:,}"))
    if batch_size := _config(run, "data").get("batch_size"):
        rows.append(("windows per step", f"{batch_size:,}"))
    if seconds := progress.get("seconds"):
        rows.append(("time", duration(seconds)))
    return rows


def _resume_command(run: RunFolder) -> str | None:
    """The command that continues a run which was cut short; a folder elsewhere on the machine becomes runs/NAME."""
    words = shlex.split(run.state.get("resume_command") or "")
    if "--run-dir" not in words:
        return None
    given = Path(words[words.index("--run-dir") + 1])
    if given.is_absolute() or ".." in given.parts:
        words = [
            str("runs" / Path(given.name) / Path(word).relative_to(given)) if word.startswith(str(given)) else word
            for word in words
        ]
    return shlex.join(words)


def training_text(run: RunFolder) -> str:
    """What the run was trained on; of chats, that they are chats."""
    corpus = run.trained_on
    if _config(run, "data").get("objective") != "chat":
        return corpus
    return f"questions about {corpus}" if run.corpus_config.get("source") == "stories" else f"chats: {corpus}"


def _config(run: RunFolder, section: str) -> dict[str, Any]:
    return run.recipe.get("config", {}).get(section, {})


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


def _unseen(measured: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Texts on which the checkpoint was evaluated: name, bytes, bits per byte (`python -m train.evaluate --record`)."""
    texts = measured.get("texts") or {}
    return [(_cell(name), f"{each['bytes']:,}", f"{each['bits_per_byte']:.4f}") for name, each in texts.items()]


def _memorization(measured: dict[str, Any]) -> dict[str, str] | None:
    """What it writes word for word as it was trained on (`python -m train.memorization --record`); None: not known."""
    found = measured.get("memorization")
    if not found or found.get("share") is None:
        return None
    counts = {name: f"{found[name]:,}" for name in ("texts", "windows", "memorised", "window")}
    return counts | {"share": f"{found['share']:.3%}"}


def _seeded_samples(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """The texts of the seeds 0, 1, 2 …, written from nothing, with the fences that they need."""
    texts = [(each["seed"], _printable(each["text"])) for each in measured.get("seeded_samples") or []]
    return [{"seed": seed, "text": text, "fence": fence_for(text)} for seed, text in texts]


def _learning(run: RunFolder, step: int) -> list[tuple[str, str]]:
    """How the first prompt was continued at the steps 1, 10, 100 … up to `step`, each on one line."""
    found: dict[int, str] = {}
    for record in run.samples():
        at, prompt = record.get("step", 0), record.get("prompt") or ""
        if re.fullmatch("10*", str(at)) and at < step and prompt and at not in found:
            found[at] = _cell(_printable(record.get("text") or "")[:LEARNING_LENGTH])
    return [(f"{at:,}", text) for at, text in found.items()]


def _cell(text: str) -> str:
    """Text for a cell of a table: one line, and nothing that Markdown or HTML would read."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~$&])", r"\\\1", " ".join(text.split()))


def _printable(text: str) -> str:
    """Cuts a long text at a word, and shows what no page can show (control characters) as U+FFFD."""
    text = re.sub(r"[^\S\n]", " ", text.replace("\r\n", "\n"))
    text = re.sub(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text).strip()
    if len(text) <= SAMPLE_LENGTH:
        return text
    return re.sub(r"\s+\S*\Z", "", text[:SAMPLE_LENGTH]) + " …"


def _rounded(parameters: int) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if parameters >= size:
            return f"{parameters / size:.1f} {word}"
    return str(parameters)
