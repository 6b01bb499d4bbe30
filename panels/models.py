"""Which model the page uses: finding it, describing it, loading it.

Finding and describing read small files only and import nothing heavy; loading takes the seconds."""

from __future__ import annotations

import dataclasses
import filecmp
import logging
import re
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from modeling import loading, quick_imports
from modeling.loading import context_length, fetch, find_folder, has_chat_template, is_masked_lm
from modeling.stored.weights import read_weights
from panels import zerogpu
from storage.files import matching_paths
from storage.model_card import card_facts, card_metrics, card_title, read_card
from storage.prompts import read_prompts
from storage.records import read_json_object
from storage.run_folder import RunFolder, model_name, step_of
from storage.text import first_line

if TYPE_CHECKING:
    from modeling.batching import BatchGenerator

T = TypeVar("T")
logger = logging.getLogger(__name__)

LOADING_LIMIT = 600.0
"""Seconds a request waits for a model that is still loading."""
STILL_LOADING = "The model is still loading. Try again in a minute."
LOADING_TRIES = 3
"""How often a model is loaded whose files are replaced at the same time."""
POLL_INTERVAL = 0.06
"""Seconds after which a request that waits for the model notices that it was stopped."""
HOW_TO_GET_ONE = "`make demo` trains one in a few minutes; `--model` takes a bundle, a checkpoint, a run or a Hub id"
METRICS = ("bits_per_byte", "perplexity", "pseudo_perplexity")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """A model that was found, and what its files state without loading it."""

    given: str  # what the user asked for, or what was chosen
    name: str  # the title of the page
    folder: Path | None = None  # the folder with config.json; None: on the Hub, not fetched yet
    masked: bool = False  # it fills blanks instead of writing; False too where the folder is not known yet
    chat: bool = False  # it writes, and its tokenizer has a chat template; False too where the folder is not known yet
    parameters: int | None = None  # numbers in the weights' files
    context_length: int | None = None  # in tokens
    vocabulary: int | None = None  # in tokens
    trained_on: str | None = None  # the corpus in a few words
    read_before: str | None = None  # what its base model had read, in a few words; None: it began from nothing
    tokens_seen: int | None = None  # in training
    bits_per_byte: float | None = None  # on held-out text
    floor_bits_per_byte: float | None = None  # the entropy of the corpus, where it is known
    perplexity: float | None = None  # per token, on held-out text
    pseudo_perplexity: float | None = None  # of a masked model, per hidden token, on held-out text
    prompts: tuple[str, ...] = ()  # short beginnings taken from the corpus


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model that is ready to compute."""

    source: ModelSource
    model: Any = field(repr=False)  # a causal or masked language model of transformers, in eval mode
    tokenizer: Any = field(repr=False)  # any tokenizer of transformers
    context_length: int | None  # in tokens; None: no limit
    stop_token_ids: tuple[int, ...]  # tokens that end a text
    start_ids: tuple[int, ...]  # what precedes a complete text (`modeling.generation.start_ids`)
    prefix_ids: tuple[int, ...]  # what of it precedes every prompt (`modeling.generation.prefix_ids`)


class ModelLoader:
    """Loads a model in the background, so that the page can answer at once, and runs functions with it."""

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        self._future: Future[LoadedModel] = Future()
        self.done = threading.Event()
        """Set when the model is loaded, or loading has failed."""
        self._stream_on_gpu = zerogpu.on_gpu(self._stream)
        self._batching = threading.Lock()
        self._batch: list[BatchGenerator | None] = []  # empty until somebody asks

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

    @property
    def batch(self) -> BatchGenerator | None:
        """What writes many texts at once with the model, which must be loaded; None: it writes one at a time. Whoever
        asks first makes it, which takes up to a second.

        Raises ValueError when the model could not be loaded."""
        model = self.wait().model
        with self._batching:
            if not self._batch:
                from modeling.batching import batch_generator

                alone = zerogpu.is_here() or self.source.masked
                self._batch.append(None if alone else batch_generator(model))
            return self._batch[0]

    def expect(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Wait until the model is loaded, loading has failed, or `should_stop()`.

        Raises ValueError when it takes too long."""
        deadline = time.monotonic() + LOADING_LIMIT
        while not self.done.wait(POLL_INTERVAL) and not should_stop():
            if time.monotonic() > deadline:
                raise ValueError(STILL_LOADING)

    def stream(
        self,
        function: Callable[..., Generator[T, None, None]],
        *arguments: Any,
        should_stop: Callable[[], bool] | None = None,
    ) -> Generator[T, None, None]:
        """Yield what `function(model, *arguments)` yields, on the device where the model computes best.

        The function is one of a module (or a `partial` of it), and takes and yields data alone: on ZeroGPU it runs in
        another process, which cannot ask `should_stop`; elsewhere one that is given goes to the function too. Waits for
        a model that is still loading. Raises ValueError when it cannot be loaded, or takes too long."""
        self.expect()
        self.wait()
        named = {} if should_stop is None or zerogpu.is_here() else {"should_stop": should_stop}
        yield from self._stream_on_gpu(function, *arguments, **named)

    def call(self, function: Callable[..., T], *arguments: Any, should_stop: Callable[[], bool] | None = None) -> T:
        """`function(model, *arguments)`, as `stream` for a function that returns its result."""
        return next(self.stream(_yield_once, function, *arguments, should_stop=should_stop))

    def _run(self) -> None:
        try:
            self._future.set_result(load_model(self._source, device="cpu" if zerogpu.is_here() else None))
        except ValueError as error:
            self._future.set_exception(error)
        except BaseException as error:  # who waits is prepared for a ValueError
            is_defect = not isinstance(error, (OSError, MemoryError, RuntimeError))  # the last: torch, out of memory
            reason = f"{type(error).__name__}: {first_line(error)}" if is_defect else first_line(error)
            logger.error("The model could not be loaded: %s", reason, exc_info=is_defect)
            failure = ValueError(f"Cannot load {self._source.folder or self._source.given}: {reason}")
            failure.__cause__ = error
            self._future.set_exception(failure)
        finally:
            self.done.set()

    def _stream(self, function: Callable[..., Generator[T, None, None]], *arguments: Any, **named: Any) -> Any:
        loaded = self.wait()
        if zerogpu.is_here():
            import torch

            if torch.cuda.is_available():
                loaded.model.to("cuda")
        yield from function(loaded, *arguments, **named)


