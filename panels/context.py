"""What the tabs of one page share: the model, its run, the request queue, and what visitors may do."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from panels import zerogpu
from panels.models import ModelLoader, ModelSource, same_weights
from panels.request_queue import LIMIT, RequestQueue
from storage.run_folder import RunFolder

if TYPE_CHECKING:
    from panels.training.companion import CompanionRun

T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class AppContext:
    """What the tabs of one page share.

    `switch` replaces the model: whoever needs it takes it from here each time, and keeps no loader of its own."""

    loader: ModelLoader
    home: Path = field(default_factory=Path.cwd)  # where runs/ and bundle/ are looked for
    run: Path | None = None  # the model's run folder (default: the one that its folder is in)
    version: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    """Larger after each switch, and in each later server: a browser's page that outlives one learns of its model."""
    is_public: bool = field(default_factory=lambda: "SPACE_ID" in os.environ)  # on a Space, for everybody
    allow_training: bool = False  # visitors of a public page may start runs too
    companion: CompanionRun | None = None  # the run that was started with the page
    queue: RequestQueue = field(default_factory=RequestQueue)  # for what computes alone
    writing: RequestQueue = field(default_factory=partial(RequestQueue, workers=LIMIT, limit=2 * LIMIT))
    """For texts of a model that writes many at once (`ModelLoader.batch`)."""
    _switching: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.run is None and self.source.folder is not None:
            run = RunFolder.containing(self.source.folder)
            self.run = run and run.path

    @property
    def source(self) -> ModelSource:
        """What is known of the model by now."""
        return self.loader.source

    @property
    def may_train(self) -> bool:
        """Whether a run may be started from the page."""
        return self.allow_training or not self.is_public

    @property
    def may_switch(self) -> bool:
        """Whether the page's model may be changed on the page: a public page has one model for all its visitors, and
        on ZeroGPU another one does not travel to the process that has the GPU."""
        return not self.is_public and not zerogpu.is_here()

    def switch(self, source: ModelSource) -> None:
        """Use another model from now on, for everybody. Texts that are being generated end with the model they began
        with, and then it is freed; until the new one is loaded, nothing changes.

        Raises ValueError, and the page keeps its model, where it cannot be loaded or may not be changed."""
        if not self.may_switch:
            raise ValueError("This page keeps its model, which all its visitors share.")
        with self._switching:
            loader = ModelLoader(source).start()
            try:
                loader.wait()
            except ValueError as error:
                reason = str(error).rstrip(".")
                raise ValueError(f"{reason}. The page keeps its model, {self.source.name}.") from error
            self.run = find_run(loader.source, self.home)
            self.loader = loader
            self.version += 1
        gc.collect()  # a loader and its model refer to themselves

    def call_queued(self, function: Callable[..., T], *arguments: Any) -> T:
        """`loader.call` as soon as the model is loaded and it is this request's turn.

        Raises ValueError for a full queue too."""
        self.loader.expect()
        with self.queue.join() as ticket:
            for _ in ticket.wait_for_turn():
                pass
            return self.loader.call(function, *arguments)


def find_run(source: ModelSource, home: Path) -> Path | None:
    """The run folder that a model came from: the one it lies in, or that run of `home`/runs whose best checkpoint has
    the very same weights. None: there is none here."""
    if source.folder is None:
        return None
    if around := RunFolder.containing(source.folder):
        return around.path
    return next((run.path for run in RunFolder.all_in(home) if _has_weights(run, source.folder)), None)


def _has_weights(run: RunFolder, folder: Path) -> bool:
    try:
        return same_weights(run.checkpoint(), folder)
    except (ValueError, OSError):  # a run without a checkpoint, or one that is being written
        return False
