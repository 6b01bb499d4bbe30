"""The commands that take a model to other programs: `native`, `gguf`, `onnx`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hub_export import card

Run = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Native:
    """Makes a folder that transformers loads without remote code (as Qwen3 or GPT-2), and proves it."""

    run: Run
    """The run folder (`runs/NAME`), or a bundle."""
    out: Path
    """The folder to make."""
    checkpoint: str = "best"
    """Which checkpoint of a run: `best`, `latest`, or a name such as `step-000500`."""
    license: str = card.LICENSE
    """License of the weights, as the Hub spells it (for the card)."""
    language: str = card.LANGUAGE
    """Language of the corpus, as a code (for the card)."""
    force: bool = False
    """Replace such a folder that exists under this name."""

    def execute(self) -> str:
        from hub_export.exports.native import native

        return native(**_fields(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Gguf:
    """Makes a GGUF file for llama.cpp, Ollama and LM Studio; checks it where llama-cpp-python is installed."""

    run: Run
    """The run folder (`runs/NAME`), or a bundle."""
    out: Path
    """The file to make."""
    checkpoint: str = "best"
    """Which checkpoint of a run: `best`, `latest`, or a name such as `step-000500`."""
    weights: Literal["f32", "f16", "q8_0"] = "f32"
    """Number format of the matrices; f32 rounds nothing."""
    force: bool = False
    """Replace a GGUF file that exists under this name."""

    def execute(self) -> str:
        from hub_export.exports.gguf import gguf

        return gguf(**_fields(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Onnx:
    """Makes an ONNX file, and checks it with onnxruntime."""

    run: Run
    """The run folder (`runs/NAME`), or a bundle."""
    out: Path
    """The file to make."""
    checkpoint: str = "best"
    """Which checkpoint of a run: `best`, `latest`, or a name such as `step-000500`."""
    cache: bool = False
    """Let keys and values go in and out, as transformers.js wants it."""
    force: bool = False
    """Replace an ONNX file that exists under this name."""

    def execute(self) -> str:
        from hub_export.exports.onnx import onnx

        return onnx(**_fields(self))


def _fields(command: Any) -> dict[str, Any]:
    return {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}
