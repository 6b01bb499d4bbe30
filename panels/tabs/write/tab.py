"""The Write tab: one document that the model continues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import api

from panels.components.status import LOADING, READY, render_status
from panels.context import AppContext
from panels.generate import TIME_LIMIT, Draft, check_text, generate_queued
from panels.models import ModelSource
from panels.request_queue import waiting_message
from panels.sampling import DEFAULTS, number, stop_text
from panels.tabs.write import controls
from panels.tabs.write.editor import EditorState
from panels.tabs.write.memorization import render_note
from panels.tabs.write.next_token import with_token
from panels.tabs.write.view import ALTERNATIVES, render_head, render_token_view, render_tokens, take, token_data

TITLE = "Write"

ENDINGS = {
    None: "Writing …",
    "length": "Done. Continue as often as you like.",
    "stop_token": "The end, says the model.",
    "stop_text": "Done: the stop text came.",
    "stopped": "Stopped.",
    "deadline": f"Time is up: one request may take {TIME_LIMIT:.0f} seconds. Press Continue.",
}
SAME = "The same text again. Another seed, or a temperature above 0, writes another."
BRANCH = "element.addEventListener('branch', (event) => trigger('select', event.detail));"
DATA = """
const tell = () => window.scratch?.tokens?.(props.value);
watch('value', tell);
tell();
"""


def build(context: AppContext) -> list[Component]:
    """Lay out the tab and wire it. Returns its status line and its beginnings, which `arrived` brings up to date when
    the model is there."""
    with gr.Row(elem_id="editor"):
        with gr.Column(scale=3, min_width=300):
            document = gr.Textbox(
                label="Your text",
                info="The model continues from where the text ends. Ctrl+Enter writes, Esc stops.",
                placeholder="Write a beginning, pick one below, or leave the page empty and let the model begin …",
                lines=12,
                max_lines=12,
                elem_id="document",
                autofocus=True,
                autoscroll=False,
                html_attributes=gr.InputHTMLAttributes(spellcheck=False),
            )
            with gr.Row(elem_id="actions"):
                generate = gr.Button("Generate", variant="primary", elem_id="generate", min_width=130)
                stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=70, interactive=False)
                retry = gr.Button("Retry", elem_id="retry", min_width=70, interactive=False)
                undo = gr.Button("Undo", elem_id="undo", min_width=70, interactive=False)
                clear = gr.Button("Clear", elem_id="clear", min_width=70)
            status = gr.HTML(READY if context.loader.ready else LOADING, elem_id="status")
            token_view = gr.HTML("", elem_id="token-view", js_on_load=BRANCH)
            data = gr.HTML("", elem_id="token-data", html_template="", js_on_load=DATA, visible="hidden")
            note = gr.HTML("", elem_id="memorization")
            chips = gr.Dataset(
                components=["textbox"],
                label="Beginnings from the training text",
                samples_per_page=12,
                elem_id="beginnings",
                **beginnings(context.source),
            )
        with gr.Column(scale=1, min_width=310, elem_id="controls"):
            sampling = controls.build(context, document)

    editor = gr.State(EditorState())
    everything = [document, status, token_view, data, note, generate, stop, retry, undo, clear]
    private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    quiet: dict[str, Any] = {"queue": False, **private}

    def remark(event: Callable[..., Any]) -> None:
        event(
            lambda editor: render_note(context, editor.document),
            editor, note, concurrency_id="memorization", concurrency_limit=1, **private,
        )  # fmt: skip

    begun = (
        generate.click(partial(begin, context), [editor, document], everything, **quiet),
        retry.click(partial(retry_generation, context), [editor, document], everything, **quiet),
        token_view.select(event_handler(branch, context), [editor, document], everything, **quiet),
    )
    for each in begun:
        running = each.then(
            partial(write_at, context),
            [editor, sampling.seed, sampling.stop, *sampling.sliders],
            [document, status, token_view],
            concurrency_limit=None,
            **private,
        )
        remark(running.then(partial(settle, context), editor, everything, **quiet).then)
        running.failure(partial(settle, context), editor, everything, **quiet)
    stop.click(partial(ask_to_stop, context), editor, everything, **quiet)
    remark(undo.click(partial(undo_last, context), editor, everything, **quiet).then)
    clear.click(partial(replace_text, context), [editor, document], everything, **quiet)
    sampling.bars.select(event_handler(insert_token, context), [editor, document], everything, **quiet)
    chips.click(
        lambda editor, text, sample: replace_text(context, editor, text, sample[0]),
        [editor, document, chips],
        everything,
        **quiet,
    )
    return [status, chips, sampling.numbers]


def arrived(context: AppContext) -> list[Any]:
    """Updates of what `build` returned, now that the model is known."""
    return [READY, gr.update(**beginnings(context.source)), controls.render_numbers(context)]


def event_handler(act: Callable[..., list[Any]], context: AppContext) -> Callable[..., list[Any]]:
    """A listener that gives `act` the context, the visitor's editor state, the text, and the event's data."""

    def handle(editor: EditorState, text: str, event: gr.EventData) -> list[Any]:
        return act(context, editor, text, event)

    return handle


def begin(context: AppContext, editor: EditorState, text: str) -> list[Any]:
    """Queue a request to continue `text`."""
    return show_busy(context, editor) if editor.begin(text) else unchanged(editor)


def retry_generation(context: AppContext, editor: EditorState, text: str) -> list[Any]:
    """Queue a request to generate the last continuation again."""
    return show_busy(context, editor) if editor.retry(text) else unchanged(editor)


def branch(context: AppContext, editor: EditorState, text: str, event: Any) -> list[Any]:
    """Queue a request to continue from an alternative that was chosen in the token view."""
    try:
        written, index = editor.document, number("token", event.token, int)
        token = take(
            context.loader.wait(), written.head, written.tokens, index, number("alternative", event.choice, int)
        )
        if editor.stage == "idle" and not editor.branch(text, index, token):
            raise ValueError("The text has changed in front of this token. Nothing was written.")
    except ValueError as error:
        return unchanged(editor, render_status("trouble", str(error)))
    return show_busy(context, editor) if editor.stage == "waiting" else unchanged(editor)


def write_at(context: AppContext, editor: EditorState, seed: Any, stop: Any, *values: Any) -> Iterator[list[Any]]:
    """Generate for the waiting request with `values` in the order of `DEFAULTS`: document, status and token view, as
    the text grows."""
    if editor.stage != "waiting":
        return
    editor.stage = "writing"
    token_view = render_token_view(editor.document.head, editor.document.tokens)
    try:
        for draft in generate_queued(
            context,
            editor.document.text,
            seed=seed,
            stop=stop_text(stop),
            should_stop=lambda: editor.stop,
            alternatives=ALTERNATIVES,
            **dict(zip(DEFAULTS, values, strict=True)),
        ):
            editor.show(draft)
            if draft.tokens:
                token_view = (token_view or render_head(editor.document.head)) + render_tokens(draft.tokens)
            yield [draft.text, draft_status(draft, is_same=draft.text == editor.rejected), token_view]
    except ValueError as error:
        editor.trouble = str(error)
        yield [gr.skip(), render_status("trouble", editor.trouble), gr.skip()]
    finally:
        editor.stage = "over"


def ask_to_stop(context: AppContext, editor: EditorState) -> list[Any]:
    """End the present writing.

    The generation looks before each token and then yields its last draft, so nothing comes late; one that waits leaves
    the queue. A request that ended unseen, on a broken connection, is settled."""
    editor.stop = True
    return settle(context, editor) if editor.stage == "over" else unchanged(editor)


def settle(context: AppContext, editor: EditorState) -> list[Any]:
    """The request is over, in whatever way; one that did not begin or is not over leaves all as it is."""
    if editor.stage in ("idle", "writing"):
        return unchanged(editor)
    if editor.settle():
        return show_document(context, editor, gr.skip())
    trouble = editor.trouble
    return show_document(
        context, editor, render_status("trouble" if trouble else "idle", trouble or "Nothing was written.")
    )


def undo_last(context: AppContext, editor: EditorState) -> list[Any]:
    """Undo."""
    return (
        show_document(context, editor, render_status("idle", "Back to the text before."))
        if editor.back()
        else unchanged(editor)
    )


def replace_text(context: AppContext, editor: EditorState, text: str, beginning: str = "") -> list[Any]:
    """Put `beginning` in the place of `text`."""
    message = "A beginning: Generate continues from here." if beginning else "A new page."
    return (
        show_document(context, editor, render_status("idle", message))
        if editor.turn(text, beginning)
        else unchanged(editor)
    )


def insert_token(context: AppContext, editor: EditorState, text: str, event: Any) -> list[Any]:
    """Append a token that the user chose to `text`."""
    if editor.stage != "idle":
        return unchanged(editor)
    try:
        longer = with_token(context.loader.wait(), text, number("token", event.token, int))
    except ValueError as error:
        return unchanged(editor, render_status("trouble", str(error)))
    editor.put(text, longer)
    return show_document(context, editor, render_status("idle", "One token of your choice."))


def show_document(context: AppContext, editor: EditorState, status: Any) -> list[Any]:
    """The editor as it is now: document, status, token view and its data, note, buttons."""
    written = editor.document
    token_view = render_token_view(written.head, written.tokens)
    data = token_data(context.loader.wait(), written.head, written.tokens) if token_view else ""
    return [written.text, status, token_view, data, "", *buttons_of(editor)]


def show_busy(context: AppContext, editor: EditorState) -> list[Any]:
    """The same while a request is on its way: no alternatives to choose."""
    written = editor.document
    status = render_status("busy", ENDINGS[None] if context.loader.ready else "The model is still loading …")
    return [written.text, status, render_token_view(written.head, written.tokens), "", "", *buttons_of(editor)]


def unchanged(editor: EditorState, status: Any = None) -> list[Any]:
    """The same where nothing changes but perhaps the status, and the buttons."""
    return [gr.skip(), status or gr.skip(), gr.skip(), gr.skip(), gr.skip(), *buttons_of(editor)]


def buttons_of(editor: EditorState) -> list[Any]:
    """Generate (Continue, where the text is already the model's), Stop, Retry, Undo and Clear."""
    free, is_written = editor.stage == "idle", editor.document.origin is not None
    return [
        gr.Button("Continue" if is_written and free else "Generate", interactive=free),
        gr.Button(interactive=not free),
        gr.Button(interactive=free and is_written),
        gr.Button(interactive=free and bool(editor.past)),
        gr.Button(interactive=free),
    ]


def beginnings(source: ModelSource) -> dict[str, Any]:
    """What the chips show: the model's prompts, and nothing where it has none."""
    return {"samples": [[prompt] for prompt in source.prompts], "visible": bool(source.prompts)}


def add_endpoint(context: AppContext) -> None:
    """Offer the API's `/generate`."""

    def generate(
        prompt: str,
        max_new_tokens: int = int(DEFAULTS["max_new_tokens"]),
        temperature: float = DEFAULTS["temperature"],
        top_k: int = int(DEFAULTS["top_k"]),
        top_p: float = DEFAULTS["top_p"],
        min_p: float = DEFAULTS["min_p"],
        repetition_penalty: float = DEFAULTS["repetition_penalty"],
        seed: int | None = None,
        typical_p: float = DEFAULTS["typical_p"],
        stop: str = "",
    ) -> Iterator[str]:
        """Continue a text. Yields the text so far, prompt included, until max_new_tokens tokens are written or the
        model ends the text, or the text in `stop` comes, which is left out. An empty prompt lets the model begin. The
        same seed gives the same text; without one, each call draws its own. temperature 0 always takes the likeliest
        token; top_k 0, top_p 1, min_p 0, typical_p 1 and repetition_penalty 1 are neutral."""
        try:
            check_text(prompt, "prompt")
            check_text("" if stop is None else stop, "stop")
            for draft in generate_queued(
                context,
                prompt,
                seed=seed,
                stop=stop or "",
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                repetition_penalty=repetition_penalty,
                typical_p=typical_p,
            ):
                yield draft.text
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    api(generate, api_name="generate", concurrency_limit=None)


def draft_status(draft: Draft, *, is_same: bool = False) -> str:
    """The status line of a text that waits, is being written, or is done; `is_same`: it is the one that was there."""
    if draft.ahead:
        return render_status("busy", waiting_message(draft.ahead))
    message = SAME if draft.ending and is_same else ENDINGS[draft.ending]
    return render_status("idle" if draft.ending else "busy", message, draft)
