"""The strip that shows on every tab what is being trained, and the clicks that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.context import Context

from panels.components.events import DIRECT
from panels.components.model_switch import ModelSwitch
from panels.context import AppContext
from panels.model_cache import ModelCache
from panels.templates import render
from panels.training.launcher import launcher_of
from panels.training.strip import StripView, TrainingStrip, render_strip

TICK, LAST_TICK, IDLE_TICK = 1.5, 0.4, 4.0
"""Seconds between two questions of a visitor's page: while a run is active, in its last seconds, and while none is."""
LAST = 10.0
"""Seconds before the end of a run from which on its model is waited for."""
PLACE = "/training/state"
"""Where a visitor's page asks whether something is new. A plain request, no event of Gradio's, which costs the server
many times as much: thirty pages ask at once."""
PARTS = ("box", "shown", "use", "resume", "hide", "spoken", "choice", "active", "models")
"""What shows the strip, in the order of an update; `choice` is what `use` switches to, `models` what can be chosen."""
LIVE = """
element.setAttribute('role', 'status');
element.setAttribute('aria-live', 'polite');
let version, pause = 1.5;
const ask = async () => {
  if (!element.isConnected) return;
  try {
    const answer = await fetch(new URL('training/state', document.baseURI));
    if (answer.ok) {
      const state = await answer.json();
      pause = state.seconds;
      if (state.version !== version) trigger('tick', {});
      version = state.version;
    }
  } catch {} // the server has gone: Gradio's page says that
  setTimeout(ask, 1000 * pause);
};
ask();
"""


@dataclass(kw_only=True, slots=True)
class Seen:
    """What one visitor's page shows already."""

    strip: int = -1  # the version of the strip
    model: int = 0  # the version of the model
    message: str = ""  # what a screen reader was told last
    hidden: tuple[str, str] | None = None  # the run and the message that the visitor has put away


