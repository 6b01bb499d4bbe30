"""The page of a model, in the browser or in the terminal; on a Hugging Face Space the same file runs as it stands.

python app.py [--model DIR_OR_REPO] [--port N] [--host ADDRESS] [--run-dir DIR] [--mcp] [--terminal]
              [--train RECIPE [flags of python -m train]]
"""

import argparse
import os
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from modeling import wait_passively
from panels import sampling, server
from panels.models import ModelLoader, default_source, find_model
from panels.terminal import run_terminal

MODEL = os.environ.get("MODEL")
"""The model when `--model` is not given; without either, what `panels.models.default_source` finds."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write with a model of your own.")
    parser.add_argument("--model", default=MODEL, help="a bundle, a checkpoint, a run folder or a Hub id")
    parser.add_argument("--terminal", action="store_true", help="write in the terminal instead of the browser")
    server.add_flags(parser.add_argument_group("the page"))
    sampling.add_flags(parser.add_argument_group("with --terminal"))
    arguments = parser.parse_args(argv)
    arguments.settings = sampling.given_settings(arguments)
    if arguments.settings and not arguments.terminal:
        parser.error(f"{', '.join(arguments.settings)}: only with --terminal; the page has sliders for it.")
    if arguments.train is not None and arguments.terminal:
        parser.error("--train: only with the page; `python -m train` trains without one.")
    try:
        server.check_training(arguments.train)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def main(argv: list[str] | None = None) -> None:
    """Parse, and serve the page, or find the model and serve the terminal."""
    arguments = parse(argv)
    try:
        if arguments.terminal:
            source = find_model(arguments.model or default_source(Path.cwd()))
            print(f"Model: {source.folder or source.given}", flush=True)
            run_terminal(ModelLoader(source).start(), arguments.settings)
        else:
            wait_passively()  # a training beside the page needs the cores more than threads that spin
            server.open_page(arguments)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
