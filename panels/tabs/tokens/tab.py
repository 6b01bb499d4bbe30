"""The Tokens tab: a text as the model sees it, how the merges made its tokens, and a second tokenizer beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import api

from panels.components.events import DIRECT, PRIVATE
from panels.components.model_switch import on_model
from panels.components.status import LOADING, READY, render_status
from panels.context import AppContext
from panels.generate import check_text
from panels.request_queue import LatestRequest
from panels.tabs.tokens import token_lists
from panels.templates import render

TITLE = "Tokens"
FIRST_TEXT = "The old lighthouse stood alone.\n\tIn 1987 its naïve keeper wrote: “Nothing's lost!” 😀 北京"
SAMPLES = {
    "Words": "Nobody understands the misunderstanding of understanding: standing, stand, understandable, standings.",
    "Numbers": "7 42 365 1,024 65536 3.14159 299792458 0.1+0.2=0.30000000000000004",
    "Code": "def area(radius: float) -> float:\n    return 3.14159 * radius ** 2  # square metres\n",
    "Alphabets": "Good morning! Доброе утро! Καλημέρα! בוקר טוב! صباح الخير! おはよう! 早上好! 🌅👩‍🚀🏳️‍🌈",
    "Spaces": "one two  three   four\n\n\tfive \u00a0 six\r\nseven ",
    "Special tokens": "<|endoftext|> </s> [UNK] <img src=x onerror=alert(1)> </script>",
}
DATA = """<div data-tokens="{{ data }}"></div>"""
VIEW = """
<div class="tokenizers"></div>
<section class="replay" aria-label="Replay of the merges">
  <h2>How the merges made these tokens</h2>
  <p class="replay-note quiet"></p>
  <div class="replay-all">
    <div class="replay-controls">
      <button type="button" data-replay="play" aria-pressed="false">Play</button>
      <button type="button" data-replay="back" aria-label="One merge back">−</button>
      <input type="range" min="0" max="0" value="0" step="1" aria-label="Merges made">
      <button type="button" data-replay="on" aria-label="One merge on">+</button>
    </div>
    <p class="replay-step" role="status" aria-live="off"></p>
    <div class="replay-words"></div>
  </div>
