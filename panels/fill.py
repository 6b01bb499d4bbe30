"""The Fill in tab: a text with blanks, and what a masked model would put there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component
from gradio.events import api

from panels.desk import HISTORY
from panels.lab import Lab
from panels.markup import render
from panels.models import ModelLoader, ModelSource
from panels.terminal import visible
from panels.write import LOADING, READY, render_status

if TYPE_CHECKING:
    from modeling.infilling import Blank

TITLE = "Fill in"
TOP = 8
"""Candidates shown for each blank."""
EXCERPT = 32
"""Characters shown on each side of a blank."""

CANDIDATES = """
{% for blank in blanks %}
<section class="blank" aria-label="Blank {{ loop.index }}">
  <h3>Blank {{ loop.index }} <span>{{ blank.before }}<b>____</b>{{ blank.after }}</span></h3>
  <ol>
  {% for candidate in blank.candidates %}
    <li><button type="button" data-blank="{{ blank.index }}" data-candidate="{{ loop.index0 }}"
        title="Put it into the text"><i style="width:{{ candidate.share }}%" aria-hidden="true"></i>
      <span class="word">{{ candidate.shown }}</span><span class="share">{{ candidate.percent }}</span></button></li>
  {% endfor %}
  </ol>
</section>
{% endfor %}
"""
CHOOSE = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-blank]');
  if (button) trigger('select', {blank: +button.dataset.blank, candidate: +button.dataset.candidate});
});
"""
BLANK_SELECTION = """
() => {
  const area = document.querySelector('#fill-text textarea');
  let [start, end] = [area.selectionStart, area.selectionEnd];
  while (end > start && /\\s/.test(area.value[end - 1])) end--;
  while (start < end && /\\s/.test(area.value[start])) start++;
  area.setRangeText('____', start, end, 'end');
  area.dispatchEvent(new Event('input', {bubbles: true}));
  area.focus();
}
"""


@dataclass(kw_only=True, slots=True)
class Sheet:
    """What the tab remembers of one visitor."""

    text: str = ""  # whose blanks these are
    blanks: list[Blank] = field(default_factory=list)
    past: list[str] = field(default_factory=list)  # the texts that Undo goes back to, the newest last


def build(lab: Lab) -> list[Component]:
    """Lay out the tab and wire it. Returns its status line and its examples, which `arrived` brings up to date when
    the model is there."""
    loader = lab.loader
    document = gr.Textbox(
        label="Your text",
        info="Put underscores where a word is missing, or select a word and press Blank. Ctrl+Enter fills in.",
        placeholder="The lamp burned ____ on the table.",
        lines=4,
        max_lines=12,
        elem_id="fill-text",
        html_attributes=gr.InputHTMLAttributes(spellcheck=False),
    )
    with gr.Row(elem_id="fill-actions"):
        fill = gr.Button("Fill in", variant="primary", elem_id="fill-in", min_width=130)
        blank = gr.Button("Blank", elem_id="blank", min_width=80)
        undo = gr.Button("Undo", elem_id="fill-undo", min_width=80, interactive=False)
    status = gr.HTML(READY if loader.ready else LOADING, elem_id="fill-status")
    candidates = gr.HTML("", elem_id="candidates", js_on_load=CHOOSE)
    samples = gr.Dataset(
        components=["textbox"],
        label="Beginnings from the training text, with a blank",
        elem_id="blanked",
        **examples(loader.source),
    )
    sheet = gr.State(Sheet())
    outputs = [document, status, candidates, undo]
    on_model: dict[str, Any] = {
        "concurrency_id": "model", "concurrency_limit": 1, "show_progress": "hidden", "api_visibility": "private",
    }  # fmt: skip

    def guess(sheet: Sheet, text: str) -> list[Any]:
        return show(sheet, text, loader)

    def choose(sheet: Sheet, text: str, event: gr.EventData) -> list[Any]:
        return put_in(sheet, text, event.blank, event.candidate, loader)

    fill.click(guess, [sheet, document], outputs, **on_model)
    candidates.select(choose, [sheet, document], outputs, **on_model)
    undo.click(lambda sheet: go_back(sheet), sheet, outputs, queue=False, api_visibility="private")
    blank.click(None, None, None, js=BLANK_SELECTION)
    samples.click(lambda sheet, sample: show(sheet, sample[0], loader), [sheet, samples], outputs, **on_model)
    return [status, samples]


def arrived(lab: Lab) -> list[Any]:
    """Updates of what `build` returned, now that the model is known."""
    return [READY, gr.update(**examples(lab.source))]


