"""The page: its head and tabs, a port that can be used, and the launch while the model is still loading."""

from __future__ import annotations

import argparse
import filecmp
import importlib.util
import os
import socket
from pathlib import Path
from typing import Any

from modeling import quick_imports
from modeling.loading import fetch
from panels.models import ModelLoader, ModelSource
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
    """Show the page until Ctrl-C; the model loads while the page is already there.

    Raises ValueError for a port that cannot be used, a missing run folder or MCP package, a model that is not on the
    Hub or cannot be loaded."""
    check_port(arguments.host, arguments.port)
    options = mcp_options() if arguments.mcp else {}
    run = find_run(source, arguments.run, Path.cwd())
    if source.folder is None:
        fetch(source.given, files=("config.json",))  # a name that is not on the Hub fails before the page is there
    with quick_imports():
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


def check_port(host: str, port: int) -> None:
    """Raise ValueError when nothing can listen there, before seconds go into loading."""
    try:
        _listen(host, port)
    except (OSError, OverflowError) as error:
        free = _free_port(host, port)
        raise ValueError(
            f"Port {port} on {host} cannot be used ({error}). "
            f"Choose another: `make demo PORT={free}` or `python app.py --port {free}`."
        ) from error


def _listen(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return probe.getsockname()[1]


def _free_port(host: str, port: int) -> int:
    """A port that can be used: one after `port`, or after the default where `port` is no port, else any."""
    first = port + 1 if 0 < port < 65_000 else 7860
    for candidate in (*range(first, first + 20), 0):
        try:
            return _listen(host, candidate)
        except (OSError, OverflowError):
            continue
    return 7860  # the host itself cannot be used: the error names the reason


def find_run(source: ModelSource, given: str | None, home: Path) -> Path | None:
    """The run folder that the model came from: the `given` one, the one it lies in, or that run of `home`/runs whose
    best checkpoint has the very same weights. None: there is none here.

    Raises ValueError when the given one is no run folder."""
    if given is not None:
        if not RunFolder(Path(given)).has_state:
            raise ValueError(f"--run {given}: expected a run folder, got one without a run.json, or none.")
        return Path(given)
    if source.folder is None:
        return None
    if around := RunFolder.containing(source.folder):
        return around.path
    weights = source.folder / "model.safetensors"
    return next((run.path for run in RunFolder.all_in(home) if _has_weights(run, weights)), None)


def _has_weights(run: RunFolder, weights: Path) -> bool:
    try:
        return filecmp.cmp(run.checkpoint() / weights.name, weights, shallow=False)
    except (ValueError, OSError):  # a run without a checkpoint, or one that is being written
        return False


def mcp_options() -> dict[str, Any]:
    """The keyword arguments of `Blocks.launch` for an MCP server.

    Raises ValueError when its package is not installed."""
    if importlib.util.find_spec("mcp") is None:
        raise ValueError("--mcp needs a package that is not installed: `pip install 'gradio[mcp]'`, then start again.")
    return {"mcp_server": True}
