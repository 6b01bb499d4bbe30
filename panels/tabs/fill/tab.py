"""The Fill in tab: a text with blanks, and what a masked model would put there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component
from gradio.events import api

from modeling import quick_imports
from panels.components import one_request
from panels.components.events import DIRECT, PRIVATE, field_of
from panels.components.model_switch import on_model
from panels.components.one_request import run_request
from panels.components.status import BROKEN, LOADING, READY, render_status
from panels.context import AppContext
from panels.formats import visible
from panels.generate import check_text
from panels.models import ModelSource
from panels.request_queue import LatestRequest
from panels.sampling import number
from panels.templates import render

if TYPE_CHECKING:
    from modeling.infilling import Blank

TITLE = "Fill in"
TOP = 8
"""Candidates shown for each blank."""
HISTORY = 50
"""Steps that Undo can go back."""
EXCERPT = 32
"""Characters shown on each side of a blank."""

CANDIDATES = """
{% for blank in blanks %}
<section class="blank" aria-label="Blank {{ loop.index }}">
  <h2>Blank {{ loop.index }} <span>{{ blank.before }}<b>____</b>{{ blank.after }}</span></h2>
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
class FillState:
    """What the tab remembers of one visitor."""

    text: str = ""  # whose blanks these are, or that was put into the field last
    blanks: list[Blank] = field(default_factory=list)
    past: list[str] = field(default_factory=list)  # the texts that Undo goes back to, the newest last
    future: list[str] = field(default_factory=list)  # those that Redo goes to, the nearest last
    visitor: LatestRequest = field(default_factory=LatestRequest)


def build(context: AppContext) -> list[Component]:
    """Lay out the tab and wire it. Returns its status line and its examples, which `arrived` brings up to date when
    the model is there."""
    document = gr.Textbox(
        label="Your text",
        info="Put underscores where a word is missing, or select a word and press Blank. Ctrl+Enter fills in, Esc "
        "stops.",
        placeholder="The lamp burned ____ on the table.",
        lines=4,
        max_lines=12,
        elem_id="fill-text",
        html_attributes=gr.InputHTMLAttributes(spellcheck=False),
    )
    with gr.Row(elem_id="fill-actions"):
        go = gr.Button("Fill in", variant="primary", elem_id="fill-in", min_width=130)
        stop = gr.Button("Stop", variant="stop", elem_id="fill-stop", min_width=70, interactive=False)
        blank = gr.Button("Blank", elem_id="blank", min_width=80)
        undo = gr.Button("Undo", elem_id="fill-undo", min_width=80, interactive=False)
        redo = gr.Button("Redo", elem_id="fill-redo", min_width=80, interactive=False)
    status = gr.HTML(READY if context.loader.ready else LOADING, elem_id="fill-status")
    candidates = gr.HTML("", elem_id="candidates", js_on_load=CHOOSE)
    samples = gr.Dataset(
        components=["textbox"],
        label="Beginnings from the training text, with a blank",
        elem_id="blanked",
        **examples(context.source),
    )
    state = gr.State(FillState())
    outputs = [document, status, candidates, undo, redo, stop]

    def guess(state: FillState, text: str) -> Iterator[list[Any]]:
        yield from show(context, state, text)

    def choose(state: FillState, text: str, event: gr.EventData) -> Iterator[list[Any]]:
        yield from put_in(context, state, text, field_of(event, "blank"), field_of(event, "candidate"))

    def take(state: FillState, text: str, sample: list[str]) -> Iterator[list[Any]]:
        yield from replace(context, state, text, sample[0])

    for event, handle, given in (
        (go.click, guess, []),
        (candidates.select, choose, []),
        (samples.click, take, [samples]),
    ):
        running = event(
            handle,
            [state, document, *given],
            outputs,
            concurrency_limit=None,
            trigger_mode="multiple",  # a newer request ends those before it
            **PRIVATE,
        )
        running.failure(lambda: answer(BROKEN, stop=False), None, outputs, **DIRECT)
    for button, move in ((undo, go_back), (redo, go_forward)):
        button.click(move, [state, document], outputs, **DIRECT)
    stop.click(ask_to_stop, state, outputs, **DIRECT)
    blank.click(None, None, None, js=BLANK_SELECTION)
    on_model(lambda: "", None, candidates, opened=False)  # what another model has said goes
    return [status, samples]


def arrived(context: AppContext) -> list[Any]:
    """Updates of what `build` returned, now that the model is known."""
    return [READY, gr.update(**examples(context.source))]


def show(context: AppContext, state: FillState, text: str, *, is_typed: bool = True) -> Iterator[list[Any]]:
    """Guess the blanks of `text` as soon as it is one's turn: document, status, candidates, Undo, Redo and Stop, on the
    way and at last; `is_typed`: the field has that text, and may have more of it by the time of the first answer."""
    blanks: list[Blank] = []

    def guess(should_stop: Callable[[], bool]) -> str:
        with quick_imports():  # the model may be loading
            from panels.tabs.fill.filling import fill

        blanks.extend(context.loader.call(fill, text, TOP, should_stop=should_stop))
        return render_candidates(text, blanks)

    def idle() -> str:
        count = f"{len(blanks)} blank{'' if len(blanks) == 1 else 's'}"
        return render_status("idle", f"{count}. Choose a word and it goes into the text.")

    document = gr.skip() if is_typed else text
    moves = history_buttons(state)
    for status, candidates, stop in run_request(context, state.visitor, guess, busy="Guessing …", idle=idle):
        if isinstance(candidates, str):  # the last answer, of a request that nobody stopped
            state.text, state.blanks = text, blanks if candidates else []
        yield [document, status, candidates, *moves, stop]
        document, moves = gr.skip(), [gr.skip(), gr.skip()]  # they may have changed since


