"""What the page says of training on every tab: which run, how it goes, and what to do when it has ended."""

from __future__ import annotations

import itertools
import threading
import time
from typing import NamedTuple

from panels.context import AppContext
from panels.formats import rough_duration, visible
from panels.templates import render
from panels.training.launcher import Launcher, launcher_of
from panels.training.monitor import RunView, monitor_of
from storage.run_folder import RunFolder

INTERVAL = 0.3
"""Seconds between two looks at the run, however many visitors ask."""
SEARCH_INTERVAL = 2.0
"""Seconds between two searches for a run that somebody has started, while none is active."""
LONGEST, LONGEST_PROMPT = 240, 80
"""Characters of what a model wrote, and of the prompt before it, that are shown."""

CUT_SHORT = "Finished, but cut short"
STOPPING = "Saving and stopping …"

STRIP = """
<div class="status {{ state }}">
  {% if message %}
  <p><span><i class="dot" aria-hidden="true"></i><b>Training {{ name }}</b></span>
    <span>{{ message }}</span>
  {% for fact in facts if fact %}
    <span>{{ fact }}</span>
  {% endfor %}
  </p>
  {% endif %}
  {% if share is not none %}
  <div class="bar" role="progressbar" aria-label="Steps" aria-valuemin="0" aria-valuemax="100"
    aria-valuenow="{{ share }}"><i style="width:{{ share }}%"></i></div>
  {% endif %}
  {% if sample %}
  <p class="sample"><span class="quiet">At step {{ '{:,}'.format(sample.step) }} it writes:</span>
    <q><b>{{ prompt }}</b>{{ continuation }}</q></p>
  {% endif %}
  {% for line in warnings if line %}<p class="warning">{{ line }}</p>{% endfor %}
  {% if command %}<p class="quiet">It goes on with <code>{{ command }}</code></p>{% endif %}
</div>
"""


class StripView(NamedTuple):
    """What the strip shows; everything is empty where it shows nothing."""

    version: int  # another number after each change
    run: RunFolder | None = None
    view: RunView | None = None
    is_stopping: bool = False  # it was asked to stop
    is_own: bool = False  # the page's model came from this run
    error: str | None = None  # the last one of its process, where it failed
    trouble: str | None = None  # beside the training itself

    @property
    def can_use(self) -> bool:
        """Whether the page may go over to this run's model, and does not write with it yet."""
        return self.view is not None and self.view.has_checkpoint and not self.view.is_active and not self.is_own

    @property
    def can_resume(self) -> bool:
        """Whether the page can start its process again."""
        return self.view is not None and self.view.can_resume and self.run_has_recipe

    @property
    def run_has_recipe(self) -> bool:
        """Whether it came as far as to have a recipe to go on with."""
        return self.run is not None and self.run.recipe_file.is_file()

    @property
    def message(self) -> str:
        """What is going on, in a few words; "" where nothing is."""
        if self.view is None:
            return ""
        if self.is_stopping and self.view.is_active:
            return STOPPING
        return CUT_SHORT if self.view.status == "finished" and self.view.cut_short else self.view.status_text


