"""Which model the page writes with: finding it, describing it, loading it.

Finding and describing read small files only and import nothing heavy; loading takes the seconds."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from modeling import loading
from modeling.loading import context_length, fetch, find_folder, first_line, is_masked_lm, read_weights
from panels import zerogpu
from storage.records import read_json_object

if TYPE_CHECKING:
    from modeling.generation import SamplingSettings
    from panels.generate import Draft

T = TypeVar("T")

LOADING_LIMIT = 600.0
"""Seconds a request waits for a model that is still loading."""
STILL_LOADING = "The model is still loading. Try again in a minute."
PACE = 0.06
"""Seconds after which one who waits for the model notices that there is no need to any more."""
HOW_TO_GET_ONE = "`make demo` trains one in three minutes; `--model` takes a bundle, a checkpoint, a run or a Hub id"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """A model that was found, and what its files tell about it without loading it."""

    given: str  # what the user asked for, or what was chosen
    name: str  # the title of the page
    folder: Path | None = None  # the folder with config.json; None: on the Hub, not fetched yet
    masked: bool = False  # it fills blanks instead of writing; False too where the folder is not known yet
    parameters: int | None = None  # numbers in the weights' file
    context_length: int | None = None  # in tokens
    vocabulary: int | None = None  # in tokens
    trained_on: str | None = None  # the corpus in a few words
    tokens_seen: int | None = None  # in training
    bits_per_byte: float | None = None  # on held-out text
    floor_bits_per_byte: float | None = None  # the entropy of the corpus, where it is known
    perplexity: float | None = None  # per token, on held-out text
    pseudo_perplexity: float | None = None  # of a masked model, per hidden token, on held-out text
    prompts: tuple[str, ...] = ()  # short beginnings taken from the corpus


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model that is ready to write."""

    source: ModelSource
    model: Any = field(repr=False)  # a causal or masked language model of transformers, in eval mode
    tokenizer: Any = field(repr=False)  # any tokenizer of transformers
    context_length: int | None  # in tokens; None: no limit
    stop_token_ids: tuple[int, ...]  # tokens that end a text
    start_ids: tuple[int, ...]  # what precedes a complete text (`modeling.generation.start_ids`)
    prefix_ids: tuple[int, ...]  # what of it precedes every prompt (`modeling.generation.prefix_ids`)


