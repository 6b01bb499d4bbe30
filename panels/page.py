"""The whole page: the head that names the model, and the tabs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from panels import fill, theme, write
from panels.markup import render
from panels.models import ModelLoader, ModelSource
from panels.words import facts_in_words

QUEUE_SIZE = 64
"""Requests that may wait before the next one is refused."""

HEAD = """
<header class="masthead">
  <h1>{{ name }}</h1>
  <p>{% for fact in facts %}<span>{{ fact }}</span>{% endfor %}</p>
</header>
"""


def build_page(loader: ModelLoader) -> gr.Blocks:
    """The page for the model of `loader`, which may still be loading."""
    source = loader.source
    with gr.Blocks(title=f"{source.name} · ScratchGPT", analytics_enabled=False) as page:
        head = gr.HTML(render_head(source), elem_id="masthead")
        is_known = source.folder is not None
        tabs = [tab for tab in (write, fill) if not is_known or source.masked == (tab is fill)]
        first = 1 if is_known else 0  # a tab that stays is not updated, which would build it anew
        with gr.Tabs():
            parts = [part for tab in tabs for part in tab.build(loader)[first:]]
        for tab in tabs:
            tab.add_endpoint(loader)

        def arrive() -> list[Any]:
            loader.wait()
            return [
                render_head(loader.source),
                *(update for tab in tabs for update in tab.arrived(loader.source)[first:]),
            ]

        page.load(
            arrive,
            outputs=[head, *parts],
            show_progress="hidden",
            api_visibility="private",
            concurrency_limit=None,
        )
    page.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1)
    return page


def render_head(source: ModelSource) -> str:
    """The model's name and one line of what it is."""
    return render(HEAD, name=source.name, facts=facts_in_words(source))


def launch_options() -> dict[str, Any]:
    """The keyword arguments of `Blocks.launch` that make the page ours and keep it to itself."""
    return {
        "theme": theme.build_theme(),
        "css_paths": [theme.STYLE],
        "js": theme.SCRIPT.read_text(encoding="utf-8"),
        "share": False,
        "ssr_mode": False,
        "run_history": False,
        "allowed_paths": [],
        "footer_links": ["api", "settings"],
        "quiet": True,
    }
