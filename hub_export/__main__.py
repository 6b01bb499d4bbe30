"""Command line: `python -m hub_export bundle RUN --out DIR`, `verify TARGET`, `push RUN --repo NAME`,
`space RUN --out DIR`, `account --repo NAME`, and `native`, `gguf`, `onnx RUN --out PATH` for other programs.

Each command is a function: its parameters are the flags, its docstring is the help.
"""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from hub_export.bundle import bundle
from hub_export.exports.gguf import gguf
from hub_export.exports.native import native
from hub_export.exports.onnx import onnx
from hub_export.published import verify_target
from hub_export.push import check_account, push, space


def _reported(make: Callable[..., Path], words: str) -> Callable[..., str]:
    """`make` as a command: what it returns is put into `words`."""

    @functools.wraps(make)
    def command(*args: Any, **kwargs: Any) -> str:
        return words.format(out=make(*args, **kwargs))

    return command


BUNDLED = "{out}: exported, and checked in an isolated process. Publish it with `python -m hub_export push`."
COMMANDS: dict[str, Callable[..., str]] = {
    "bundle": _reported(bundle, BUNDLED),
    "verify": verify_target,
    "push": push,
    "space": _reported(space, "{out}: a Space. Try it: cd {out} && python app.py"),
    "account": check_account,
    "native": native,
    "gguf": gguf,
    "onnx": onnx,
}


def main(arguments: list[str] | None = None) -> None:
    """Runs one command; what the user can fix ends it with a message and status 1."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("hub_export").setLevel(logging.INFO)
    logging.getLogger("huggingface_hub").propagate = False  # it prints by itself
    try:
        print(tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="python -m hub_export", args=arguments))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("error: interrupted; the same command again completes what it was doing") from None


if __name__ == "__main__":
    main()
