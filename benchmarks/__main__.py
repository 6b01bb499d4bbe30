"""`python -m benchmarks [NAME…]`: ratios against peers, side by side in one run; prints one JSON object for each."""

import argparse
import importlib
import json
from pathlib import Path

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
BY_DEFAULT = [
    name for name in NAMES if name not in {"systems", "memory", "scifi_reference"}
]  # the others take minutes to an hour


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"some of {', '.join(NAMES)}; by default {', '.join(BY_DEFAULT)}",
    )
    names = parser.parse_args().names or BY_DEFAULT
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"unknown benchmark {', '.join(unknown)}: expected some of {', '.join(NAMES)}")
    for name in names:
        result = importlib.import_module(f"benchmarks.{name}").run()
        print(json.dumps({"benchmark": name, **result}), flush=True)


if __name__ == "__main__":
    main()
