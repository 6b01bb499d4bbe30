"""One request of a visitor for an answer: the lines of JSON that the page gets of it.

The page owns the chat, as Write's page owns the text: the server keeps nothing of it, so that a restart loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from panels.components.status import render_status
from panels.components.streams import LOADING, json_line
from panels.context import AppContext
from panels.request_queue import LatestRequest, waiting_message
from panels.sampling import DEFAULTS
from panels.tabs.chat.conversation import ENDINGS, answer, check_messages, said_of

NOT_BEGUN = "Stopped before the answer began."
NOTHING = "The model said nothing: it ended its answer at once."


def answer_lines(
    context: AppContext, visitor: LatestRequest, number: int, messages: Any, system: Any, seed: Any, *values: Any
) -> Iterator[tuple[str, str]]:
    """Answer `messages` with `values` in the order of `DEFAULTS`: the lines so far and the status line, as they grow.

    The first line is {"number"}, the page's, which knows the lines of its request by it; then one for each draft:
    {"text"} (what is new); the last is {"end"}, a reason of `ENDINGS`, "nothing" or "trouble". A message of the system
    stands before the others where `system` is not blank. A request of the same visitor that is still running ends."""
    should_stop = visitor.begin()
    lines = json_line({"number": number})
    yield lines, render_status("busy", ENDINGS[None] if context.loader.ready else LOADING)
    written, ending, status = "", None, render_status("idle", NOT_BEGUN)
    try:
        first = [{"role": "system", "content": system}] if system and system.strip() else []
        asked = [*first, *check_messages(messages)]
        for draft in answer(
            context, asked, seed=seed, should_stop=should_stop, **dict(zip(DEFAULTS, values, strict=True))
        ):
            if draft.ahead:
                yield lines, render_status("busy", waiting_message(draft.ahead))
                continue
            text, ending = draft.text.strip(), draft.ending
            lines += json_line({"text": text[len(written) :]})
            written = text
            status = render_status("idle" if ending else "busy", said_of(draft), draft)
            if ending is None:
                yield lines, status
    except ValueError as error:
        ending, status = "trouble", render_status("trouble", str(error))
    if not written and ending != "trouble":
        status = render_status("idle", NOT_BEGUN if should_stop() else NOTHING)
        ending = "nothing"
    yield lines + json_line({"end": ending}), status
