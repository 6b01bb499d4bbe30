"""Models beside the page's own: which there are to choose from, and the two in memory that were used last."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from modeling.loading import is_masked_lm
from panels import zerogpu
from panels.context import AppContext
from panels.models import LoadedModel, ModelSource, find_model, load_model
from storage.records import read_json_object

OWN = "(own)"
"""The choice of the page's model: no path and no Hub id looks like it."""
EXTRA = 2
"""Models kept in memory beside the page's own."""


class Shelf:
    """The models of one page. Loading is for one thread at a time; the others wait."""

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self._kept: dict[tuple[object, ...], LoadedModel] = {}  # the one used last behind the others
        self._lock = threading.Lock()

    @property
    def kept(self) -> list[LoadedModel]:
        """The models in memory, the one used last behind the others."""
        return list(self._kept.values())

    @property
    def takes_any(self) -> bool:
        """Whether a path or a Hub id may be typed in: only the machine's owner may."""
        return not self._context.is_public and not zerogpu.is_here()

    def choices(self) -> list[tuple[str, str]]:
        """What there is to choose from, each as what people read and what `find` takes: the page's model, the kept
        checkpoints of its run, the other runs and the bundles. A model for blanks and a folder that cannot be read are
        left out."""
        found = [(f"This page's model: {self._context.source.name}", OWN)]
        if zerogpu.is_here():  # another model does not travel to the process that has the GPU
            return found
        for label, folder in self._folders():
            if _writes(folder):
                found.append((label, self._shown(folder)))
        return found

    def name(self, choice: str | None) -> str:
        """A choice in a few words."""
        named = {value: label for label, value in self.choices()}
        return self._context.source.name if choice == OWN else named.get(choice or "", choice or "no model")

    def find(self, choice: str | None) -> ModelSource:
        """What is known of a choice without loading it.

        Raises ValueError where there is no such model, it cannot be read, or strangers ask for another than those
        offered."""
        choice = (choice or "").strip()
        if not choice:
            raise ValueError("No model is chosen: choose one from the list.")
        if choice == OWN:
            return self._context.source
        if not self.takes_any and choice not in {value for _, value in self.choices()}:
            raise ValueError("This model is not on offer here (any more): choose another one from the list.")
        folder = self._context.home / choice
        is_here = folder.exists() or re.match(r"(runs|bundles?)(/|$)", choice)
        try:
            source = find_model(folder if is_here else choice)
        except ValueError as error:
            raise ValueError(self._in_words(error)) from error
        if source.masked:
            raise ValueError(f"{choice} fills blanks and does not write: choose a model that writes.")
        return _at_its_step(source)

    def take(self, choice: str | None) -> LoadedModel:
        """A choice, loaded: the page's own model, one that is in memory still, or one from the disk or the Hub.

        Before another model is loaded, the one that was used longest ago is let go. Raises ValueError, saying what is
        wrong, for a model that cannot be found or loaded."""
        source = self.find(choice)
        own = self._context.loader.wait()
        if source is self._context.source or _key(source) == _key(own.source):
            return own
        with self._lock:
            key = _key(source)
            loaded = self._kept.pop(key, None)
            while loaded is None and len(self._kept) >= EXTRA:
                self._kept.pop(next(iter(self._kept)))
            try:
                loaded = loaded or load_model(source)
            except (ValueError, OSError) as error:
                raise ValueError(self._in_words(error)) from error
            if loaded.source.masked:
                raise ValueError(f"{choice} fills blanks and does not write: choose a model that writes.")
            self._kept[key] = loaded
            return loaded

    def _folders(self) -> Iterator[tuple[str, Path]]:
        home, run = self._context.home, self._context.run
        if run is not None:
            for folder in sorted(run.glob("checkpoints/step-*")):
                if step := re.fullmatch(r"step-(\d+)", folder.name):
                    yield f"Step {int(step[1]):,} of {run.name}", folder
        for other in sorted(home.glob("runs/*")):
            if (other / "run.json").is_file():
                yield f"Run {other.name}, its best checkpoint", other
        for bundle in (home / "bundle", *sorted(home.glob("bundles/*"))):
            if (bundle / "config.json").is_file():
                yield f"Bundle {self._shown(bundle)}", bundle

    def _shown(self, folder: Path) -> str:
        """A folder as a choice: below the home by its path there."""
        home = self._context.home.resolve()
        return str(folder.resolve().relative_to(home) if folder.resolve().is_relative_to(home) else folder)

    def _in_words(self, error: Exception) -> str:
        """What went wrong, without the paths of this machine, and what to do when it was bad luck."""
        message = str(error).replace(f"{self._context.home}/", "").rstrip(".")
        return (
            f"{message}. A run that is going on may be writing or removing it right now: try again, or choose another."
        )


def _at_its_step(source: ModelSource) -> ModelSource:
    """A checkpoint with the figures of its own step; those of its run are the best checkpoint's."""
    folder = source.folder
    step = re.fullmatch(r"step-(\d+)", folder.name) if folder is not None else None
    if folder is None or step is None:
        return source
    measured: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):  # of a run that is going on, the last line may be half written
        for line in (folder.resolve().parents[1] / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if isinstance(record, dict) and record.get("step") == int(step[1]):
                measured |= record
    return dataclasses.replace(
        source,
        tokens_seen=measured.get("tokens_seen"),
        bits_per_byte=measured.get("bits_per_byte"),
        perplexity=measured.get("perplexity"),
    )


def _writes(folder: Path) -> bool:
    """Whether a folder, a run's too, holds a causal language model that can be read at this moment."""
    try:
        if (folder / "run.json").is_file():
            state = read_json_object(folder / "run.json")
            folder = folder / str(state.get("best_checkpoint") or state.get("latest_checkpoint") or "none yet")
        return not is_masked_lm(folder)
    except ValueError:
        return False


def _key(source: ModelSource) -> tuple[object, ...]:
    """What tells two models apart: the folder, and when its weights were written; on the Hub the id."""
    if source.folder is None:
        return (source.given,)
    times = [file.stat().st_mtime_ns for file in sorted(source.folder.glob("*.safetensors*"))]
    return (source.folder.resolve(), *times)
