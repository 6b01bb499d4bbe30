"""Serving the page: a port that can be used, the launch, and waiting for the model while the page is already there."""

from __future__ import annotations

import argparse
import filecmp
import importlib.util
import os
import socket
from pathlib import Path
from typing import Any
from unittest import mock

from modeling import quick_imports
from panels.models import ModelLoader, ModelSource, run_around
from storage.run_folder import RunFolder

LOCAL = "127.0.0.1"


def add_flags(parser: argparse._ActionsContainer) -> None:
    """Add the flags of the page."""
    host = os.environ.get("GRADIO_SERVER_NAME", LOCAL)
    parser.add_argument("--port", type=int, default=7860, help="port of the page (default: %(default)s)")
    parser.add_argument("--host", default=host, help="address to listen on (default: %(default)s)")
    parser.add_argument("--run", help="the run folder that the model came from (default: found where it lies)")
    parser.add_argument("--mcp", action="store_true", help="offer the API to language models as MCP tools too")
    parser.add_argument(
        "--allow-training", action="store_true", help="visitors of a public Space too may start runs from the page"
    )


def serve(source: ModelSource, arguments: argparse.Namespace) -> None:
    """Show the page until Ctrl-C; the model loads while it is already there.

    Raises ValueError for a port that cannot be used, a missing run folder or MCP package, a model that cannot be
    loaded."""
    check_port(arguments.host, arguments.port)
    options = mcp_options() if arguments.mcp else {}
    run = find_run(source, arguments.run, Path.cwd())
    with quick_imports():
        import_gradio()
        from panels.context import AppContext
        from panels.page import build_page, launch_options

    loader = ModelLoader(source)
    page = build_page(AppContext(loader=loader, run=run, allow_training=arguments.allow_training))
    page.launch(
        server_name=arguments.host, server_port=arguments.port, prevent_thread_lock=True, **launch_options(), **options
    )
    address = f"http://{arguments.host}:{arguments.port}"
    print(f"The page is on {address} (Ctrl-C ends it)", flush=True)
    if options:
        print(f"MCP tools are on {address}/gradio_api/mcp/", flush=True)
    loader.start().wait()
    page.block_thread()


def import_gradio() -> None:
    """Import gradio in two thirds of the time.

    Each import of gradio 6 writes type stubs of its components beside them, for editors, unless it is told that a
    component has no source file."""

    def has_none(_: object) -> str:
        raise OSError

    with mock.patch("inspect.getfile", has_none):
        import gradio  # noqa: F401


def check_port(host: str, port: int) -> None:
    """Raise ValueError when nothing can listen there, before seconds go into loading."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ValueError(
                f"Port {port} on {host} cannot be used ({error}). "
                f"Choose another: `make demo PORT={port + 1}` or `python app.py --port {port + 1}`."
            ) from error


def find_run(source: ModelSource, given: str | None, home: Path) -> Path | None:
    """The run folder that the model came from: the `given` one, the one it lies in, or that run of `home`/runs whose
    best checkpoint has the very same weights. None: there is none here.

    Raises ValueError when the given one is no run folder."""
    if given is not None:
        if not (Path(given) / "run.json").is_file():
            raise ValueError(f"--run {given}: expected a run folder, got one without a run.json, or none.")
        return Path(given)
    if source.folder is None:
        return None
    if around := run_around(source.folder):
        return around
    weights = source.folder / "model.safetensors"
    return next((run for run in sorted(home.glob("runs/*")) if _has_weights(run, weights)), None)


def _has_weights(run: Path, weights: Path) -> bool:
    try:
        theirs = RunFolder(run).checkpoint() / weights.name
        return filecmp.cmp(theirs, weights, shallow=False)
    except (ValueError, OSError):  # a run without a checkpoint, or one that is being written
        return False


def mcp_options() -> dict[str, Any]:
    """The keyword arguments of `Blocks.launch` for an MCP server.

    Raises ValueError when its package is not installed."""
    if importlib.util.find_spec("mcp") is None:
        raise ValueError("--mcp needs a package that is not installed: `pip install 'gradio[mcp]'`, then start again.")
    return {"mcp_server": True}
