"""Calls of the page's functions over HTTP: whether there is such a function, and whether Gradio can read the call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from panels.guard.places import API
from panels.guard.refusal import RefusedError, shown

SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What tells visitors apart: Gradio's page draws 11 letters, its Python client a UUID."""
FIELDS = ("data", "fn_index", "session_hash", "trigger_id", "event_data")
"""What a page sends with a call; what else Gradio would read is for other servers of its own."""
DIRECT, QUEUED, NAMED = (f"{API}/run/", f"{API}/api/"), f"{API}/queue/join", f"{API}/call/"
BY_NAME = f"{NAMED}v2/"


def is_call(path: str) -> bool:
    """Whether a POST to this path calls a function."""
    return path.startswith((*DIRECT, NAMED)) or path.rstrip("/") == QUEUED


def checked_call(path: str, body: Any, page: Any) -> Any:
    """The body of a call with what Gradio may read of it.

    Args:
        page: the `gr.Blocks` whose functions are called.

    Raises RefusedError: 404 for a function that is not there, 400 for a body that is no call."""
    if not isinstance(body, dict):
        raise RefusedError(400, f"expected a JSON object, got {shown(body)}.")
    if path.startswith(BY_NAME):
        return _arguments_by_name(path.removeprefix(BY_NAME).strip("/"), body, page)
    call = {name: body[name] for name in FIELDS if body.get(name) is not None}
    if not isinstance(call.get("data"), list):
        raise RefusedError(400, f"data: expected a list of arguments, got {shown(call.get('data'))}.")
    check_session(call.get("session_hash"))
    for name in ("fn_index", "trigger_id"):
        value = call.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise RefusedError(400, f"{name}: expected a whole number, got {shown(value)}.")
    if not isinstance(call.get("event_data"), dict):
        call.pop("event_data", None)  # the page's own events always carry fields
    if path.startswith(NAMED):
        call.pop("fn_index", None)
    _check_function(path, call.get("fn_index"), page)
    if path.rstrip("/") == QUEUED and "session_hash" not in call:
        raise RefusedError(400, "session_hash: expected 1 to 64 letters, digits, - and _, got none.")
    return call


def check_session(session: Any) -> None:
    """Raise RefusedError (400) for what is no session hash; none is one."""
    if session is not None and not (isinstance(session, str) and SESSION.fullmatch(session)):
        raise RefusedError(400, f"session_hash: expected 1 to 64 letters, digits, - and _, got {shown(session)}.")


def _check_function(path: str, index: int | None, page: Any) -> None:
    if index is not None:
        if index not in page.fns or page.fns[index].fn is None:
            raise RefusedError(404, f"fn_index: expected the number of a function of this page, got {shown(index)}.")
        return
    name = path.rstrip("/").rpartition("/")[2]
    names = {each.api_name for each in page.fns.values() if each.api_name and each.api_visibility == "public"}
    if path.rstrip("/") == QUEUED:
        raise RefusedError(400, "fn_index: expected the number of a function of this page, got none.")
    if name not in names or path.rstrip("/").count("/") != 3:
        offered = ", ".join(f"/{each}" for each in sorted(names))
        raise RefusedError(404, f"{shown(name)}: there is no such function; there are {offered}.")


def _arguments_by_name(name: str, body: dict[str, Any], page: Any) -> dict[str, Any]:
    endpoints: Mapping[str, Any] = page.get_api_info()["named_endpoints"]
    if f"/{name}" not in endpoints:
        raise RefusedError(404, f"{shown(name)}: there is no such function; there are {', '.join(sorted(endpoints))}.")
    parameters = endpoints[f"/{name}"]["parameters"]
    names = [each["parameter_name"] for each in parameters]
    if unknown := [each for each in body if each not in names]:
        raise RefusedError(400, f"{shown(unknown[0])}: expected one of {', '.join(names)}.")
    needed = [each["parameter_name"] for each in parameters if not each["parameter_has_default"]]
    if missing := [each for each in needed if each not in body]:
        raise RefusedError(400, f"{missing[0]}: expected a value, got none.")
    return body


def check_event(path: str, is_known: Callable[[str], bool]) -> None:
    """Raise RefusedError (404) for the answer to a call (`GET /gradio_api/call/NAME/EVENT`) that nobody made, or whose
    answer was read."""
    if path.startswith(NAMED) and not is_known(event := path.rstrip("/").rpartition("/")[2]):
        raise RefusedError(404, f"event_id: expected that of a call whose answer was not read yet, got {shown(event)}.")
