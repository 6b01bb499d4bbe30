"""Serving the page: a port that can be used, the launch, and waiting for the model while the page is already there."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
from typing import Any

from panels.models import ModelLoader, ModelSource

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
    from panels.lab import Lab
    from panels.page import build_page, launch_options

    loader = ModelLoader(source)
    page = build_page(Lab(loader=loader, allow_training=arguments.allow_training))
    page.launch(
        server_name=arguments.host, server_port=arguments.port, prevent_thread_lock=True, **launch_options(), **options
    )
    address = f"http://{arguments.host}:{arguments.port}"
    print(f"The page is on {address} (Ctrl-C ends it)", flush=True)
    if options:
        print(f"MCP tools are on {address}/gradio_api/mcp/", flush=True)
    loader.start().wait()
    page.block_thread()


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


def mcp_options() -> dict[str, Any]:
    """The keyword arguments of `Blocks.launch` for an MCP server.

    Raises ValueError when its package is not installed."""
    if importlib.util.find_spec("mcp") is None:
        raise ValueError("--mcp needs a package that is not installed: `pip install 'gradio[mcp]'`, then start again.")
    return {"mcp_server": True}
