"""One request of a visitor to continue a text: what is asked for, and the lines of JSON that the page gets of it.

The page owns the text and its history. The server keeps nothing of them: it continues what it is sent, so that a
restart loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from panels.components.events import field_of
from panels.components.status import render_status
from panels.components.streams import LOADING, json_line
from panels.context import AppContext
from panels.generate import TIME_LIMIT, Draft, check_text, generate_queued
from panels.request_queue import waiting_message
from panels.sampling import DEFAULTS, number, stop_text
from panels.tabs.write.token_rows import ALTERNATIVES, TokenRows

ENDINGS = {
    None: "Writing …",
    "length": "Done. Continue as often as you like.",
    "stop_token": "The model ended the text here (end-of-text token).",
    "stop_text": "Done: the stop text came.",
    "stopped": "Stopped.",
    "deadline": f"Time is up: one request may take {TIME_LIMIT:.0f} seconds. Press Continue.",
}
NOTHING = "Nothing was written."
SAME = "The same text again. Another seed, or a temperature above 0, writes another."


@dataclass(kw_only=True, slots=True)
class Request:
    """What a visitor asked for, and whether Stop was pressed since."""

    number: int  # the page's, to know the lines that belong to it
    text: str  # to continue
    rejected: str | None  # the text that this one is to replace (Retry)
    stop: bool = False

    @classmethod
    def of(cls, event: Any) -> Request:
        """The request that the page sent.

        Raises ValueError for one that no page sends."""
        rejected = field_of(event, "rejected")
        return cls(
            number=number("number", field_of(event, "number"), int),
            text=check_text(field_of(event, "text")),
            rejected=None if rejected is None else check_text(rejected, "rejected"),
        )


def answer(context: AppContext, request: Request, seed: Any, stop: Any, *values: Any) -> Iterator[tuple[str, str]]:
    """Continue the text of `request` with `values` in the order of `DEFAULTS`: the lines so far and the status line, as
    they grow.

    The lines only get longer, so that Gradio sends the new part alone. The first is {"number"}; then one for each
    draft: {"text"} (what is new), `TokenRows.add` and {"rest"}, the first of them with {"vocabulary", "model", "seed"};
    the last is {"end"}, a reason of `ENDINGS`, "nothing" or "trouble"."""
    loader = context.loader  # the page's model may be another one before the text ends
    lines = json_line({"number": request.number})
    yield lines, render_status("busy", ENDINGS[None] if loader.ready else LOADING)
    rows: TokenRows | None = None
    length, ending = len(request.text), None
    status = ""
    try:
        for draft in generate_queued(
            context,
            request.text,
            seed=seed,
            stop=stop_text(stop),
            should_stop=lambda: request.stop,
            alternatives=ALTERNATIVES,
            loader=loader,
            **dict(zip(DEFAULTS, values, strict=True)),
        ):
            status = draft_status(draft, is_same=draft.text == request.rejected)
            if draft.ahead:
                yield lines, status
                continue
            content: dict[str, Any] = {"text": draft.text[length:], "rest": draft.rest}
            if rows is None:
                loaded = loader.wait()
                rows = TokenRows(loaded, request.text)
                vocabulary = loaded.model.config.get_text_config(decoder=True).vocab_size
                content |= {"vocabulary": vocabulary, "model": loaded.source.name, "seed": draft.seed}
            length, ending = len(draft.text), draft.ending
            lines += json_line(content | rows.add(draft.tokens))
            if ending is None:
                yield lines, status
    except ValueError as error:
        ending, status = "trouble", render_status("trouble", str(error))
    if ending is None:  # it was stopped in the queue
        ending, status = "nothing", render_status("idle", NOTHING)
    yield lines + json_line({"end": ending}), status


def draft_status(draft: Draft, *, is_same: bool = False) -> str:
    """The status line of a text that waits, is being written, or is done; `is_same`: it is the one that was there."""
    if draft.ahead:
        return render_status("busy", waiting_message(draft.ahead))
    message = SAME if draft.ending and is_same else ENDINGS[draft.ending]
    return render_status("idle" if draft.ending else "busy", message, draft)
