"""What the tabs of one page share: the model, its run, the request queue, and what visitors may do."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from panels.models import ModelLoader, ModelSource
from panels.request_queue import RequestQueue
from storage.run_folder import RunFolder

T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class AppContext:
    """What the tabs of one page share."""

    loader: ModelLoader
    home: Path = field(default_factory=Path.cwd)  # where runs/ and bundle/ are looked for
    run: Path | None = None  # the model's run folder (default: the one that its folder is in)
    is_public: bool = field(default_factory=lambda: "SPACE_ID" in os.environ)  # on a Space, for everybody
    allow_training: bool = False  # visitors of a public page may start runs too
    queue: RequestQueue = field(default_factory=RequestQueue)

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

    def call_queued(self, function: Callable[..., T], *arguments: Any) -> T:
        """`loader.call` as soon as the model is loaded and it is this request's turn.

        Raises ValueError for a full queue too."""
        self.loader.expect()
        with self.queue.join() as ticket:
            for _ in ticket.wait_for_turn():
                pass
            return self.loader.call(function, *arguments)