class StripParts:
    """The components of the strip and their events.

    Args:
        context: of the page.
        switch: takes the trained model; None: the page keeps its model.
    """

    def __init__(self, context: AppContext, switch: ModelSwitch | None) -> None:
        self._context, self._switch = context, switch
        self._cache, self.strip = ModelCache(context), TrainingStrip(context)
        self._parts: dict[str, Any] = {}
        self._models: tuple[int | None, str] = None, ""  # the version of the strip, and what could be chosen by then

    @property
    def models(self) -> gr.Textbox:
        """Changes when there are other models to choose from: those that a run makes while the page is open."""
        return self._parts["models"]

    @property
    def active(self) -> gr.Textbox:
        """Holds the folder of the run that is active; "" while none is."""
        return self._parts["active"]

    def build(self) -> None:
        """Lay out the strip."""
        with gr.Column(visible=False, elem_id="strip") as box:
            shown = gr.HTML("", elem_id="strip-shown", padding=False)
            with gr.Row(elem_id="strip-actions"):
                use = gr.Button("Write with it", variant="primary", elem_id="strip-use", min_width=120, visible=False)
                resume = gr.Button("Resume", elem_id="strip-resume", min_width=90, visible=False)
                hide = gr.Button("Hide", elem_id="strip-hide", min_width=70, visible=False)
        spoken = gr.HTML("", elem_id="strip-spoken", js_on_load=LIVE, padding=False)
        active = gr.Textbox(visible="hidden")
        models = gr.Textbox(self._choices(None), visible="hidden")
        values = (box, shown, use, resume, hide, spoken, gr.State(""), active, models)
        self._parts = dict(zip(PARTS, values, strict=True))

    def wire(self, page: gr.Blocks) -> None:
        """Wire the questions and the buttons."""
        parts, seen = self._parts, gr.State(Seen())
        outputs, version = [*parts.values()], [] if self._switch is None else [self._switch.version]
        page.load(self.begin, seen, outputs, **DIRECT)
        # A tick that comes while another one is answered is answered after it: the page will not send it again.
        parts["spoken"].tick(self.follow, [seen, *version], [*outputs, *version], trigger_mode="always_last", **DIRECT)
        parts["resume"].click(self.resume_run, seen, outputs, **DIRECT)
        parts["hide"].click(self.put_away, seen, outputs, **DIRECT)
        if self._switch is not None:
            self._switch.on(parts["use"].click, parts["choice"])
            self.models.change(self._switch.offered, None, self._switch.chosen, **DIRECT)
            self._switch.version.change(self.after_switch, [seen, self._switch.version], outputs, **DIRECT)

    def begin(self, seen: Seen) -> list[Any]:
        """A visitor's page was opened."""
        seen.model = self._context.version
        return self._update(seen, self.strip.look())

    def state(self) -> dict[str, str | float]:
        """What PLACE answers: `version`, another one after each change of the strip or the model, and `seconds` to wait
        before the next question."""
        shown = self.strip.look()
        pause = IDLE_TICK
        if shown.view is not None and shown.view.is_active:
            left = shown.view.seconds_left
            pause = TICK if left is None or left > LAST else LAST_TICK
        return {"version": f"{shown.version} {self._context.version}", "seconds": pause}

    def follow(self, seen: Seen, known: Any = None) -> list[Any]:
        """What is new, and the version of the model where it was switched; `known` is the one that the page has, which
        counts where nothing is known of the visitor (a page that outlived its server, or that opens just now)."""
        shown = self.strip.look()
        updates = [gr.skip()] * len(PARTS) if shown.version == seen.strip else self._update(seen, shown)
        if self._switch is None:
            return updates
        version = self._context.version
        is_old = (seen.model or known) != version
        seen.model = version
        return [*updates, version if is_old else gr.skip()]

    def after_switch(self, seen: Seen, version: float | None) -> list[Any]:
        """The visitor's page has the model of this version: the strip of its run may go. A later one is for the next
        tick to tell."""
        seen.model = max(seen.model, int(min(version or 0, self._context.version)))  # whatever was sent
        return self._update(seen, self.strip.refresh())

    def resume_run(self, seen: Seen) -> list[Any]:
        """Start the process of a run that has ended again."""
        run = self.strip.look().run
        trouble = None
        try:
            if run is None or not self._context.may_train:
                raise ValueError("There is no run to resume.")
            launcher_of(self._context.home).resume(run)
        except (ValueError, OSError) as error:
            trouble = str(error)
        shown = self.strip.refresh()
        return self._update(seen, shown if trouble is None else shown._replace(trouble=trouble))

    def put_away(self, seen: Seen) -> list[Any]:
        """Hide what is shown, until something else happens."""
        shown = self.strip.look()
        seen.hidden = _identity(shown)
        return self._update(seen, shown)

    def _update(self, seen: Seen, shown: StripView) -> list[Any]:
        seen.strip = shown.version
        view = shown.view
        is_active = view is not None and view.is_active
        is_visible = (view is not None or bool(shown.trouble)) and seen.hidden != _identity(shown)
        spoken = f"{view.name}: {shown.message}" if view is not None and is_visible else ""
        is_said = spoken == seen.message
        seen.message = spoken
        can_use = shown.can_use and self._switch is not None
        return [
            gr.update(visible=is_visible),
            gr.update(value=render_strip(shown) if is_visible else ""),
            gr.update(visible=can_use),
            gr.update(visible=shown.can_resume and self._context.may_train),
            gr.update(visible=not is_active),
            gr.skip() if is_said else gr.update(value=render("{{ text }}", text=spoken)),
            self._cache.choice_of(shown.run.path) if shown.run is not None else "",
            str(shown.run.path) if is_active and shown.run is not None else "",
            self._choices(shown.version),
        ]

    def _choices(self, version: int | None) -> str:
        """The models that can be chosen, looked up once a version of the strip for all visitors."""
        if version is None or self._models[0] != version:
            self._models = version, "\n".join(choice for _, choice in self._cache.choices(masked=True))
        return self._models[1]


def strip_of_page() -> StripParts | None:
    """That of the page which is being built; None: it has none."""
    return getattr(Context.root_block, "training_strip", None)


def _identity(shown: StripView) -> tuple[str, str]:
    """What a visitor puts away: this run in this state."""
    return (str(shown.run.path) if shown.run else "", f"{shown.message} {shown.trouble or ''}")
