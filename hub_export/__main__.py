"""Command line: `python -m hub_export bundle RUN --out DIR`, `verify DIR`, `push RUN --repo NAME`."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from . import card


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """What is exported, and what the card says of it."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run folder (`runs/NAME`)."""
    checkpoint: str = "best"
    """Which checkpoint: `best`, `latest`, or a name such as `step-000500`."""
    license: str = card.LICENSE
    """License of the weights, as the Hub spells it (for the card)."""
    language: str = card.LANGUAGE
    """Language of the corpus, as a code (for the card)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle(Export):
    """Makes the model folder that goes to the Hub, proves it in a fresh process, and gives it its name."""

    out: Path
    """The folder to make."""
    force: bool = False
    """Replace a bundle that exists under this name."""

    def execute(self) -> str:
        from .bundle import bundle

        bundle(**_fields(self))
        return f"{self.out}: exported, and proved in a fresh process. Publish it with `python -m hub_export push`."


@dataclass(frozen=True, kw_only=True, slots=True)
class Verify:
    """Loads a bundle in a fresh process elsewhere, as a stranger would, and compares the logits."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """The bundle."""

    def execute(self) -> str:
        from .verify import verify

        return f"{self.folder}: {verify(self.folder)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Push(Export):
    """Exports a run, proves it, and uploads it to the Hugging Face Hub in one commit."""

    repo: str
    """The repository: `user/name`, or `name` under your own user."""
    private: bool = False
    """Make a new repository private."""

    def execute(self) -> str:
        from .push import push

        return f"published: {push(**_fields(self))}"


Command = (
    Annotated[Bundle, tyro.conf.subcommand("bundle")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Push, tyro.conf.subcommand("push")]
)


def main(arguments: list[str] | None = None) -> None:
    """Runs one command; what the user can mend ends it with a message and status 1."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("hub_export").setLevel(logging.INFO)
    command = tyro.cli(Command, prog="python -m hub_export", args=arguments)  # type: ignore[arg-type]
    try:
        print(command.execute())
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("error: interrupted; nothing was left under the final name") from None


def _fields(command: Bundle | Push) -> dict:
    return {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}


if __name__ == "__main__":
    main()
