"""The page: its head and tabs, a port that can be used, and the launch while the model is still loading."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modeling import quick_imports
from modeling.loading import fetch
from panels.context import AppContext, find_run
from panels.models import ModelLoader, ModelSource, default_source, find_model
from panels.openai_api import server as openai_api
from panels.training.companion import CompanionRun, ending_together
from panels.training.launcher import launcher_of
from storage.run_folder import RunFolder

LOCAL = "127.0.0.1"
OWN_FLAGS = ("--port", "--host", "--allow-host", "--model", "--bundle", "--mcp", "--openai", "--no-openai", "--api-key")
"""Flags that training has not, and that somebody may put behind `--train`."""


def add_flags(parser: argparse._ActionsContainer) -> None:
    """Add the flags of the page."""
    host = os.environ.get("GRADIO_SERVER_NAME", LOCAL)
    parser.add_argument("--port", type=int, default=7860, help="port of the page (default: %(default)s)")
    parser.add_argument("--host", default=host, help="address to listen on (default: %(default)s)")
    found = "the run folder that the model came from (default: found where it lies)"
    parser.add_argument("--run-dir", dest="run", metavar="DIR", help=found)
    parser.add_argument("--run", dest="run", help=argparse.SUPPRESS)  # its name up to 0.2
    parser.add_argument("--mcp", action="store_true", help="offer the API to language models as MCP tools too")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which a proxy passes on requests, or whose web pages may call this one; may be repeated",
    )
    parser.add_argument(
        "--allow-training", action="store_true", help="visitors of a public Space too may start runs from the page"
    )
    openai_api.add_flags(parser)
    parser.add_argument(
        "--train",
        nargs=argparse.REMAINDER,
        metavar="RECIPE",
        help="train beside the page: a recipe and flags of `python -m train`, after all other flags. A run that was "
        "stopped goes on, a finished one is not trained again; it is saved and stopped when the page ends",
    )
    parser.add_argument("--bundle", help="the folder that the model of --train is exported to when it is finished")


def check_training(words: Sequence[str] | None) -> None:
    """Raise ValueError where `--train` has no recipe, or a flag of the page comes after it."""
    if words is None:
        return
    if not words or words[0].startswith("-"):
        raise ValueError("--train: expected a recipe, such as stories, got none; `python -m train --list` has them.")
    if late := next((word for word in words if word.partition("=")[0] in OWN_FLAGS), None):
        raise ValueError(f"{late}: expected before --train; what follows it goes to `python -m train`.")


def open_page(arguments: argparse.Namespace) -> None:
    """Find the model, and show its page until Ctrl-C, with the run of `--train` beside it.

    Raises ValueError as `serve`, and where there is no model."""
    companion = None
    if arguments.train:
        bundle = Path(arguments.bundle) if arguments.bundle else None
        companion = CompanionRun(launcher_of(Path.cwd()), arguments.train, bundle=bundle)
    with ending_together(companion):
        source = find_model(arguments.model or choose_model(arguments, companion))
        how = "" if arguments.model else " (`--model DIR_OR_REPO` chooses another)"
        print(f"Model: {source.folder or source.given}{how}", flush=True)
        serve(source, arguments, companion)


def choose_model(arguments: argparse.Namespace, companion: CompanionRun | None) -> str:
    """The model where none is given: that of the run beside the page, if it is complete, else what there is; where
    there is none, the run's first checkpoint, as soon as it is there.

    Raises ValueError where there is none."""
    if found := companion and companion.model():
        return found
    try:
        return default_source(Path.cwd())
    except ValueError:
        if companion is None:
            raise
    check_port(arguments.host, arguments.port)
    print("No model here yet: the page opens when the training has its first checkpoint.", flush=True)
    return companion.wait_for_model()


def serve(source: ModelSource, arguments: argparse.Namespace, companion: CompanionRun | None = None) -> None:
    """Show the page until Ctrl-C; the model loads while the page is already there, and so begins the run beside it.

    Raises ValueError for a port that cannot be used, a missing run folder or MCP package, a wrong API key, a model
    that is not on the Hub or cannot be loaded."""
    check_port(arguments.host, arguments.port)
    options = mcp_options() if arguments.mcp else {}
    run = find_run(source, Path.cwd()) if arguments.run is None else given_run(arguments.run)
    if source.folder is None:
        fetch(source.given, files=("config.json",))  # a name that is not on the Hub fails before the page is there
    with quick_imports():
        from panels.components import training_strip
        from panels.guard.middleware import guarding
        from panels.page import build_page, launch_options

    loader = ModelLoader(source)
    context = AppContext(loader=loader, run=run, allow_training=arguments.allow_training, companion=companion)
    programs = openai_api.offered(context, arguments.openai, arguments.api_key)
    page = build_page(context)
    guarded = guarding(
        page,
        listens_on=arguments.host,
        allowed=[name.lower() for name in arguments.allow_host],
        is_public=context.is_public,
        takes_files=context.may_train,
        has_key=openai_api.wanted_key(arguments.api_key) is not None,
    )
    page.launch(
        server_name=arguments.host,
        server_port=arguments.port,
        prevent_thread_lock=True,
        app_kwargs={"lifespan": guarded},
        **launch_options(),
        **options,
    )
    address = f"http://{arguments.host}:{arguments.port}"
    print(f"The page is on {address} (Ctrl-C ends it)", flush=True)
    if page.training_strip is not None:
        page.app.get(training_strip.PLACE)(page.training_strip.state)
    if programs:
        page.app.mount(openai_api.PLACE, programs)
        print(f"Other programs find an OpenAI-compatible API on {address}{openai_api.PLACE}", flush=True)
    if options:
        print(f"MCP tools are on {address}/gradio_api/mcp/", flush=True)
    try:
        if companion is not None:
            companion.start()
        loader.start().wait()
        _ = loader.batch  # now, so that the first text need not wait for it
        page.block_thread()
    finally:
        page.close(verbose=False)  # what was uploaded is removed, also where the model never came
    if (batch := context.loader.batch) and batch.widths:
        tokens, passes = sum(width * count for width, count in batch.widths.items()), batch.widths.total()
        print(f"Passes of the model: {passes:,} for {tokens:,} tokens, of up to {max(batch.widths)} texts at once.")


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


def given_run(folder: str) -> Path:
    """The run folder that `--run-dir` names.

    Raises ValueError when it is none."""
    if not RunFolder(Path(folder)).has_state:
        raise ValueError(f"--run-dir {folder}: expected a run folder, got one without a run.json, or none.")
    return Path(folder)


def mcp_options() -> dict[str, Any]:
    """The keyword arguments of `Blocks.launch` for an MCP server.

    Raises ValueError when its package is not installed."""
    if importlib.util.find_spec("mcp") is None:
        raise ValueError("--mcp needs a package that is not installed: `pip install 'gradio[mcp]'`, then start again.")
    return {"mcp_server": True}