class ModelLoader:
    """Loads a model in the background, so that the page can answer at once."""

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        self._future: Future[LoadedModel] = Future()
        self.done = threading.Event()
        """Set when the model is loaded, or loading has failed."""
        self.write_on_gpu = zerogpu.on_gpu(self._write)
        """`panels.generate.write` with the model, for data alone: on ZeroGPU it runs in another process."""
        self._call_on_gpu = zerogpu.on_gpu(self._call)

    def start(self) -> ModelLoader:
        """Begin; returns at once."""
        threading.Thread(target=self._run, name="load-model", daemon=True).start()
        return self

    @property
    def source(self) -> ModelSource:
        """What is known about the model by now."""
        return self._future.result().source if self.ready else self._source

    @property
    def ready(self) -> bool:
        """True when `wait` would return a model at once."""
        return self._future.done() and self._future.exception() is None

    def wait(self, seconds: float | None = None) -> LoadedModel:
        """The model, as soon as it is loaded.

        Raises ValueError when it cannot be loaded, TimeoutError when it is not there after `seconds`."""
        return self._future.result(timeout=seconds)

    def expect(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Wait until the model is loaded, loading has failed, or `should_stop()`.

        Raises ValueError when it takes too long."""
        deadline = time.monotonic() + LOADING_LIMIT
        while not self.done.wait(PACE) and not should_stop():
            if time.monotonic() > deadline:
                raise ValueError(STILL_LOADING)

    def _run(self) -> None:
        try:
            self._future.set_result(load_model(self._source, device="cpu" if zerogpu.is_here() else None))
        except BaseException as error:
            self._future.set_exception(error)
        finally:
            self.done.set()

    def _write(
        self, prompt: str, settings: SamplingSettings, stop: str = "", alternatives: int = 0
    ) -> Generator[Draft, None, None]:
        from panels.generate import write

        yield from write(self._placed(), prompt, settings, stop=stop, alternatives=alternatives)

    def call(self, function: Callable[..., T], *arguments: Any, should_stop: Callable[[], bool] | None = None) -> T:
        """`function(model, *arguments)` with the loaded model, where it computes best.

        The function stands in a module, and takes and returns data alone: on ZeroGPU it runs in another process, which
        cannot ask `should_stop`; elsewhere one that is given goes to the function too.
        Waits for a model that is still loading. Raises ValueError when it cannot be loaded, or takes too long."""
        self.expect()
        self.wait()
        named = {} if should_stop is None or zerogpu.is_here() else {"should_stop": should_stop}
        return next(iter(self._call_on_gpu(function, *arguments, **named)))

    def _call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> Generator[T, None, None]:
        yield function(self._placed(), *arguments, **named)

    def _placed(self) -> LoadedModel:
        """The loaded model; on the GPU that ZeroGPU has lent to this process."""
        loaded = self.wait()
        if zerogpu.is_here():
            import torch

            if torch.cuda.is_available():
                loaded.model.to("cuda")
        return loaded


def default_source(home: Path) -> str:
    """The model that `home`/model.json pins (in a Space), else the newest of `home`/bundle and those of `home`/runs/*
    that have a checkpoint.

    Raises ValueError when there is none."""
    if (home / "model.json").is_file():
        pin = read_json_object(home / "model.json")
        return f"{pin.get('repo')}@{pin.get('revision')}"
    candidates = [
        *_times(home / "bundle" / "config.json"),
        *_times(*filter(_has_checkpoint, home.glob("runs/*/run.json"))),
    ]
    if not candidates:
        raise ValueError(f"No model here: neither bundle/ nor a run in runs/ under {home}. {HOW_TO_GET_ONE}.")
    return str(max(candidates)[1].parent)


def find_model(given: str | Path) -> ModelSource:
    """Find a bundle, a checkpoint, a run folder (its best checkpoint) or, where no such path exists, a Hub id, which
    is looked at only when it is loaded.

    Raises ValueError for a path that is missing or holds no whole model."""
    folder = find_folder(given)
    return ModelSource(given=str(given), name=str(given)) if folder is None else _describe_folder(folder, str(given))


def run_around(folder: Path) -> Path | None:
    """The run folder that a model folder is, or lies in as a checkpoint."""
    return next((place for place in (folder, *folder.resolve().parents[:2]) if (place / "run.json").is_file()), None)


def load_model(source: ModelSource | str | Path, *, device: str | None = None) -> LoadedModel:
    """Load model and tokenizer of `source` (as `find_model` takes it) onto `device` (default: CUDA where there is
    one, else the CPU).

    Raises ValueError, saying what is wrong, when they cannot be loaded or do not fit each other."""
    if not isinstance(source, ModelSource):
        source = find_model(source)
    if source.folder is None:
        folder = fetch(source.given)
        described = _describe_folder(folder, source.given)
        source = dataclasses.replace(described, name=described.name if described.name != folder.name else source.given)
    folder = source.folder
    assert folder is not None

    model = loading.load_model(folder, device=device)  # first: it imports torch and transformers without collecting

    from modeling.generation import prefix_ids, start_ids
    from tokenization import load_tokenizer

    try:
        tokenizer = load_tokenizer(folder)
    except Exception as error:  # each library below has exceptions of its own for a broken file
        raise ValueError(f"Cannot load the tokenizer in {folder}: {first_line(error)}") from error
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(
            f"The tokenizer in {folder} knows {len(tokenizer)} tokens, its model {rows}. They belong to "
            "different models; put the tokenizer of this model there."
        )
    return LoadedModel(
        source=source,
        model=model,
        tokenizer=tokenizer,
        context_length=context_length(model),
        stop_token_ids=_stop_token_ids(model, tokenizer),
        start_ids=start_ids(model, tokenizer),
        prefix_ids=prefix_ids(model, tokenizer),
    )


