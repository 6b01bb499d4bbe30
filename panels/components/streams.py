"""The way of a request from a script of the page to the server and of its answer back: a hidden HTML component, whose
event carries the request and whose value are the lines of the answer. `requests.js` is the browser's side of it."""

from __future__ import annotations

import json
from typing import Any

from panels.components.events import PRIVATE

PART = "window.scratchParts = {{...window.scratchParts, {name}: {{element, trigger}}}};"
"""What makes the component `name` known to the scripts."""
LOADING = "The model is still loading …"


def stream_script(name: str, owner: str) -> str:
    """`js_on_load` of the component `name`, whose lines go to `window.scratch.OWNER.receive`."""
    return f"{PART.format(name=name)}watch('value', () => window.scratch?.{owner}?.receive(props.value));"


def tell_when_over(running: Any, owner: str) -> None:
    """Let `window.scratch.OWNER` know that its request is over: `running`, Gradio's event, has ended or failed."""
    for over in (running.then, running.failure):  # Gradio runs `then` only after what did not fail (6.31)
        over(None, None, None, js=f"() => window.scratch.{owner}.over()", **PRIVATE)


def json_line(content: dict[str, Any]) -> str:
    """A line of an answer."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"
