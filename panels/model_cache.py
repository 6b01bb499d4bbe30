"""The models beside the page's own: which there are to choose from, and an LRU cache of those in memory."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from modeling.loading import is_masked_lm
from panels import zerogpu
from panels.context import AppContext
from panels.models import LoadedModel, ModelSource, find_model, load_model, same_weights
from storage.checksums import file_stamps
from storage.files import as_path, matching_paths
from storage.run_folder import RunFolder

OWN = "(own)"
"""The choice of the page's model: no path and no Hub id looks like it."""
CAPACITY = 2
"""Models kept in memory beside the page's own."""


class ModelCache:
    """The models of one page. One thread loads at a time; the others wait."""

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self._loaded: dict[tuple[object, ...], LoadedModel] = {}  # the most recently used last
        self._lock = threading.Lock()

    @property
    def loaded(self) -> list[LoadedModel]:
        """The models in memory, the most recently used last."""
        return list(self._loaded.values())

    @property
    def takes_any(self) -> bool:
        """Whether a path or a Hub id may be typed in: only the machine's owner may."""
        return not self._context.is_public and not zerogpu.is_here()

    def choices(self, *, masked: bool = False) -> list[tuple[str, str]]:
        """What there is to choose from, as pairs of a label and what `find` takes: the page's model, the checkpoints of
        its run, the other runs, the bundles and the models in the box. Folders that cannot be read are left out, and
        masked models unless `masked`."""
        found = [(f"This page's model: {self._context.source.name}", OWN)]
        if zerogpu.is_here():  # another model does not travel to the process that has the GPU
            return found
        fits = [(label, folder) for label, folder in self._folders() if _can_be_read(folder, masked=masked)]
        return found + [(label, self.choice_of(folder)) for label, folder in fits]

    def name(self, choice: str | None, *, masked: bool = False) -> str:
        """The label of a choice, as `choices` names it."""
        labels = {value: label for label, value in self.choices(masked=masked)}
        return self._context.source.name if choice == OWN else labels.get(choice or "", choice or "no model")

    def find(self, choice: str | None, *, masked: bool = False) -> ModelSource:
        """What is known of a choice without loading it.

        Raises ValueError where there is no such model, it cannot be read, it is masked (unless `masked`), or visitors
        of a public page ask for another than those offered."""
        choice = (choice or "").strip()
        if not choice:
            raise ValueError("No model is chosen: choose one from the list.")
        if choice == OWN:
            return self._context.source
        if not self.takes_any and choice not in {value for _, value in self.choices()}:
            raise ValueError("This model is not on offer here (any more): choose another one from the list.")
        folder = as_path(self._context.home / choice, "a folder or a Hub id")
        is_here = folder.exists() or re.match(r"(runs|bundles?|pretrained)(/|$)", choice)
        try:
            source = find_model(folder if is_here else choice)
        except ValueError as error:
            raise self._explained(error) from error
        if source.masked and not masked:
            raise ValueError(f"{choice} fills blanks and does not write: choose a model that writes.")
        return source

    def another(self) -> str | None:
        """The first choice whose weights are not those of the page's model: the earliest checkpoint of its run, another
        run, a bundle, the one in the box; None: there is none."""
        own = self._context.source.folder
        for _, choice in self.choices():
            with contextlib.suppress(ValueError):  # it was removed just now
                folder = self.find(choice).folder
                if choice != OWN and folder is not None and not (own and same_weights(own, folder)):
                    return choice
        return None

    def get(self, choice: str | None) -> LoadedModel:
        """A choice, loaded: the page's own model, one from the cache, or one from the disk or the Hub.

        Before another model is loaded, the least recently used one is dropped. Raises ValueError, with the reason, for
        a model that cannot be found or loaded."""
        source = self.find(choice)
        own = self._context.loader.wait()
        if choice == OWN or _key(source) == _key(own.source):
            return own
        with self._lock:
            key = _key(source)
            loaded = self._loaded.pop(key, None)
            while loaded is None and len(self._loaded) >= CAPACITY:
                self._loaded.pop(next(iter(self._loaded)))
            try:
                loaded = loaded or load_model(source)
            except (ValueError, OSError) as error:
                raise self._explained(error) from error
            if loaded.source.masked:
                raise ValueError(f"{choice} fills blanks and does not write: choose a model that writes.")
            self._loaded[key] = loaded
            return loaded

    def _folders(self) -> Iterator[tuple[str, Path]]:
        home, run = self._context.home, self._context.run
        if run is not None:
            for step, folder in RunFolder(run).checkpoints().items():
                yield f"Step {step:,} of {run.name}", folder
        for other in RunFolder.all_in(home):
            if other.has_state:
                yield f"Run {other.path.name}, its best checkpoint", other.path
        for bundle in (home / "bundle", *matching_paths(home, "bundles/*"), *matching_paths(home, "pretrained/*")):
            if (bundle / "config.json").is_file():
                yield f"Bundle {self.choice_of(bundle)}", bundle

    def choice_of(self, folder: Path) -> str:
        """A folder as a choice: its path below the home, where it is there."""
        home = self._context.home.resolve()
        return str(folder.resolve().relative_to(home) if folder.resolve().is_relative_to(home) else folder)

    def without_home(self, message: str) -> str:
        """A message without the paths of this machine."""
        return message.replace(f"{self._context.home}/", "")

    def _explained(self, error: Exception) -> ValueError:
        """The error without the paths of this machine, and with what to do."""
        message = self.without_home(str(error)).rstrip(".")
        return ValueError(
            f"{message}. A run that is training may be writing or removing it right now: try again, or choose another."
        )


def _can_be_read(folder: Path, *, masked: bool) -> bool:
    """Whether a folder, or the best checkpoint of a run's, holds a language model that can be read now: a causal one,
    or, with `masked`, any."""
    try:
        run = RunFolder(folder)
        return not is_masked_lm(run.checkpoint() if run.has_state else folder) or masked
    except ValueError:
        return False


def _key(source: ModelSource) -> tuple[object, ...]:
    """The identity of a model: the folder and when its weights were written; on the Hub the id."""
    if source.folder is None:
        return (source.given,)
    stamps = file_stamps(source.folder, (".safetensors", ".safetensors.index.json"))
    return (source.folder.resolve(), *stamps.items())
