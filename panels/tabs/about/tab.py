"""The About tab: what the model is, how to load it, and its card."""

from __future__ import annotations

import os
import re
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.context import LocalContext

from panels.components.status import render_status
from panels.context import AppContext
from panels.formats import percent, short_number
from panels.models import LoadedModel
from panels.tabs.about.card import read_card
from panels.tabs.about.facts import api_code, limits, load_code, model_facts, parts_of, picture, training_facts
from panels.templates import render
from storage.run_folder import RunFolder

TITLE = "About"
HERE = "http://127.0.0.1:7860"
"""The page's address, where no request tells it."""

FACTS = """
<div class="about">
<section aria-label="Sizes"><h2>What it is</h2>
  <dl>{% for name, value in model %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl></section>
<section aria-label="Parameters by part"><h2>Where its {{ total }} parameters are</h2>
  <ul class="parts">{% for name, count, percent, share in parts %}
    <li><span>{{ name }}</span> <b>{{ percent }}</b>
      <i aria-hidden="true"><i style="width:{{ "%.2f" | format(share) }}%"></i></i>
      <span class="quiet">{{ count }}</span></li>
  {% endfor %}</ul></section>
{% if training %}
<section aria-label="Training"><h2>How it was trained</h2>
  <dl>{% for name, value in training %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl></section>
{% endif %}
<section aria-label="Limits"><h2>What it cannot do</h2>
  <ul>{% for limit in limits %}<li>{{ limit }}</li>{% endfor %}</ul></section>
{% if picture %}
<section class="picture" aria-label="Loss"><h2>How the loss fell</h2>
  <img src="{{ picture }}" alt="Training and validation loss over the steps" loading="lazy"></section>
{% endif %}
</div>
"""
LOAD = """
## Load it in Python

```python
{code}
```
"""
API = """
## Use the API

The page answers programs too, in the same request queue. It offers {names}; *Use via API* at the foot of the page
describes each.

```python
{code}
```
"""
MCP = "\n`python app.py --mcp` offers the same to assistants, as tools of the Model Context Protocol.\n"
CODE_OF_THE_FOLDER = "\n`trust_remote_code=True` runs the Python files of the model's folder; read them first.\n"
CARD = "\n## Model card\n\n"
NO_CARD = "## Model card\n\nThis model has none: a bundle gets one (`python -m hub_export bundle RUN --out DIR`)."


def build(context: AppContext) -> list[Component]:
    """Lay out the tab and wire it; what it returns, `arrived` brings up to date."""
    facts = gr.HTML(render_status("busy", "Loading the model …"), elem_id="about-facts", padding=False)
    card = read_card(context.source.folder)
    with gr.Row(elem_id="about-code"):
        load = gr.Markdown("", elem_id="about-load", latex_delimiters=[])
        interface = gr.Markdown("", elem_id="about-api", latex_delimiters=[])
    shown = gr.Markdown(CARD + card if card else "", elem_id="about-card", latex_delimiters=[])
    return [facts, load, interface, shown]


def arrived(context: AppContext) -> list[Any]:
    """Updates of what `build` returned, now that the model is known."""
    loaded = context.loader.wait()
    card = read_card(loaded.source.folder)
    facts, load, interface = _facts(context, loaded), _load(context, loaded), _interface(context, loaded)
    return [facts, load, interface, CARD + card if card else NO_CARD]


def add_endpoint(context: AppContext) -> None:
    """No endpoint."""


def _facts(context: AppContext, loaded: LoadedModel) -> str:
    """Facts, parts, limits and picture as HTML; a run's file that is damaged is named, and its facts are left out."""
    run = RunFolder(context.run) if context.run else None
    trouble = ""
    try:
        training = training_facts(loaded.source, run)
    except ValueError as error:
        training, trouble = training_facts(loaded.source, None), render_status("trouble", str(error))
    folder = loaded.source.folder
    if folder is not None and not folder.is_dir():
        message = "The model's folder is missing. It writes from memory until the page ends."
        trouble = render_status("trouble", message)
    parts = parts_of(loaded.model)
    total = sum(parts.values())
    pictures = [RunFolder(place).picture for place in (folder, context.run) if place]
    facts = render(
        FACTS,
        model=model_facts(loaded),
        training=training,
        limits=limits(loaded),
        total=short_number(total),
        parts=[(name, f"{count:,}", percent(count / total), 100 * count / total) for name, count in parts.items()],
        picture=next(filter(None, map(picture, pictures)), None),
    )
    return trouble + facts


def _load(context: AppContext, loaded: LoadedModel) -> str:
    try:
        code = load_code(loaded, context.home, is_public=context.is_public)
    except ValueError as error:  # a file of the folder that vanished or broke since it was loaded
        return f"## Load it in Python\n\n{error}"
    return LOAD.format(code=code) + (CODE_OF_THE_FOLDER if "trust_remote_code" in code else "")


def _interface(context: AppContext, loaded: LoadedModel) -> str:
    names = ", ".join(f"`{name}`" for name in endpoints()) or "functions"
    text = API.format(names=names, code=api_code(loaded.source, address()))
    return text if context.is_public else text + MCP


def endpoints() -> list[str]:
    """The names of the page's endpoints, as its programs call them."""
    page = LocalContext.blocks.get(None)
    functions = page.fns.values() if page is not None else ()
    return sorted(f"/{each.api_name}" for each in functions if each.api_name and each.api_visibility == "public")


def address() -> str:
    """What a client is given to find the page: a Space's id, else the address that the visitor's browser uses."""
    if space := os.environ.get("SPACE_ID"):
        return space
    request = LocalContext.request.get(None)
    origin = str(request.headers.get("origin") or "") if request is not None and request.headers else ""
    return origin if re.fullmatch(r"https?://[\w.:\[\]-]+", origin) else HERE
