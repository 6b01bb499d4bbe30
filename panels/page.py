"""The whole page: the head that names the model, and the tabs."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.components.api_component import Api

from panels.components import theme
from panels.components.events import PRIVATE
from panels.components.model_switch import ModelSwitch
from panels.components.training_strip import StripParts
from panels.context import AppContext
from panels.formats import model_facts
from panels.guard.refusal import user_errors
from panels.guard.values import check_values
from panels.models import ModelSource
from panels.tabs.about import tab as about
from panels.tabs.chat import tab as chat
from panels.tabs.compare import tab as compare
from panels.tabs.fill import tab as fill
from panels.tabs.inside import tab as inside
from panels.tabs.learn import tab as learn
from panels.tabs.learn.upload import LARGEST_FILE
from panels.tabs.tokens import tab as tokens
from panels.tabs.tour import tab as tour
from panels.tabs.write import tab as write
from panels.templates import render

QUEUE_SIZE = 64
"""Requests that may wait before the next one is refused."""
THREADS = 80
"""Requests that may be at work or in the waiting line at once, and the quick events beside them."""

HEAD = """
<header class="masthead">
  <h1>{{ name }}</h1>
  <p class="opening">{{ opening }}{% if has_tour %}
    <a href="#tour" data-opens="Tour" data-press="#tour-start" data-unless=".tour">Take the tour</a>{% endif %}</p>
  <p>{% for fact in facts %}<span>{{ fact }}</span>{% endfor %}</p>
</header>
"""
OPENING = "This page runs a language model: it continues a text one token at a time, and shows what happens inside it."
MASKED_OPENING = (
    "This page runs a masked language model: it fills the blanks of a text, and shows what happens inside it."
)
TITLE = """
const tell = () => { document.title = `${element.querySelector('h1').textContent} · ScratchGPT`; };
watch('value', tell);
"""


UPLOADS_KEPT = (3600, 24 * 3600)
"""How often Gradio looks for uploaded files, and after how long it removes them, in seconds; all when the page ends."""
SESSIONS = 500
"""Visitors of whom the server remembers something (which of their requests is the latest, what Undo goes back to): each
takes about 0.1 MB, and Gradio keeps them for an hour. Of one more, the longest silent one is forgotten."""


class Page(gr.Blocks):
    """Blocks whose API takes a list that is too short, as plain HTTP sends it: the rest takes its defaults.

    What a client sends is checked against the components before Gradio reads it: a wrong value is a `gr.Error`, a
    sentence for the client without a traceback in the server's output.

    Tabs find `model_switch` and `training_strip`, where the page has them, by functions beside their classes."""

    model_switch: ModelSwitch | None = None
    training_strip: StripParts | None = None

    async def preprocess_data(self, block_fn: BlockFunction, inputs: list[Any], *others: Any, **named: Any) -> Any:
        """Check `inputs`, and fill them up where they call an endpoint, before Gradio converts them."""
        missing = block_fn.inputs[len(inputs) :]
        defaults = [block.value for block in missing if isinstance(block, Api)]
        if inputs and len(defaults) == len(missing):
            inputs += defaults
        state = others[0] if others else named.get("state")
        try:
            check_values(block_fn.inputs, inputs, state)
            for place, component in enumerate(block_fn.inputs):
                if isinstance(component, gr.Textbox) and inputs[place] is None:
                    inputs[place] = ""  # a text that is not there is an empty one
            return await super().preprocess_data(block_fn, inputs, *others, **named)
        except ValueError as error:  # of Gradio too: a file that nobody uploaded
            raise gr.Error(str(error), print_exception=False) from error

    async def process_api(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Answer a call; an error that its client is to blame for is noted for the middleware."""
        try:
            return await super().process_api(*arguments, **named)
        except gr.Error as error:
            error.print_exception = False  # Gradio's own too: it is for the client
            if (errors := user_errors.get()) is not None:
                errors.append(error.message)
            raise


CAUSAL_TABS, MASKED_TABS, CHAT_TABS = (write, tour, compare), (fill,), (chat,)
"""The tabs that only a model which writes has, those of one that fills blanks (it draws no next token, to which the
tour leads, and Fill in shows its probabilities), and those of one whose tokenizer has a chat template."""


def tabs_of(context: AppContext) -> list[ModuleType]:
    """The tabs of a page, in their order: those that its model needs, or may turn out to need."""
    tabs = [write, chat, tour, fill, tokens, inside, learn, compare, about]
    if context.may_switch or context.source.folder is None:
        return tabs
    return [tab for tab in tabs if is_for(tab, kind_of(context.source))]


def kind_of(source: ModelSource) -> tuple[bool, bool]:
    """What of a model decides on its tabs: whether it is masked, and whether it chats."""
    return source.masked, source.chat


