"""What the tabs of one page share: the model, the run it came from, the waiting line, and what visitors may do."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from panels.models import ModelLoader, ModelSource, run_around
from panels.request_queue import Line

T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class Lab:
    """The page's surroundings."""

    loader: ModelLoader
    home: Path = field(default_factory=Path.cwd)  # where runs/ and bundle/ are looked for
    run: Path | None = None  # the run folder that the model came from; by default the one it lies in
    is_public: bool = field(default_factory=lambda: "SPACE_ID" in os.environ)  # for strangers: on a Space
    allow_training: bool = False  # strangers too may start a run
    line: Line = field(default_factory=Line)

    def __post_init__(self) -> None:
        if self.run is None and self.source.folder is not None:
            self.run = run_around(self.source.folder)

    @property
    def source(self) -> ModelSource:
        """What is known of the model by now."""
        return self.loader.source

    @property
    def may_train(self) -> bool:
        """Whether a run may be started from the page."""
        return self.allow_training or not self.is_public

    def in_turn(self, function: Callable[..., T], *arguments: Any) -> T:
        """`loader.call`, but only when the model is there and those who came before have had their turn.

        Raises ValueError for a full line too."""
        self.loader.expect()
        with self.line.enter() as place:
            for _ in place.until_turn():
                pass
            return self.loader.call(function, *arguments)
