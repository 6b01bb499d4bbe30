"""What a benchmark measured, as JSON and as a section of docs/performance.md.

The file is written by machine and by hand. A section belongs to a benchmark: it begins with the heading that names its
command, and running the benchmark replaces it, wherever it was measured before. Kept are the other sections, what is
above the first heading, and, in the section itself, paragraphs that begin with `Note:`.
"""

import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.files import atomic_file

PEERS = ("torch", "transformers", "tokenizers", "tiktoken", "rustbpe", "gradio")
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
"""Linux' names of what makes matrix products fast on an x86 CPU, the best first."""
HEAD = """# Performance

Written by `make bench`, or `python -m benchmarks NAME … --markdown FILE`, which replaces the sections of the benchmarks
that it runs and leaves the others. Each table was measured side by side in one run: the ratios hold, the absolute
numbers belong to the machine. A paragraph that begins with `Note:` is written by hand, and stays."""


@dataclass(frozen=True)
class Goal:
    """A bound for a number of a benchmark's result, both ends included.

    Args:
        path: keys of the result, from the outside in.
        at_least: None (default): no lower bound.
        at_most: None (default): no upper bound.
    """

    path: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None

    def judged(self, result: dict[str, Any]) -> tuple[str, str]:
        """The goal in words; and the number, with `reached` or `not reached`, or `not measured` where there is none."""
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        name = f"{', '.join(self.path)}: " + ", ".join(f"{how} {bound:g}" for how, bound in bounds if bound is not None)
        value: Any = result
        for key in self.path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            return name, "not measured"
        reached = (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)
        return name, f"{value:.4g}: {'reached' if reached else 'not reached'}"


def report(
    name: str, measure: Callable[[], dict[str, Any]], markdown: Path | None, flags: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure, print the result as a line of JSON, and write the section of this benchmark; return the result.

    Args:
        name: of the benchmark's module; `as_table(result)` in it makes the Markdown, where it is there, and `GOALS` are
            judged.
        measure: returns the result.
        markdown: the file to write into; None: none.
        flags: the arguments with which the module itself was called; none (default): `python -m benchmarks NAME`.
    """
    module, begun, busy = importlib.import_module(f"benchmarks.{name}"), time.monotonic(), load()
    result = measure()
    goals = dict(goal.judged(result) for goal in getattr(module, "GOALS", ()))
    print(json.dumps({"benchmark": name, **result, **({"goals": goals} if goals else {})}), flush=True)
    if markdown is None:
        return result
    parts = [
        f"## `python -m benchmarks{f'.{name} ' + ' '.join(flags) if flags else f' {name}'}`",
        (module.__doc__ or "").strip().split("\n\n")[0].replace("\n", " "),
        f"{machine()}; {time.monotonic() - begun:.0f} s, load of the machine {busy} before and {load()} after.",
        module.as_table(result) if hasattr(module, "as_table") else tables(result),
        *([tables({"goals": goals})] if goals else []),
    ]
    before = markdown.read_text(encoding="utf-8") if markdown.is_file() else HEAD
    with atomic_file(markdown) as file:
        file.write(replace_section(before, name, "\n\n".join(parts)))
    return result


def replace_section(text: str, name: str, section: str) -> str:
    """A report with this section in place of the benchmark's former one, whose notes go below it, or at the end."""
    parts = re.split(r"^(?=## )", text.rstrip() + "\n", flags=re.MULTILINE)
    heading = re.compile(rf"## `python -m benchmarks[ .]{re.escape(name)}[ `]")
    place = next((index for index, part in enumerate(parts) if heading.match(part)), len(parts))
    former = parts[place] if place < len(parts) else ""
    notes = [each.strip() for each in re.split(r"\n\s*\n", former) if each.startswith("Note:")]
    parts[place : place + 1] = ["\n\n".join([section, *notes])]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def machine() -> str:
    """Date, processor, cores and versions."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PEERS)
    return f"{datetime.date.today()}, {cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def cpu() -> str:
    """The processor: what it calls itself, its family and model, and its best instructions, as the system says."""
    place = Path("/proc/cpuinfo")
    lines = place.read_text().splitlines() if place.is_file() else []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" not in said:
        return platform.machine()
    details = [f"{key.removeprefix('cpu ')} {said[key]}" for key in ("cpu family", "model") if key in said]
    details += [name for name in INSTRUCTIONS if name in said.get("flags", "").split()][:1]
    return f"{said['model name']} ({', '.join(details)})"


def load() -> str:
    """Processes that wanted a core in the last minute, on average."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def tables(result: dict[str, Any]) -> str:
    """A result as Markdown: the plain values in a table of two columns, each group of values in one of its own."""
    plain = {name: value for name, value in result.items() if not isinstance(value, dict)}
    groups = {name: value for name, value in result.items() if isinstance(value, dict)}
    parts = [_rows("", plain)] if plain else []
    parts += [_rows(name, _flat(value)) for name, value in groups.items()]
    return "\n\n".join(parts)


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{before}{name}"
        found |= _flat(value, f"{path}, ") if isinstance(value, dict) else {path: value}
    return found


def _rows(title: str, values: dict[str, Any]) -> str:
    lines = [f"| {title.replace('_', ' ')} | |", "|---|---:|"]
    for name, value in values.items():
        shown = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
        lines.append(f"| {str(name).replace('_', ' ')} | {shown} |")
    return "\n".join(lines)
