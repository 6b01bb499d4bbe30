"""The whole page: the head that names the model, and the tabs."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.components.api_component import Api

from panels.components import theme
from panels.context import AppContext
from panels.formats import model_facts
from panels.models import ModelSource
from panels.tabs.about import tab as about
from panels.tabs.compare import tab as compare
from panels.tabs.fill import tab as fill
from panels.tabs.inside import tab as inside
from panels.tabs.learn import tab as learn
from panels.tabs.tokens import tab as tokens
from panels.tabs.write import tab as write
from panels.templates import render

QUEUE_SIZE = 64
"""Requests that may wait before the next one is refused."""
THREADS = 80
"""Requests that may be at work or in the waiting line at once, and the quick events beside them."""

HEAD = """
<header class="masthead">
  <h1>{{ name }}</h1>
  <p>{% for fact in facts %}<span>{{ fact }}</span>{% endfor %}</p>
</header>
"""


class Page(gr.Blocks):
    """Blocks whose API takes a list that is too short, as plain HTTP sends it: the rest takes its defaults."""

    def validate_inputs(self, block_fn: BlockFunction, inputs: list[Any]) -> None:
        """Fill up `inputs` where they call an endpoint; raise ValueError where they are too few for another event."""
        missing = block_fn.inputs[len(inputs) :]
        defaults = [block.value for block in missing if isinstance(block, Api)]
        if inputs and len(defaults) == len(missing):
            inputs += defaults
        super().validate_inputs(block_fn, inputs)


def tabs_of(source: ModelSource) -> list[ModuleType]:
    """The tabs for a model: one that is not known yet may turn out to write or to fill blanks."""
    first = [write, fill] if source.folder is None else [fill] if source.masked else [write]
    return [*first, tokens, inside, learn, *([] if source.masked else [compare]), about]


def build_page(context: AppContext) -> gr.Blocks:
    """The page for the model of `context`, which may still be loading."""
    tabs = tabs_of(context.source)
    with Page(title=f"{context.source.name} · ScratchGPT", analytics_enabled=False) as page:
        head = gr.HTML(render_head(context.source), elem_id="masthead")
        places, parts = [], []
        with gr.Tabs():
            for tab in tabs:
                name = tab.__name__.split(".")[-2]  # of its folder
                with gr.Tab(tab.TITLE, id=name, visible=tab is not fill or context.source.masked) as place:
                    parts += tab.build(context)
                if tab in (write, fill) and context.source.folder is None:
                    places.append(place)  # only these: a tab that is updated is rebuilt
        for tab in tabs:
            tab.add_endpoint(context)

        def arrive() -> list[Any]:
            context.loader.wait()
            shown = [gr.update(visible=masked == context.source.masked) for masked in (False, True)][: len(places)]
            return [render_head(context.source), *shown, *(update for tab in tabs for update in tab.arrived(context))]

        page.load(
            arrive,
            outputs=[head, *places, *parts],
            show_progress="hidden",
            api_visibility="private",
            concurrency_limit=None,
        )
    page.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1)
    return page


def render_head(source: ModelSource) -> str:
    """The model's name and one line of what it is."""
    return render(HEAD, name=source.name, facts=model_facts(source))


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
        "footer_links": ["api", "settings"],
        "quiet": True,
        "max_threads": THREADS,
    }
