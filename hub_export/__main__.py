"""Command line: `python -m hub_export bundle RUN --out DIR`, `verify TARGET`, `push RUN --repo NAME`,
`space RUN --out DIR`, `account --repo NAME`, and `native`, `gguf`, `onnx RUN --out PATH` for other programs."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hub_export import card


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What is exported."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run folder (`runs/NAME`), or a bundle where one will do."""
    checkpoint: str = "best"
    """Which checkpoint of a run: `best`, `latest`, or a name such as `step-000500`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Export(Source):
    """What is exported, and what the card states."""

    license: str = card.LICENSE
    """License of the weights, as the Hub spells it (for the card)."""
    language: str = card.LANGUAGE
    """Language of the corpus, as a code (for the card)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle(Export):
    """Makes the model folder that goes to the Hub, checks it in an isolated process, and gives it its name."""

    out: Path
    """The folder to make."""
    force: bool = False
    """Replace a bundle that exists under this name."""

    def execute(self) -> str:
        from hub_export.bundle import bundle

        bundle(**dataclasses.asdict(self))
        return f"{self.out}: exported, and checked in an isolated process. Publish it with `python -m hub_export push`."


@dataclass(frozen=True, kw_only=True, slots=True)
class Verify:
    """Says which code a bundle or a model on the Hub carries, and checks it in an isolated process, where it generates.

    It runs the model's code, as trust_remote_code=True does."""

    target: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TARGET")]
    """The bundle, or `user/name` on the Hub, with or without `@` and a revision."""

    def execute(self) -> str:
        from hub_export.published import verify_target

        return verify_target(self.target)


@dataclass(frozen=True, kw_only=True, slots=True)
class Push(Export):
    """Publishes a run, or a bundle that was checked, on the Hugging Face Hub: one commit, loaded from there, tagged.

    What was interrupted is completed by the same command."""

    repo: str
    """The repository: `user/name`, or `name` under your own user."""
    private: bool = False
    """Make new repositories private."""
    space: bool = False
    """Publish the page too, as a Space of the same name."""
    hardware: Literal["zero", "cpu-basic"] = "zero"
    """What the Space runs on: ZeroGPU, which is free, or a CPU."""
    dry_run: bool = False
    """Only look, and print what would be uploaded."""
    force: bool = False
    """Replace what a repository holds that is not ours."""

    def execute(self) -> str:
        from hub_export.push import push

        return push(**dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Space(Export):
    """Makes the folder of a Space: the page, what it needs, and the model or where it lies on the Hub."""

    out: Path
    """The folder to make."""
    repo: str | None = None
    """The model on the Hub (`user/name`, pushed before), which the page then loads at its present commit; unset: a
    copy of the model comes along."""
    hardware: Literal["zero", "cpu-basic"] = "zero"
    """What it runs on: ZeroGPU, which is free, or a CPU."""
    force: bool = False
    """Replace a Space that exists under this name."""

    def execute(self) -> str:
        from hub_export.push import space

        space(**dataclasses.asdict(self))
        return f"{self.out}: a Space. Try it: cd {self.out} && python app.py"


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """Says who you are on the Hub, and whether a repository may be published under a name; changes nothing."""

    repo: str
    """The repository: `user/name`, or `name` under your own user."""

    def execute(self) -> str:
        from hub_export.push import check_account

        return check_account(self.repo)


@dataclass(frozen=True, kw_only=True, slots=True)
class Native(Export):
    """Makes a folder that transformers loads without remote code (as Qwen3 or GPT-2), and checks it."""

    out: Path
    """The folder to make."""
    force: bool = False
    """Replace such a folder that exists under this name."""

    def execute(self) -> str:
        from hub_export.exports.native import native

        return native(**dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Gguf(Source):
    """Makes a GGUF file for llama.cpp, Ollama and LM Studio; checks it where llama-cpp-python is installed."""

    out: Path
    """The file to make."""
    weights: Literal["f32", "f16", "q8_0"] = "f32"
    """Number format of the matrices; f32 rounds nothing."""
    force: bool = False
    """Replace a GGUF file that exists under this name."""

    def execute(self) -> str:
        from hub_export.exports.gguf import gguf

        return gguf(**dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Onnx(Source):
    """Makes an ONNX file, and checks it with onnxruntime."""

    out: Path
    """The file to make."""
    cache: bool = False
    """Let keys and values go in and out, as transformers.js wants it."""
    force: bool = False
    """Replace an ONNX file that exists under this name."""

    def execute(self) -> str:
        from hub_export.exports.onnx import onnx

        return onnx(**dataclasses.asdict(self))


Command = (
    Annotated[Bundle, tyro.conf.subcommand("bundle")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Push, tyro.conf.subcommand("push")]
    | Annotated[Space, tyro.conf.subcommand("space")]
    | Annotated[Account, tyro.conf.subcommand("account")]
    | Annotated[Native, tyro.conf.subcommand("native")]
    | Annotated[Gguf, tyro.conf.subcommand("gguf")]
    | Annotated[Onnx, tyro.conf.subcommand("onnx")]
)


def main(arguments: list[str] | None = None) -> None:
    """Runs one command; what the user can fix ends it with a message and status 1."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("hub_export").setLevel(logging.INFO)
    logging.getLogger("huggingface_hub").propagate = False  # it prints by itself
    command = tyro.cli(Command, prog="python -m hub_export", args=arguments)  # type: ignore[arg-type]
    try:
        print(command.execute())
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("error: interrupted; the same command again completes what it was doing") from None


if __name__ == "__main__":
    main()
