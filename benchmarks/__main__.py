"""`python -m benchmarks [NAME…] [--markdown FILE]`: ratios against peers, side by side in one run; prints one JSON
object for each. `make bench` writes docs/performance.md."""

import argparse
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from storage.files import atomic_file

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
LONG = {
    "ablations",
    "systems",
    "memory",
    "scifi_reference",
    "hostile_texts",
    "gpu",
    "laws",
    "minutes",
    "scale",
    "two_machines",
}
"""Benchmarks that take minutes to an hour."""
BY_DEFAULT = [name for name in NAMES if name not in LONG]
PEERS = ("torch", "transformers", "tokenizers", "tiktoken", "rustbpe", "gradio")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"some of {', '.join(NAMES)}; by default {', '.join(BY_DEFAULT)}",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the results there too, as tables")
    given = parser.parse_args()
    names = given.names or BY_DEFAULT
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"unknown benchmark {', '.join(unknown)}: expected some of {', '.join(NAMES)}")
    sections, failed = [head()], []
    for name in names:
        module, begun, busy = importlib.import_module(f"benchmarks.{name}"), time.monotonic(), load()
        try:
            result = module.run()
        except (ValueError, OSError) as error:
            raise SystemExit(f"error: {name}: {error}") from None
        print(json.dumps({"benchmark": name, **result}), flush=True)
        first = (module.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
        spent = f"{time.monotonic() - begun:.0f} s; load of the machine before it: {busy}."
        table = module.as_table(result) if hasattr(module, "as_table") else tables(result)
        sections.append(f"## `python -m benchmarks {name}`\n\n{first}\n\n{spent}\n\n{table}")
        if given.markdown:  # after each: what was measured is not lost with the next
            with atomic_file(given.markdown) as file:
                file.write("\n\n".join(sections) + "\n")
        if result.get("failed"):
            failed.append(f"{name} ({result['failed']})")
    if failed:
        raise SystemExit(f"error: failed in part: {'; '.join(failed)}")


def head() -> str:
    """Machine, date and versions."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PEERS)
    return (
        "# Performance\n\n"
        "Written by `make bench`, or `python -m benchmarks NAME … --markdown FILE`. Each table was measured side by "
        "side in one run: the ratios hold, the absolute numbers belong to the machine.\n\n"
        f"{datetime.date.today()}: {cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}."
    )


def cpu() -> str:
    """What the processor calls itself, where the system says it."""
    place = Path("/proc/cpuinfo")
    lines = place.read_text().splitlines() if place.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


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


if __name__ == "__main__":
    main()