def _yield_once(
    loaded: LoadedModel, function: Callable[..., T], *arguments: Any, **named: Any
) -> Generator[T, None, None]:
    yield function(loaded, *arguments, **named)


def pretrained(home: Path) -> Path | None:
    """The model in the box: the folder `home`/pretrained/scifi, where it is."""
    folder = home / "pretrained" / "scifi"
    return folder if (folder / "config.json").is_file() else None


def default_source(home: Path) -> str:
    """The model that `home`/model.json pins (in a Space), else `home`/bundle, else the newest run of `home`/runs with a
    checkpoint, finished ones before others and trials of a sweep last, else the model in the box.

    Raises ValueError when there is none."""
    if (home / "model.json").is_file():
        pin = read_json_object(home / "model.json")
        return f"{pin.get('repo')}@{pin.get('revision')}"
    if (home / "bundle" / "config.json").is_file():
        return str(home / "bundle")
    states = [*matching_paths(home, "runs/*/run.json"), *matching_paths(home, "runs/*/trials/*/run.json")]
    runs = [RunFolder(path.parent) for path in states]
    runs = [run for run in runs if run.state.get("latest_checkpoint") or run.checkpoints()]
    if not runs and (box := pretrained(home)):
        return str(box)
    if not runs:
        raise ValueError(f"No model here: neither bundle/ nor a run in runs/ under {home}. {HOW_TO_GET_ONE}.")

    def rank(run: RunFolder) -> tuple[bool, bool, float]:
        is_trial = run.path.parent != home / "runs"
        return not is_trial, run.state.get("status") == "finished", run.last_change()

    return str(max(runs, key=rank).path)


def find_model(given: str | Path) -> ModelSource:
    """Find a bundle, a checkpoint, a run folder (its best checkpoint) or, where no such path exists, a Hub id, which
    is looked at only when it is loaded.

    Raises ValueError for a path that is missing or holds no complete model."""
    folder = find_folder(given)
    return ModelSource(given=str(given), name=str(given)) if folder is None else _describe_folder(folder, str(given))


def same_weights(one: Path, other: Path) -> bool:
    """Whether two model folders hold the very same weights; False where one of them cannot be read."""
    files = [matching_paths(folder, "*.safetensors") for folder in (one, other)]
    names = [[path.name for path in found] for found in files]
    try:
        return (
            bool(names[0])
            and names[0] == names[1]
            and all(filecmp.cmp(*pair, shallow=False) for pair in zip(*files, strict=True))
        )
    except OSError:  # a run may be writing or removing it right now
        return False


