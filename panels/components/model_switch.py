"""The choice of the page's model: a field in the head, and the click that takes a run, a checkpoint or a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.context import Context

from panels.components.events import DIRECT, PRIVATE
from panels.components.status import render_status
from panels.context import AppContext
from panels.model_cache import OWN, ModelCache

BROKEN = render_status("trouble", "That went wrong; the page's log says why. The page keeps its model.")


class ModelSwitch:
    """The field, the line below the head that says what became of a choice, and the events that make one.

    `version` is that of the model that a visitor's page knows of; a tab that has to work something out anew for another
    model listens to its `change`."""

    version: gr.Number  # from `build_field` on
    notice: gr.HTML  # from `build_notice` on
    _told: gr.State  # from `build_notice` on: the version that the line has named to this visitor

    def __init__(self, context: AppContext) -> None:
        self._context, self._cache = context, ModelCache(context)
        self.chosen: gr.Dropdown | None = None

    def build_field(self) -> None:
        """Lay out the field."""
        takes_any = self._cache.takes_any
        # No gr.State: the change of one is noticed only where a queued event made it, and a timer's are not queued.
        self.version = gr.Number(self._context.version, visible="hidden")
        self.chosen = gr.Dropdown(
            self.choices(),
            value=OWN,
            label="Model",
            allow_custom_value=takes_any,
            filterable=True,
            elem_id="model-choice",
            min_width=200,
            scale=1,
            container=False,
        )

    def build_notice(self) -> None:
        """Lay out the line."""
        self.notice, self._told = gr.HTML("", elem_id="model-notice", padding=False), gr.State(0)

    def wire(self) -> None:
        """Let a choice in the field switch the model."""
        assert self.chosen is not None
        # Not `input`: the field sends one whenever it loses the focus, and Gradio drops a choice that is made before
        # that one is answered. Two choices are answered one after the other.
        self.on(partial(self.chosen.change, trigger_mode="multiple"), self.chosen)
        self.version.change(self.tell, self._told, [self.notice, self._told], **DIRECT)

    def on(self, event: Callable[..., Any], choice: Component, read: Callable[[Any], str | None] = str) -> Any:
        """Let `event` switch to what `read` makes of the value of `choice`: a value of `ModelCache.choices`, a path or
        a Hub id (default: the value itself)."""
        outputs = [self.notice, self.chosen, self.version, self._told]

        def take(value: Any) -> Iterator[list[Any]]:
            yield from self.switch(read(value or ""))

        switched = event(take, choice, outputs, concurrency_limit=1, concurrency_id="model-switch", **PRIVATE)
        switched.failure(lambda: [BROKEN, self.updated(), gr.skip(), gr.skip()], None, outputs, **DIRECT)
        return switched

    def switch(self, choice: str | None) -> Iterator[list[Any]]:
        """Switch to a choice: the line, the field, and twice the version; the line says what is wrong with a choice."""
        context, same = self._context, [gr.skip(), gr.skip()]
        if choice == OWN:  # the field was set back
            yield [gr.skip(), gr.skip(), *same]
            return
        if not (choice or "").strip():  # the field was emptied and left: nothing was chosen
            yield [gr.skip(), self.updated(), *same]
            return
        # Until it is set back, no other choice can be made: OWN could not be told from the field's being set back.
        busy = render_status("busy", f"Loading {self._cache.name(choice, masked=True)} …")
        yield [busy, gr.update(interactive=False), *same]
        try:
            context.switch(self._cache.find(choice, masked=True))
        except ValueError as error:
            reason = self._cache.without_home(str(error))
            yield [render_status("trouble", f"Not this model: {reason}"), self.updated(), *same]
            return
        yield [self.said(), self.updated(), context.version, context.version]

    def tell(self, told: int) -> list[Any]:
        """The line of a visitor who has not chosen the new model, and the version that it names."""
        version = self._context.version
        return [gr.skip() if told >= version else self.said(), version]

    def choices(self) -> list[tuple[str, str]]:
        """What the field offers: the page's model by its name, then the others."""
        _, *others = self._cache.choices(masked=True)
        return [(self._context.source.name, OWN), *others]

    def offered(self) -> Any:
        """The field with what there is to choose from now, whatever stands in it."""
        return gr.update(choices=self.choices())

    def updated(self) -> Any:
        """The field as it should be now."""
        return gr.update(choices=self.choices(), value=OWN, interactive=True)

    def said(self) -> str:
        """What the line says after a switch."""
        return render_status("idle", f"The page uses {self._context.source.name} from now on.")


def switch_of_page() -> ModelSwitch | None:
    """That of the page which is being built; None: it keeps its model."""
    return getattr(Context.root_block, "model_switch", None)


def on_model(answer: Callable[..., Any], inputs: Any, outputs: Any, *, opened: bool = True) -> list[Any]:
    """Update `outputs` with what `answer` makes of `inputs`, as the visitor has them, when another model is there; and,
    unless not `opened`, when the page was opened. Returns these events, for what is to follow them."""
    page, switch = Context.root_block, switch_of_page()
    assert page is not None, "a page is being built"
    changes = [*([page.load] if opened else []), *([switch.version.change] if switch is not None else [])]
    # In the queue: the answer may wait for the model.
    return [change(answer, inputs, outputs, **PRIVATE, concurrency_limit=None) for change in changes]
