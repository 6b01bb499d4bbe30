"""The ASGI middleware that every request to the page passes first."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from panels.guard.bodies import BODY_LIMIT, check_kind, parse_json
from panels.guard.calls import DIRECT, check_event, check_session, checked_call, is_call
from panels.guard.hosts import check_host, check_origin
from panels.guard.places import API, UPLOADS, check_place
from panels.guard.refusal import RefusedError, user_errors

FRAMES = "frame-ancestors 'self' http://127.0.0.1:* http://localhost:*"
"""Who may show a page of one's own in a frame, where a click could be stolen: pages of this machine."""
NO_SESSION = b'data: {"msg":"unexpected_error","message":"","success":false,"session_not_found":true}\n\n'
"""What Gradio's page expects for a session that the server does not know (any more): it says so, and reconnects."""


class Guard:
    """Refuses what no client of the page sends, with 4xx and a sentence, and adds the headers that browsers obey.

    Args:
        app: the application to pass requests on to.
        page: the `gr.Blocks` that it serves.
        listens_on: the address of `--host`.
        allowed: names of `--allow-host`, under which the page may be called too.
        is_public: on a Space, where there is nothing that other sites may not ask for.
        takes_files: whether the page has a field for files.
        has_key: whether `/v1` asks for a key, which a script of another site does not know.
    """

    def __init__(
        self,
        app: Any,
        *,
        page: Any,
        listens_on: str,
        allowed: Collection[str] = (),
        is_public: bool = False,
        takes_files: bool = True,
        has_key: bool = False,
    ) -> None:
        self.app, self._page, self._listens_on, self._allowed = app, page, listens_on, frozenset(allowed)
        self._is_public, self._takes_files, self._has_key = is_public, takes_files, has_key

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        send = self._with_headers(send)
        path: str = scope["path"]
        try:
            self._check(scope["method"], path, scope["query_string"].decode("latin-1"), headers)
            asks_for_events = scope["method"] == "GET" and path.rstrip("/") == f"{API}/queue/data"
            if asks_for_events and not self._has_session(scope["query_string"].decode("latin-1")):
                await _answer(send, 200, NO_SESSION, "text/event-stream")
                return
            if scope["method"] == "POST" and path.startswith(API) and path.rstrip("/") not in UPLOADS:
                receive = await self._checked_body(path, headers, receive)
        except RefusedError as error:
            await _answer(send, error.status, _body(path, str(error)), "application/json")
            return
        await self.app(scope, receive, _errors_of_users(send) if path.startswith(DIRECT) else send)

    def _check(self, method: str, path: str, query: str, headers: Mapping[str, str]) -> None:
        check_host(headers, listens_on=self._listens_on, allowed=self._allowed)
        if not self._is_public and not (self._has_key and path.startswith("/v1/")):
            check_origin(method, headers, allowed=self._allowed)
        check_place(path, query, takes_files=self._takes_files)
        if method == "GET":
            check_event(path, self._has_event)
            if path.startswith(f"{API}/heartbeat/"):
                check_session(path.removeprefix(f"{API}/heartbeat/"))

    async def _checked_body(self, path: str, headers: Mapping[str, str], receive: Any) -> Any:
        """`receive` for the application: the body, read and checked, and then what the network brings."""
        check_kind(headers.get("content-type", ""))
        body = await _read(receive, headers.get("content-length", ""))
        value = parse_json(body)
        if path.startswith(f"{API}/mcp"):
            checked = value
        elif is_call(path):
            checked = checked_call(path, value, self._page)
        else:
            checked = _checked_others(value)
        return _replay(json.dumps(checked).encode(), receive)

    def _has_session(self, query: str) -> bool:
        session = parse_qs(query).get("session_hash", [""])[0]
        return session in self._page._queue.pending_messages_per_session

    def _has_event(self, event: str) -> bool:
        queue = self._page._queue
        pending = queue.pending_event_ids_session.values()
        return event in queue.event_ids_to_events or any(event in events for events in list(pending))

    def _with_headers(self, send: Any) -> Any:
        added = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
        if not self._is_public:  # a Space is shown in a frame of the Hub
            added.append((b"content-security-policy", FRAMES.encode()))

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        return send_with_headers


def guarding(page: Any, **options: Any) -> Callable[[Any], contextlib.AbstractAsyncContextManager[None]]:
    """The `lifespan` of Gradio's application that puts a Guard in front of all of it: middleware that is given to
    Gradio stands behind Gradio's own, which fails on some headers. `options` are those of Guard."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        app.middleware_stack = Guard(app.middleware_stack, page=page, **options)
        yield

    return lifespan


def _checked_others(value: Any) -> Any:
    """The body of what a page sends beside calls: /cancel and /reset."""
    if not isinstance(value, dict):
        raise RefusedError(400, "expected a JSON object with event_id and session_hash.")
    check_session(value.get("session_hash"))
    return value


async def _read(receive: Any, length: str) -> bytes:
    """The whole body. Raises RefusedError (413) for one that is too long, as soon as that is known."""
    too_long = RefusedError(413, f"expected a body of at most {BODY_LIMIT:,} bytes, got more.")
    if length.isascii() and length.isdecimal() and int(length[:20]) > BODY_LIMIT:
        raise too_long
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":  # the client hung up
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > BODY_LIMIT:
            raise too_long
        if not message.get("more_body"):
            return bytes(body)


def _replay(body: bytes, receive: Any) -> Any:
    sent = False

    async def replay() -> Any:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _errors_of_users(send: Any) -> Any:
    """`send` for a direct call. Gradio answers it with 500 whatever went wrong; where the page has noted that the
    client was to blame, it is 400."""
    errors: list[str] = []
    user_errors.set(errors)

    async def send_with_status(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] == 500 and errors:
            message["status"] = 400
        await send(message)

    return send_with_status


def _body(path: str, message: str) -> bytes:
    """An error as the clients of this place read it: OpenAI's, Gradio's page, FastAPI's."""
    if path.startswith("/v1"):
        content: dict[str, Any] = {"error": {"message": message, "type": "invalid_request_error", "param": None}}
    else:
        content = {"error": message, "detail": message}
    return json.dumps(content).encode()


async def _answer(send: Any, status: int, body: bytes, kind: str) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