def _times(*files: Path) -> Iterator[tuple[float, Path]]:
    return ((file.stat().st_mtime, file) for file in files if file.is_file())


def _has_checkpoint(state_file: Path) -> bool:
    return bool(read_json_object(state_file).get("latest_checkpoint"))


def _describe_folder(folder: Path, given: str) -> ModelSource:
    config = read_json_object(folder / "config.json")
    run = run_around(folder)
    facts = _run_facts(run) if run else _card_facts(folder)
    prompts = next(
        (place / "prompts.json" for place in (folder, run) if place and (place / "prompts.json").is_file()), None
    )
    return ModelSource(
        given=given,
        name=facts.pop("name", None) or (run or folder.resolve()).name,
        folder=folder,
        masked=is_masked_lm(folder),
        parameters=read_weights(folder).parameters,
        context_length=context_length(config),
        vocabulary=config.get("vocab_size"),
        prompts=_read_prompts(prompts) if prompts else (),
        **facts,
    )


def _run_facts(run: Path) -> dict[str, Any]:
    state = read_json_object(run / "run.json")
    recipe = read_json_object(run / "recipe.json") if (run / "recipe.json").is_file() else {}
    evaluation = state.get("evaluation") or {}
    return {
        "trained_on": _corpus_in_words((recipe.get("config") or {}).get("corpus") or {}),
        "tokens_seen": state.get("tokens_seen"),
        "bits_per_byte": evaluation.get("bits_per_byte"),
        "perplexity": evaluation.get("perplexity"),
        "pseudo_perplexity": evaluation.get("pseudo_perplexity"),
        "floor_bits_per_byte": state.get("floor_bits_per_byte"),
    }


def _corpus_in_words(corpus: dict[str, Any]) -> str | None:
    paths = corpus.get("paths") or []
    if paths:
        names = [Path(path).name for path in paths]
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    if corpus.get("source") == "stories":
        return "made-up short stories"
    return "books of Project Gutenberg" if corpus.get("source") == "gutenberg" else None


def _card_facts(folder: Path) -> dict[str, Any]:
    """What a model card says: its first heading, its metrics, and in our own cards the corpus and its floor."""
    card = folder / "README.md"
    if not card.is_file():
        return {}
    from huggingface_hub import metadata_load

    text = card.read_text(encoding="utf-8", errors="replace")
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    facts: dict[str, Any] = {}
    if heading := re.search(r"^# +(.+)$", body, flags=re.MULTILINE):
        facts["name"] = heading[1].strip()[:80]
    if corpus := re.search(r"trained from scratch on (.+?)\.(?:\s|$)", body):
        facts["trained_on"] = corpus[1]
    if floor := re.search(r"no model can beat \*\*([\d.]+) bits per byte", body):
        facts["floor_bits_per_byte"] = float(floor[1])
    try:
        results = (metadata_load(card) or {})["model-index"][0]["results"]
        metrics = {metric["type"]: float(metric["value"]) for result in results for metric in result["metrics"]}
    except Exception:  # a card that people wrote by hand may hold anything, and nothing depends on it
        metrics = {}
    return facts | {
        name: metrics[name] for name in ("bits_per_byte", "perplexity", "pseudo_perplexity") if name in metrics
    }


def _read_prompts(path: Path) -> tuple[str, ...]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return tuple(str(prompt) for prompt in content if str(prompt).strip()) if isinstance(content, list) else ()


def _stop_token_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    ids: set[int] = set()
    for owner in (getattr(model, "generation_config", None), model.config, tokenizer):
        token_id = getattr(owner, "eos_token_id", None)
        ids.update(token_id if isinstance(token_id, (list, tuple)) else [] if token_id is None else [token_id])
    return tuple(sorted(ids))
