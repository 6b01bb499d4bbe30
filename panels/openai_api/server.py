"""The web application behind `/v1`: who may ask, what is refused and how, and an end where nobody listens any more."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import json
import os
import re
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from panels.guard import refusal as guard
from panels.guard.bodies import check_kind, parse_json
from panels.openai_api.choices import Piece, make_pieces
from panels.openai_api.replies import Reply, error_body
from panels.openai_api.requests import FieldError, TextRequest, read_chat, read_completion
from panels.request_queue import QueueFullError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from panels.context import AppContext
    from panels.models import ModelLoader, ModelSource

T = TypeVar("T")

PLACE = "/v1"
"""Where the page mounts it."""
SWITCH, KEY = "SCRATCHGPT_OPENAI", "SCRATCHGPT_API_KEY"
"""Names in the environment of what the flags are, for a Space, which has no flags."""
BODY_LIMIT = 8 * 1024 * 1024
"""Bytes of a request's body."""
POLL_INTERVAL = 0.1
"""Seconds after which a client that hung up is noticed."""
SPARE_THREADS = 16
"""For requests beyond those that the queues take: they are refused at once."""
STARTED = int(time.time())
"""OpenAI's clients want to know when a model was made; it is here since now."""


class RefusedError(Exception):
    """A request that gets an error for an answer."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", **named: str | None) -> None:
        super().__init__(message)
        self.status, self.body = status, error_body(message, kind, **named)


def add_flags(parser: argparse._ActionsContainer) -> None:
    """Add the flags of the OpenAI-compatible API."""
    parser.add_argument(
        "--openai",
        action=argparse.BooleanOptionalAction,
        help=f"offer an OpenAI-compatible API on /v1 (default: yes, but not on a public Space; there {SWITCH}=1)",
    )
    parser.add_argument(
        "--api-key", help=f"ask every program on /v1 for this key (default: {KEY}, else none is asked for)"
    )


def is_wanted(given: bool | None, *, is_public: bool) -> bool:
    """Whether to offer it: as the flag says, else the environment, else everywhere but on a public Space.

    Raises ValueError for a word in the environment that means neither."""
    if given is not None:
        return given
    said = os.environ.get(SWITCH, "").lower()
    if said not in ("", "0", "1", "true", "false"):
        raise ValueError(f"{SWITCH}: expected 1 or 0 in the environment, got {said!r}.")
    return said in ("1", "true") if said else not is_public


def wanted_key(given: str | None) -> str | None:
    """The key to ask for: the flag's, else the environment's; None: none.

    Raises ValueError for one that no client can send."""
    key = os.environ.get(KEY) or None if given is None else given
    if key is not None and not re.fullmatch(r"[!-~]+", key):
        raise ValueError("--api-key: expected letters, digits and signs without spaces, got another text, or none.")
    return key


def offered(context: AppContext, wanted: bool | None, key: str | None) -> Starlette | None:
    """The application where it is to be offered, by the flags and the environment; else None.

    Raises ValueError for a key or a word in the environment that is wrong, and a key for what is not offered."""
    is_offered = is_wanted(wanted, is_public=context.is_public)
    if key is not None and not is_offered:
        raise ValueError("--api-key: only where the API is offered: add --openai.")
    return build_app(context, wanted_key(key)) if is_offered else None


def build_app(context: AppContext, key: str | None = None) -> Starlette:
    """The application, to be mounted at `/v1` of the page's. `key`: what clients must send; None: anything."""
    from anyio import CapacityLimiter
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "5"}, 503: {"Retry-After": "5"}}
        return JSONResponse(error.body, error.status, headers.get(error.status))

    def no_such_place(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        offered = "GET /v1/models, POST /v1/completions and POST /v1/chat/completions"
        said = f"{request.method} {request.url.path}: not offered here; there are {offered}."
        return JSONResponse(error_body(said, "invalid_request_error", code="unknown_url"), error.status_code)

    def failed(request: Request, error: Exception) -> Response:
        said = f"The server failed ({type(error).__name__}); its terminal says where."
        return JSONResponse(error_body(said, "server_error"), 500)

    def guarded(endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def checked(request: Request) -> Response:
            check_key(request.headers.get("authorization"), key)
            return await endpoint(request)

        return checked

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [describe(context.source.name)]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        check_model(context.source, name)
        return JSONResponse(describe(name))

    async def completions(request: Request) -> Response:
        return await answer(context, request, read_completion)

    async def chat(request: Request) -> Response:
        return await answer(context, request, read_chat)

    app = Starlette(
        routes=[
            Route("/models", guarded(models)),
            Route("/models/{name:path}", guarded(model)),
            Route("/completions", guarded(completions), methods=["POST"]),
            Route("/chat/completions", guarded(chat), methods=["POST"]),
        ],
        exception_handlers={RefusedError: refuse, HTTPException: no_such_place, Exception: failed},
    )
    # Threads of their own: a request holds one until its text is done, and anyio's 40 answer for the rest of the page.
    app.state.threads = CapacityLimiter(context.queue.limit + context.writing.limit + SPARE_THREADS)
    return app


def check_key(sent: str | None, key: str | None) -> None:
    """Raise RefusedError where a key is asked for and `sent`, the Authorization header, does not have it."""
    if key is None:
        return
    scheme, _, token = (sent or "").partition(" ")
    if not hmac.compare_digest(token.strip().encode(), key.encode()) or scheme.lower() != "bearer":
        got = "got none" if not token.strip() else "got another one"
        message = f"expected the page's API key as `Authorization: Bearer KEY`, {got}. `--api-key` of app.py set it."
        raise RefusedError(401, message, code="invalid_api_key")


def describe(name: str) -> dict[str, Any]:
    """A model, as OpenAI lists it."""
    return {"id": name, "object": "model", "created": STARTED, "owned_by": "scratchgpt"}


def check_model(source: ModelSource, name: str | None) -> None:
    """Raise RefusedError for a model that is not here; None is whichever there is."""
    if name is not None and name not in (source.name, source.given):
        message = f"model: expected one that is here ({source.name}), got {name!r}."
        raise RefusedError(404, message, name="model", code="model_not_found")


async def answer(context: AppContext, request: Request, read: Callable[[Any], TextRequest]) -> Response:
    """The answer to a request for texts. Raises RefusedError for a request that cannot have one."""
    from starlette.responses import JSONResponse, StreamingResponse

    asked = _checked(read, await _json(request))
    loader = context.loader  # the page's model may be another one before the answer ends
    _check_ready(loader)
    check_model(loader.source, asked.model)
    if asked.is_chat and not getattr(loader.wait().tokenizer, "chat_template", None):
        raise RefusedError(
            400,
            f"{loader.source.name} continues texts and has no chat template: send a prompt to /v1/completions.",
            code="no_chat_template",
        )
    reply = Reply(asked=asked, model=asked.model or loader.source.name)
    if not asked.stream:
        whole = _run(request, lambda should_stop: _once(reply, make_pieces(context, loader, asked, should_stop)))
        async with contextlib.aclosing(whole):
            return JSONResponse(await _first(whole))
    chunks = _run(request, lambda should_stop: reply.chunks(make_pieces(context, loader, asked, should_stop)))
    first = await _first(chunks)  # a refusal has a status of its own, until the stream has begun
    return StreamingResponse(
        _events(first, chunks), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
    )


def _once(reply: Reply, pieces: Iterator[Piece]) -> Generator[dict[str, Any], None, None]:
    yield reply.whole(pieces)


def _checked(read: Callable[[Any], TextRequest], body: Any) -> TextRequest:
    from panels.sampling import settings_from

    try:
        asked = read(body)
        settings_from(max_new_tokens=max(1, asked.max_tokens), seed=asked.seed, **asked.sampler)
        return asked
    except ValueError as error:
        raise _refusal(error) from error


def _refusal(error: ValueError) -> RefusedError:
    """What a client is told of an error of the panels."""
    message = str(error)
    if isinstance(error, QueueFullError):
        return RefusedError(429, message, "rate_limit_error", code="queue_full")
    field = re.match(r"(\w+): ", message)
    return RefusedError(400, message, name=error.name if isinstance(error, FieldError) else field and field[1])


def _check_ready(loader: ModelLoader) -> None:
    if not loader.done.is_set():
        raise RefusedError(503, "The model is still loading. Try again in a minute.", "server_error", code="loading")
    try:
        loader.wait()
    except ValueError as error:
        raise RefusedError(500, str(error), "server_error", code="no_model") from error


async def _json(request: Request) -> Any:
    """What the body says. Raises RefusedError for one that is no JSON, or too long."""
    try:
        check_kind(request.headers.get("content-type", ""))
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > BODY_LIMIT:
                raise RefusedError(413, f"expected a body of at most {BODY_LIMIT:,} bytes, got more.")
        return parse_json(bytes(body))
    except guard.RefusedError as error:
        raise RefusedError(error.status, str(error)) from error


async def _run(
    request: Request, make: Callable[[Callable[[], bool]], Generator[T, None, None]]
) -> AsyncGenerator[T, None]:
    """What `make(should_stop)` yields, computed in threads; it is told to stop as soon as the client hangs up."""
    from anyio import to_thread

    stopped = threading.Event()

    async def watch() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(POLL_INTERVAL)
        stopped.set()

    watching = asyncio.create_task(watch())
    results = make(stopped.is_set)
    try:
        while (each := await to_thread.run_sync(next, results, None, limiter=request.app.state.threads)) is not None:
            yield each
    finally:
        watching.cancel()
        results.close()  # it leaves the request queue; no thread computes in it now


async def _first(results: AsyncIterator[T]) -> T:
    """The first result. Raises RefusedError for an error of the panels."""
    try:
        return await anext(results)
    except ValueError as error:
        raise _refusal(error) from error


async def _events(first: Any, others: AsyncGenerator[Any, None]) -> AsyncIterator[str]:
    """Server-sent events: JSON as data, a text as a comment; an error is the last one but for `[DONE]`."""
    async with contextlib.aclosing(others):
        yield _event(first)
        try:
            async for each in others:
                yield _event(each)
        except ValueError as error:
            yield _event(_refusal(error).body)
        yield "data: [DONE]\n\n"


def _event(value: Any) -> str:
    return f": {value}\n\n" if isinstance(value, str) else f"data: {json.dumps(value)}\n\n"
