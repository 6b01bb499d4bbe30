"""The page of a model, in the browser or in the terminal; on a Hugging Face Space the same file runs as it stands.

python app.py [--model DIR_OR_REPO] [--port N] [--host ADDRESS] [--terminal]
"""

import argparse
import os
import socket
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from panels.models import ModelLoader, ModelSource, default_source, find_model, load_model
from panels.sampling import add_flags, given_settings
from panels.terminal import run_terminal

MODEL = os.environ.get("MODEL")
"""The model when `--model` is not given; without either, the newest of bundle/ and runs/*."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write with a model of your own.")
    parser.add_argument("--model", default=MODEL, help="a bundle, a checkpoint, a run folder or a Hub id")
    parser.add_argument("--port", type=int, default=7860, help="port of the page (default: %(default)s)")
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1, or what GRADIO_SERVER_NAME says)")
    parser.add_argument("--terminal", action="store_true", help="write in the terminal instead of the browser")
    add_flags(parser.add_argument_group("with --terminal"))
    arguments = parser.parse_args(argv)
    arguments.settings = given_settings(arguments)
    if arguments.settings and not arguments.terminal:
        parser.error(f"{', '.join(arguments.settings)}: only with --terminal; the page has sliders for it.")
    return arguments


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


def serve(source: ModelSource, host: str, port: int) -> None:
    """Show the page until Ctrl-C; the model loads while it is already there."""
    check_port(host, port)
    from panels.lab import Lab
    from panels.page import build_page, launch_options

    page = build_page(Lab(loader=(loader := ModelLoader(source))))
    page.launch(server_name=host, server_port=port, prevent_thread_lock=True, **launch_options())
    print(f"The page is on http://{host}:{port} (Ctrl-C ends it)", flush=True)
    loader.start().wait()
    page.block_thread()


def main(argv: list[str] | None = None) -> None:
    """Parse, find the model, serve the page or the terminal."""
    arguments = parse(argv)
    try:
        source = find_model(arguments.model or default_source(Path.cwd()))
        print(f"Model: {source.folder or source.given}", flush=True)
        if arguments.terminal:
            run_terminal(load_model(source), arguments.settings)
        else:
            serve(source, arguments.host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), arguments.port)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