class TrainingStrip:
    """The training that a page shows, looked at for all its visitors together.

    It is the run that a process works on, whoever started it; when that has ended, it stays, until the page writes with
    its model. A model that was cut short is named as long as the page writes with it.
    """

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self._launcher: Launcher = launcher_of(context.home)
        companion = context.companion
        self._run = companion.run if companion is not None and companion.is_needed else None
        self._versions = itertools.count(1)
        self._shown = StripView(0)
        self._looked_at = self._searched_at = -SEARCH_INTERVAL
        self._lock = threading.Lock()

    def look(self) -> StripView:
        """What is to be shown now."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at >= INTERVAL:
                self._looked_at = now
                found = self._look(now)
                if found != self._shown._replace(version=0):
                    self._shown = found._replace(version=next(self._versions))
            return self._shown

    def refresh(self) -> StripView:
        """The same, read anew."""
        with self._lock:
            self._looked_at = self._searched_at = -SEARCH_INTERVAL
        return self.look()

    def _look(self, now: float) -> StripView:
        context, launcher = self._context, self._launcher
        view = self._view(self._run)
        if (view is None or not view.is_active) and now - self._searched_at >= SEARCH_INTERVAL:
            self._searched_at = now
            self._run = self._active() or self._run
            view = self._view(self._run)
        trouble = context.companion.trouble if context.companion is not None else None
        run, own = self._run, context.run
        if run is None or view is None or (view.status == "finished" and self._is_own(run)):
            # Nothing is trained: is the page's own model one of a run that was cut short?
            run = RunFolder(own) if own is not None else None
            view = self._view(run)
            if run is None or view is None or not view.cut_short or view.status != "finished":
                return StripView(0, trouble=trouble)
        return StripView(
            0,
            run=run,
            view=view,
            is_stopping=launcher.is_stopping(run),
            is_own=self._is_own(run),
            error=launcher.last_error(run) if view.status == "failed" else None,
            trouble=trouble,
        )

    def _view(self, run: RunFolder | None) -> RunView | None:
        return None if run is None else monitor_of(run).view(since=self._launcher.since(run))

    def _is_own(self, run: RunFolder) -> bool:
        own = self._context.run
        return own is not None and own.resolve() == run.path.resolve()

    def _active(self) -> RunFolder | None:
        """A run that a process works on. Locks are tested only of runs that say they are running: a test holds the lock
        for a moment."""
        runs = [RunFolder(run.path.resolve()) for run in RunFolder.all_in(self._context.home)]
        ours = (run for run in runs if self._launcher.since(run) is not None)
        others = (run for run in runs if run.peek_state().get("status") == "running" and run.is_locked)
        return next(itertools.chain(ours, others), None)


def render_strip(shown: StripView) -> str:
    """The strip as HTML: what is going on, the numbers, the bar, the latest sample, and what to do."""
    view = shown.view
    warnings = [shown.trouble]
    if view is None:
        facts, share, sample, command = [], None, None, None
    else:
        left = view.seconds_left if view.is_active else None
        facts = [
            f"step {view.step:,} of {view.steps:,}" if view.steps and view.status != "preparing" else "",
            f"{rough_duration(left)} left" if left is not None else "",
            f"{rough_duration(view.seconds)} of training" if not view.is_active and view.seconds else "",
            _quality(view),
            f"loss {view.loss:.3f}" if view.loss is not None and view.status == "running" else "",
        ]
        share = min(100, 100 * view.step // view.steps) if view.status == "running" and view.steps else None
        sample = view.sample if view.is_active else None
        command = view.resume_command if view.status == "finished" and view.cut_short else None
        warnings.append(view.cut_short if view.status == "finished" else None)
        if view.status == "failed":
            warnings.append(_failure(shown))
    text = " ".join(visible(sample.text).split()) if sample else ""
    prompt = " ".join(visible(sample.prompt).split()) if sample else ""
    prompt = prompt if text.startswith(prompt) else ""
    written = text[len(prompt) :]
    prompt = prompt if len(prompt) <= LONGEST_PROMPT else f"… {prompt[-LONGEST_PROMPT:]}"
    is_trouble = any(warnings) or (view is not None and view.status in ("failed", "crashed", "missing"))
    return render(
        STRIP,
        state="trouble" if is_trouble else "busy" if view is not None and view.is_active else "idle",
        message=shown.message,
        name=view.name if view else "",
        facts=facts,
        share=share,
        sample=sample,
        prompt=prompt,
        continuation=written[:LONGEST] + (" …" if len(written) > LONGEST else ""),
        warnings=warnings,
        command=command,
    )


def _quality(view: RunView) -> str:
    """Bits per byte of the last evaluation while it trains, then those of the best checkpoint, which is the model."""
    if not view.is_active and view.best_bits_per_byte is not None:
        return f"{view.best_bits_per_byte:.3f} bits per byte at its best"
    return f"{view.bits_per_byte:.3f} bits per byte" if view.bits_per_byte is not None else ""


def _failure(shown: StripView) -> str:
    """Why a run failed, and what to do."""
    view = shown.view
    if shown.is_stopping and not (view and view.step):
        return "Stopped before its first step. Nothing is lost: it begins again."
    reason = (shown.error or (view and view.cut_short) or "").removeprefix("error: ").rstrip(".")
    if not reason:
        name = shown.run.page_log if shown.run else "page.log"
        return f"Its process ended before its first step; {name} may show why."
    return reason if shown.run_has_recipe else f"{reason}. Fix that, and start the page again."
