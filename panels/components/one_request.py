"""A request to the model whose answer is one piece of HTML: its turn in the queue, Stop, and the status line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from modeling import quick_imports
from panels.components.status import render_status
from panels.context import AppContext
from panels.request_queue import LatestRequest, waiting_message

CHANGED = "The page's model was changed while this was computed: ask again."


def run_request(
    context: AppContext,
    visitor: LatestRequest,
    answer: Callable[[Callable[[], bool]], str],
    *,
    busy: str,
    idle: Callable[[], str],
) -> Iterator[list[Any]]:
    """Status, result and Stop, while a request waits for its turn and when it ended.

    Args:
        answer: from "should it stop?" to the result; its ValueError goes to the status line, its StoppedError ends it.
        busy: what the status line says while it computes.
        idle: the status line when it is done, as HTML; asked for then.
    """
    should_stop = visitor.begin()
    message = busy if context.loader.ready else "The model is still loading …"
    yield [render_status("busy", message), gr.skip(), gr.Button(interactive=True)]
    with quick_imports():  # the model may be loading
        from modeling.generation import StoppedError

    status = result = ""
    try:
        context.loader.expect(should_stop)
        with context.queue.join() as ticket:
            for ahead in ticket.wait_for_turn(should_stop):
                yield [render_status("busy", waiting_message(ahead)), gr.skip(), gr.skip()]
            if not should_stop():
                version = context.version
                result = answer(should_stop)
                if context.version != version:  # what the other model has said was taken away by now
                    raise ValueError(CHANGED)
        status = idle()
    except StoppedError:
        pass
    except ValueError as error:
        status, result = render_status("trouble", str(error)), ""
    yield halted(visitor) if should_stop() else [status, result, gr.Button(interactive=False)]


def halted(visitor: LatestRequest) -> list[Any]:
    """The last answer of a request that was stopped; nothing where a newer one replaced it."""
    if not visitor.stopped:
        return [gr.skip()] * 3
    return [render_status("idle", "Stopped."), gr.skip(), gr.Button(interactive=False)]


def ask_to_stop(visitor: LatestRequest) -> list[Any]:
    """Stop the present request; one that waits leaves the queue."""
    visitor.stop()
    return halted(visitor)