def replace(context: AppContext, state: FillState, text: str, other: str) -> Iterator[list[Any]]:
    """Guess the blanks of another text, in place of what stands there, to which Undo goes back."""
    if text.strip() and text != other:
        remember(state, text)
    state.text, state.blanks = other, []
    yield from show(context, state, other, is_typed=False)


def put_in(context: AppContext, state: FillState, text: str, blank: Any, candidate: Any) -> Iterator[list[Any]]:
    """Put a candidate into its blank, and guess what is still blank; only guess where there is no such candidate."""
    is_there = text == state.text and is_index(blank, state.blanks)
    if not is_there or not is_index(candidate, state.blanks[blank].candidates):
        yield from show(context, state, text)
        return
    from modeling.infilling import insert  # not before: see `modeling.quick_imports`

    chosen = state.blanks[blank]
    remember(state, text)
    filled = insert(text, chosen, chosen.candidates[candidate])
    is_last = len(state.blanks) == 1
    state.text, state.blanks = filled, []
    if not is_last:
        yield from show(context, state, filled, is_typed=False)
        return
    state.visitor.begin()
    yield answer(render_status("idle", "No blank is left."), document=filled, candidates="", moves=state, stop=False)


def is_index(value: Any, items: Sequence[Any]) -> bool:
    """Whether a number that a client sent is the place of one of the items."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(items)


def remember(state: FillState, text: str) -> None:
    """Another text is to take the place of `text`: Undo goes back to it."""
    state.past, state.future = [*state.past, text][-HISTORY:], []


def go_back(state: FillState, text: str) -> list[Any]:
    """Undo: what was typed since the last text was put into the field, else the text before that."""
    return move(state, text, state.past, state.future, "Back to the text before")


def go_forward(state: FillState, text: str) -> list[Any]:
    """Redo: the text that Undo took away; what was typed since, Undo has."""
    return move(state, text, state.future, state.past, "The text is there again")


def move(state: FillState, text: str, source: list[str], target: list[str], message: str) -> list[Any]:
    """Put the last text of `source` into the field in place of `text`, which goes to `target`; one that was typed since
    the last move or word is a step of its own when the way is back."""
    state.visitor.begin()
    if not source:
        return answer(moves=state, stop=False)
    is_undone = text != state.text and source is state.past
    other = state.text if is_undone else source.pop()
    target[:] = [*target, text][-HISTORY:]
    state.text, state.blanks = other, []
    status = render_status("idle", f"{message}: Fill in guesses again.")
    return answer(status, document=other, candidates="", moves=state, stop=False)


def ask_to_stop(state: FillState) -> list[Any]:
    """End the present request: one that waits leaves the line."""
    status, candidates, stop = one_request.ask_to_stop(state.visitor)
    return [gr.skip(), status, candidates, gr.skip(), gr.skip(), stop]


def answer(
    status: str | None = None,
    *,
    document: str | None = None,
    candidates: str | None = None,
    moves: FillState | None = None,
    stop: bool | None = None,
) -> list[Any]:
    """Document, status, candidates, and whether Undo and Redo (by the texts of `moves`) and Stop can be pressed; None
    leaves each as it is."""
    shown = [gr.skip() if value is None else value for value in (document, status, candidates)]
    buttons = [gr.skip(), gr.skip()] if moves is None else history_buttons(moves)
    return [*shown, *buttons, gr.skip() if stop is None else gr.Button(interactive=stop)]


def history_buttons(state: FillState) -> list[Any]:
    """Undo and Redo, as there is something to go to."""
    return [gr.Button(interactive=bool(state.past)), gr.Button(interactive=bool(state.future))]


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
    """A candidate as it is displayed: white space as a sign, `…ing` for what is joined to the word before.

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


def add_endpoint(context: AppContext) -> None:
    """Offer the API's `/fill`."""
    api(endpoint(context), api_name="fill", concurrency_limit=None)


def endpoint(context: AppContext) -> Callable[..., list[dict[str, Any]]]:
    """The function behind `/fill`."""

    def fill_in(text: str, top: int = TOP) -> list[dict[str, Any]]:
        """The likeliest words for each blank (____) of a text: a list of blanks, each with the characters `start` to
        `end` of the text that a word takes the place of, and `candidates` with `token_id`, `text` and `probability`.
        `top`: how many candidates to give, from 1 to 1,000."""
        with quick_imports():  # the model may be loading
            from panels.tabs.fill.filling import fill

        try:
            blanks = context.call_queued(fill, check_text(text), number("top", top, int))
            return [dataclasses.asdict(blank) for blank in blanks]
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return fill_in