def is_for(tab: ModuleType, kind: tuple[bool, bool]) -> bool:
    """Whether a tab is one for models of a kind."""
    masked, chats = kind
    return chats if tab in CHAT_TABS else tab not in (CAUSAL_TABS if masked else MASKED_TABS)


def first_of(kind: tuple[bool, bool]) -> str:
    """The tab that a page for models of a kind begins with."""
    return "fill" if kind[0] else "write"


def tab_changes(tabs: list[ModuleType], before: tuple[bool, bool], now: tuple[bool, bool]) -> list[Any]:
    """Updates of the tab bar and of each of `tabs`: they were for models of one kind, and shall be for another.

    The bar goes to the first tab only where one goes away, which may be the one that is open."""
    gone = any(is_for(tab, before) and not is_for(tab, now) for tab in tabs)
    bar = gr.update(selected=first_of(now)) if gone else gr.skip()
    # With False for "hidden", the tab bar brings back the tabs that the page was built with (Gradio 6.31).
    return [
        bar,
        *(
            gr.skip() if is_for(tab, now) == is_for(tab, before) else gr.update(visible=is_for(tab, now) or "hidden")
            for tab in tabs
        ),
    ]


def build_page(context: AppContext) -> Page:
    """The page for the model of `context`, which may still be loading."""
    tabs, built_for = tabs_of(context), kind_of(context.source)
    with Page(title=f"{context.source.name} · ScratchGPT", analytics_enabled=False, delete_cache=UPLOADS_KEPT) as page:
        kind = gr.State(built_for)  # what the tabs of this visitor are for
        switch = page.model_switch = ModelSwitch(context) if context.may_switch else None
        with gr.Row(elem_id="head"):
            head = gr.HTML(render_head(context.source), elem_id="masthead", js_on_load=TITLE)
            if switch is not None:
                switch.build_field()
        if switch is not None:
            switch.build_notice()
        has_strip = context.may_switch or context.may_train
        strip = page.training_strip = StripParts(context, switch) if has_strip else None
        if strip is not None:
            strip.build()
        places, parts = {}, []
        with gr.Tabs(selected=first_of(built_for)) as bar:
            for tab in tabs:
                name = tab.__name__.split(".")[-2]  # of its folder
                with gr.Tab(tab.TITLE, id=name, elem_id=f"tab-{name}", visible=is_for(tab, built_for)) as place:
                    parts += tab.build(context)
                if tab in (*CAUSAL_TABS, *MASKED_TABS, *CHAT_TABS):
                    places[tab] = place  # only these: a tab that is updated is rebuilt
        for tab in tabs:
            tab.add_endpoint(context)

        def arrive(shown_for: tuple[bool, bool]) -> list[Any]:
            return bring_up_to_date(shown_for, lambda tab: tab.arrived)

        def follow(shown_for: tuple[bool, bool]) -> list[Any]:
            return bring_up_to_date(shown_for, lambda tab: getattr(tab, "switched", tab.arrived))

        def bring_up_to_date(
            shown_for: tuple[bool, bool], of: Callable[[ModuleType], Callable[..., list[Any]]]
        ) -> list[Any]:
            context.loader.wait()
            needed = kind_of(context.source)
            first, *tabs_shown = tab_changes(list(places), shown_for, needed)
            updates = [update for tab in tabs for update in of(tab)(context)]
            field = [] if switch is None else [switch.updated()]
            return [render_head(context.source), needed, first, *tabs_shown, *field, *updates]

        chosen = [] if switch is None else [switch.chosen]
        outputs = [head, kind, bar, *places.values(), *chosen, *parts]
        options: dict[str, Any] = {**PRIVATE, "concurrency_limit": None}
        page.load(arrive, kind, outputs, **options)
        if switch is not None:
            switch.wire()
            switch.version.change(follow, kind, outputs, **options)
        if strip is not None:
            strip.wire(page)
    page.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1)
    return page


def render_head(source: ModelSource) -> str:
    """The model's name, what the page is, and one line of what the model is."""
    opening = MASKED_OPENING if source.masked else OPENING
    return render(HEAD, name=source.name, opening=opening, has_tour=not source.masked, facts=model_facts(source))


def launch_options() -> dict[str, Any]:
    """The keyword arguments of `Blocks.launch` that make the page ours and keep it to itself."""
    return {
        "theme": theme.build_theme(),
        "css_paths": theme.styles(),
        "js": theme.script(),
        "share": False,
        "ssr_mode": False,
        "run_history": False,
        "allowed_paths": [],
        "footer_links": ["api"],
        "quiet": True,
        # Gradio would ask itself for the page, and end the program where a busy machine takes three seconds to answer.
        "_frontend": False,
        "max_threads": THREADS,
        "max_file_size": LARGEST_FILE,
        "state_session_capacity": SESSIONS,
    }
