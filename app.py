"""The page of a model, in the browser or in the terminal; on a Hugging Face Space the same file runs as it stands.

python app.py [--model DIR_OR_REPO] [--port N] [--host ADDRESS] [--run DIR] [--mcp] [--terminal]
"""

import argparse
import os
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from panels import sampling, server
from panels.models import default_source, find_model, load_model
from panels.terminal import run_terminal

MODEL = os.environ.get("MODEL")
"""The model when `--model` is not given; without either, bundle/, else the newest finished run."""


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
    return arguments


def main(argv: list[str] | None = None) -> None:
    """Parse, find the model, serve the page or the terminal."""
    arguments = parse(argv)
    try:
        source = find_model(arguments.model or default_source(Path.cwd()))
        how = "" if arguments.model else " (`--model DIR_OR_REPO` chooses another)"
        print(f"Model: {source.folder or source.given}{how}", flush=True)
        if arguments.terminal:
            run_terminal(load_model(source), arguments.settings)
        else:
            server.serve(source, arguments)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