</section>
"""


@dataclass(kw_only=True, slots=True)
class TabState:
    """What the tab remembers of one visitor."""

    request: LatestRequest = field(default_factory=LatestRequest)
    asked: tuple[str, str | None] | None = None  # the text and the second tokenizer that were asked for last


def build(context: AppContext) -> list[Component]:
    """Lay out the tab and wire it. Returns the list of second tokenizers, which `arrived` brings up to date."""
    state = gr.State(TabState())
    with gr.Row(elem_id="tokens-input"):
        text = gr.Textbox(
            FIRST_TEXT,
            label="Your text",
            info="Special tokens such as <|endoftext|> count as plain text here.",
            placeholder="Type or paste something …",
            lines=3,
            max_lines=8,
            elem_id="tokens-text",
            scale=3,
            min_width=300,
            html_attributes=gr.InputHTMLAttributes(spellcheck=False),
        )
        typed = "" if context.is_public else " Or type a folder or a Hub id."
        other = gr.Dropdown(
            token_lists.choices(context.home),
            value=token_lists.NONE,
            label="Compare with",
            info=f"A second tokenizer, beside the model's.{typed}",
            allow_custom_value=not context.is_public,
            elem_id="tokens-other",
            scale=1,
            min_width=240,
        )
    samples = gr.Dataset(
        components=["textbox"],
        samples=[[sample] for sample in SAMPLES.values()],
        sample_labels=[*SAMPLES],
        label="Texts to try",
        elem_id="tokens-samples",
    )
    status = gr.HTML(READY if context.loader.ready else LOADING, elem_id="tokens-status")
    data = gr.HTML("", visible="hidden", elem_id="tokens-data")
    gr.HTML(VIEW, elem_id="tokens-view")

    update, given, shown = partial(show_latest, context), [state, text, other], [status, data]
    text.change(update, given, shown, trigger_mode="always_last", **DIRECT)
    chosen = other.change(partial(fetch, context), other, status, concurrency_limit=2, **PRIVATE)
    chosen.then(update, given, shown, **DIRECT)  # the text as it is by then
    samples.click(lambda sample: sample[0], samples, text, **DIRECT)
    on_model(partial(show_with_model, context), given, shown)
    return [other]


def arrived(context: AppContext) -> list[Any]:
    """The runs that are there now."""
    return [gr.update(choices=token_lists.choices(context.home))]


def show_with_model(context: AppContext, state: TabState, text: str, other: str | None) -> list[Any]:
    """As `show_latest`, when the model is loaded: what the visitor has asked for until then, else what is given."""
    context.loader.done.wait()
    return show_latest(context, state, *(state.asked or (text, other)))


def show_latest(context: AppContext, state: TabState, text: str, other: str | None) -> list[Any]:
    """As `show`, or nothing where the visitor has asked for another text meanwhile: its answer may be there already."""
    state.asked, is_old = (text, other), state.request.begin()
    found = show(context, text, other)
    return [gr.skip(), gr.skip()] if is_old() else found


def show(context: AppContext, text: str, other: str | None) -> list[Any]:
    """A text in the tokens of the model and of another tokenizer: status line and data for the page."""
    try:
        tokenizer = tokenizer_of(context)
        text = check_text(text or "", limit=token_lists.LONGEST)
    except ValueError as error:
        return [render_status("trouble", str(error)), gr.skip()]
    from tokenization.spans import pieces  # not before: see `modeling.quick_imports`

    columns = [token_lists.in_tokens(context.source.name, text, pieces(tokenizer, text))]
    status = READY
    try:
        if beside := token_lists.in_second_tokens(other, text, context.home, anywhere=not context.is_public):
            columns.append(beside)
    except ValueError as error:
        status = render_status("trouble", str(error))
    return [status, render_data({"columns": columns, "replay": token_lists.merges_of(tokenizer, text)})]


def fetch(context: AppContext, other: str | None) -> Any:
    """Load a second tokenizer, which may take a while, before `show` needs it: status line."""
    try:
        context.loader.expect()  # what it imports must not come while the loader imports it too
        token_lists.in_second_tokens(other, "", context.home, anywhere=not context.is_public)
    except ValueError as error:
        return render_status("trouble", str(error))
    return gr.skip()


def tokenizer_of(context: AppContext) -> Any:
    """The tokenizer of the model; waits for one that is loading. Raises ValueError when it does not come."""
    context.loader.expect()
    return context.loader.wait().tokenizer


def render_data(data: dict[str, Any]) -> str:
    """Data for the tab's script, as JSON in an attribute."""
    return render(DATA, data=json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def add_endpoint(context: AppContext) -> None:
    """Offer the API's `/tokenize`."""

    def tokenize(text: str) -> dict[str, Any]:
        """Cut a text into the tokens of the model. What looks like a special token is text. Returns `tokens`, a list
        with, for each, its `token_id`, its `text` for display (a space is ␣, a line break ↵, a tab ⇥, bytes that are
        no complete character ⟨e2 80⟩), the characters `start` to `end` of the text where it lies (end is not included;
        tokens inside one character share it) and its number of `bytes`; `count`, how many tokens; `bytes` of the text
        in UTF-8; and `bytes_per_token`, null for an empty text. At most 100,000 characters."""
        try:
            tokenizer = tokenizer_of(context)
            text = check_text(text, limit=token_lists.LONGEST)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        from tokenization.spans import pieces  # not before: see `modeling.quick_imports`

        return token_lists.as_json(text, pieces(tokenizer, text))

    api(tokenize, api_name="tokenize", concurrency_limit=4)