def load_model(source: ModelSource | str | Path, *, device: str | None = None) -> LoadedModel:
    """Load model and tokenizer of `source` (as `find_model` takes it) onto `device` (default: CUDA where there is
    one, else the CPU).

    Raises ValueError, with the reason, when they cannot be loaded or do not fit each other."""
    if not isinstance(source, ModelSource):
        source = find_model(source)
    if source.folder is None:
        folder = fetch(source.given)
        described = _describe_folder(folder, source.given)
        source = dataclasses.replace(described, name=described.name if described.name != folder.name else source.given)
    folder = source.folder
    assert folder is not None
    for tries_left in reversed(range(LOADING_TRIES)):
        stamps = loading.stamps_of(folder)
        try:
            loaded = _load_folder(source, folder, device)
            loading.refuse_replaced(folder, stamps)  # the tokenizer is read after the weights
            return loaded
        except ValueError:
            if not tries_left or stamps == loading.stamps_of(folder):
                raise
        except FileNotFoundError as error:  # between a look at a file and its opening
            if not tries_left:
                raise ValueError(
                    f"{folder}: expected a model that stays while it is loaded, but a file of it went meanwhile; load "
                    f"it again ({first_line(error)})"
                ) from error
    raise AssertionError("the last try returns or raises")


def _load_folder(source: ModelSource, folder: Path, device: str | None) -> LoadedModel:
    model = loading.load_model(folder, device=device)  # first: it imports torch and transformers without collecting

    with quick_imports():
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
    if (highest := max(tokenizer.get_vocab().values(), default=0)) >= rows:
        raise ValueError(
            f"The tokenizer in {folder} has a token with the id {highest:,}, its model knows those up to {rows - 1:,}. "
            "They belong to different models; put the tokenizer of this model there."
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


def _describe_folder(folder: Path, given: str) -> ModelSource:
    config = read_json_object(folder / "config.json")
    run = RunFolder.containing(folder)
    facts = _run_facts(run, step_of(folder)) if run else _card_facts(folder)
    prompts = read_prompts(folder) or (run.prompts() if run else [])
    is_run = run is not None and Path(given).expanduser().resolve() == run.path.resolve()
    return ModelSource(
        given=given,
        name=facts.pop("name", None) or model_name(run.path if run and is_run else folder),
        folder=folder,
        masked=is_masked_lm(folder),
        chat=has_chat_template(folder) and not is_masked_lm(folder),
        parameters=read_weights(folder).parameters,
        context_length=context_length(config),
        vocabulary=config.get("vocab_size"),
        prompts=tuple(prompts),
        **facts,
    )


def _run_facts(run: RunFolder, step: int | None) -> dict[str, Any]:
    """What a run's files state of its checkpoint of a step; run.json has the figures of the latest step, which need not
    be the best."""
    state = run.state
    measured = {"tokens_seen": state.get("tokens_seen"), **(state.get("evaluation") or {})}
    if step is not None and step != state.get("step"):
        try:
            measured = run.record_at(step, "tokens_seen") | run.evaluation_at(step)
        except ValueError:  # metrics.jsonl is damaged: the figures are not shown
            measured = {}
    return {
        "trained_on": _describe_own_corpus(run),
        "read_before": _read_before(state.get("base_model") or {}),
        "floor_bits_per_byte": state.get("floor_bits_per_byte"),
        **{name: measured.get(name) for name in ("tokens_seen", *METRICS)},
    }


def _read_before(base: dict[str, Any]) -> str | None:
    """`ModelSource.read_before`, from the `base_model` of run.json; None for {}."""
    if not base.get("name"):
        return None
    what = f" ({base['trained_on']})" if base.get("trained_on") else ""
    return f"what its base model {base['name']} had read{what}"


def _describe_own_corpus(run: RunFolder) -> str | None:
    """What the run was trained on, with the names of files, which the page of one's own run may show."""
    names = [Path(path).name for path in run.corpus_config.get("paths") or []]
    if names:
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    return run.trained_on if run.corpus_config else None


def _card_facts(folder: Path) -> dict[str, Any]:
    """The facts of a model card: its title, its metrics and, in a card of ours, what it was trained on."""
    data, body = read_card(folder)
    facts = card_facts(data)
    # Cards of ScratchGPT up to 0.1.1 state these two in their text alone. A limit for each: where the full stop is
    # missing, the rest of the card would be searched for it at every beginning.
    corpus = re.search(r"trained from scratch on (.{1,300}?)\.(?:\s|$)", body)
    floor = re.search(r"no model can beat \*\*(\d{1,3}(?:\.\d{1,9})?) bits per byte", body)
    metrics = card_metrics(data)
    return {
        "name": card_title(body),
        "trained_on": facts.get("trained_on") or (corpus[1] if corpus else None),
        "read_before": _read_before({"name": facts.get("base_model")}),
        "tokens_seen": facts.get("tokens_seen"),
        "floor_bits_per_byte": facts.get("floor_bits_per_byte") or (float(floor[1]) if floor else None),
        **{name: metrics.get(name) for name in METRICS},
    }


def _stop_token_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    ids: set[int] = set()
    for owner in (getattr(model, "generation_config", None), model.config, tokenizer):
        token_id = getattr(owner, "eos_token_id", None)
        ids.update(token_id if isinstance(token_id, (list, tuple)) else [] if token_id is None else [token_id])
    return tuple(sorted(ids))
