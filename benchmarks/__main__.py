"""`python -m benchmarks [NAME…] [--markdown FILE]`: ratios against peers, side by side in one run; prints one JSON
object for each. `make bench` renews their sections in docs/performance.md."""

import argparse
import importlib
from pathlib import Path

from benchmarks._report import report

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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"some of {', '.join(NAMES)}; by default {', '.join(BY_DEFAULT)}",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="renew their sections in it, as tables")
    given = parser.parse_args()
    names = given.names or BY_DEFAULT
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"unknown benchmark {', '.join(unknown)}: expected some of {', '.join(NAMES)}")
    failed: list[str] = []
    for name in names:
        try:
            result = report(name, lambda name=name: importlib.import_module(f"benchmarks.{name}").run(), given.markdown)
        except (ValueError, OSError) as error:
            raise SystemExit(f"error: {name}: {error}") from None
        if result.get("failed"):
            failed.append(f"{name} ({result['failed']})")
    if failed:
        raise SystemExit(f"error: failed in part: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