def show(sheet: Sheet, text: str, loader: ModelLoader) -> list[Any]:
    """Guess the blanks of `text`: document, status, candidates and the Undo button."""
    try:
        sheet.blanks = guesses(loader, text, TOP)
        sheet.text = text
        count = len(sheet.blanks)
        message = f"{count} blank{'' if count == 1 else 's'}. Choose a word and it goes into the text."
        status = render_status("idle", message)
    except ValueError as error:
        sheet.blanks = []
        status = render_status("trouble", str(error))
    return [text, status, render_candidates(text, sheet.blanks), gr.Button(interactive=bool(sheet.past))]


def put_in(sheet: Sheet, text: str, blank: int, candidate: int, loader: ModelLoader) -> list[Any]:
    """Put a candidate into its blank, and guess what is still blank."""
    from modeling.infilling import insert

    if text != sheet.text or blank >= len(sheet.blanks):
        return show(sheet, text, loader)
    chosen = sheet.blanks[blank]
    sheet.past = [*sheet.past, text][-HISTORY:]
    filled = insert(text, chosen, chosen.candidates[candidate])
    if len(sheet.blanks) > 1:
        return show(sheet, filled, loader)
    sheet.text, sheet.blanks = filled, []
    return [filled, render_status("idle", "No blank is left."), "", gr.Button(interactive=True)]


def go_back(sheet: Sheet) -> list[Any]:
    """Undo: the text before the last word was put in."""
    if not sheet.past:
        return [gr.skip(), gr.skip(), gr.skip(), gr.Button(interactive=False)]
    text = sheet.past.pop()
    sheet.blanks = []
    message = render_status("idle", "Back to the text before: Fill in guesses again.")
    return [text, message, "", gr.Button(interactive=bool(sheet.past))]


def guesses(loader: ModelLoader, text: str, top: int) -> list[Blank]:
    """The blanks of a text with their likeliest words.

    Raises:
        ValueError: for a text without a blank or with too many, a model that is none for blanks, or that does not come.
    """
    from panels.filling import fill

    return loader.call(fill, text, top)


def render_candidates(text: str, blanks: list[Blank]) -> str:
    """The candidates of each blank as buttons with bars, as long as their share of the likeliest one's probability."""
    return render(
        CANDIDATES,
        blanks=[
            {
                "index": index,
                **excerpt(text, blank),
                "candidates": [
                    {
                        "shown": shown(candidate.text, joins=text[blank.start : blank.start + 1] == " "),
                        "share": round(100 * candidate.probability / blank.candidates[0].probability, 1),
                        "percent": f"{candidate.probability:.1%}",
                    }
                    for candidate in blank.candidates
                ],
            }
            for index, blank in enumerate(blanks)
        ],
    )


def excerpt(text: str, blank: Blank) -> dict[str, str]:
    """What stands around a blank, cut at words; a space before the blank, which is part of it, is kept."""
    before, after = text[: blank.start], text[blank.end :]
    if text[blank.start : blank.start + 1] == " ":
        before += " "
    if len(before) > EXCERPT:
        before = "… " + before[-EXCERPT:].partition(" ")[2]
    if len(after) > EXCERPT:
        after = after[:EXCERPT].rpartition(" ")[0] + " …"
    return {"before": before, "after": after}


def shown(text: str, *, joins: bool) -> str:
    """A candidate for the eye: a word as it is, white space as a sign, `…ing` for what is joined to the word before.

    `joins` says that the blank stands after a space, which a candidate that brings none takes away."""
    word = text.removeprefix(" ")
    if not word.strip():
        return visible(text).replace(" ", "\u2423").replace("\n", "\u21b5").replace("\t", "\u21e5") or "(nothing)"
    word = visible(word).replace("\n", "\u21b5")
    return f"…{word}" if joins and word == text else word


def examples(source: ModelSource) -> dict[str, Any]:
    """What the chips show: the model's prompts, each with its third word blank."""
    texts = [" ".join([*words[:2], "____", *words[3:]]) for words in map(str.split, source.prompts) if len(words) > 3]
    return {"samples": [[text] for text in dict.fromkeys(texts)], "visible": bool(texts)}


def add_endpoint(lab: Lab) -> None:
    """Offer the API's `/fill`."""

    def fill(text: str, top: int = TOP) -> list[dict[str, Any]]:
        """The likeliest words for each blank (____) of a text: a list of blanks, each with the characters `start` to
        `end` of the text that a word takes the place of, and `candidates` with `token_id`, `text` and `probability`."""
        try:
            if not isinstance(text, str):
                raise ValueError(f"text: expected text, got {type(text).__name__}.")
            return [dataclasses.asdict(blank) for blank in guesses(lab.loader, text, top)]
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    api(fill, api_name="fill", concurrency_id="model", concurrency_limit=1)
