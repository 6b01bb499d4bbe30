"""The OpenAI-compatible API over real HTTP, without the page around it."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from panels.context import AppContext
from panels.models import ModelLoader, find_model
from panels.openai_api.server import build_app


def context_of(folder: Path) -> AppContext:
    """A page whose model is there."""
    loader = ModelLoader(find_model(folder)).start()
    loader.wait()
    return AppContext(loader=loader)


@contextlib.contextmanager
def serving(context: AppContext, key: str | None = None) -> Iterator[str]:
    """The address of `/v1` for a page's context, without the page."""
    config = uvicorn.Config(Starlette(routes=[Mount("/v1", build_app(context, key))]), port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    thread.join(timeout=20)
