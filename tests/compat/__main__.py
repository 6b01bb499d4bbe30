"""Run published models with many versions of transformers: `python -m tests.compat [VERSION…] [--libraries [NAME…]]`.

Without arguments: the matrix of versions, a version that is too old, and the ends of the ranges of the other libraries,
each in a throw-away environment; then the tables of docs/compatibility.md are written. With VERSION (also one before
its release, such as 5.25.0rc1) only that one is run and its row printed; `--write` puts it into the page too. What was
run already with the same code is kept in .compat/, so the same command resumes where it was interrupted. Needs pip's
index. Exit status 1: a check failed.
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from modeling.configuration_scratchgpt import CODE_VERSION
from tests.compat import runs, tables
from tests.compat.bundles import code_key
from tests.compat.versions import LIBRARIES, MATRIX, ROOT, TOO_OLD, ends, read_version

CACHE = ROOT / ".compat"
Job = tuple[str, Callable[[], dict[str, Any]]]
"""What is run, in words, and how: the function returns a report."""


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    given = parse(arguments)
    CACHE.mkdir(exist_ok=True)
    try:
        facts = run_all(given)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command resumes with the next version")
    rows = {**facts["versions"], **facts["libraries"]}
    if facts["too_old"]:
        rows[facts["too_old"]["version"]] = facts["too_old"]
    if facts["versions"]:
        print(tables.version_table(facts["versions"]))
    if facts["libraries"]:
        print(tables.library_table(facts["libraries"]))
    print(tables.failures(rows), flush=True)
    if is_full(given) or given.write:
        tables.write_page(facts if is_full(given) else tables.merged(tables.read_facts(), facts))
        print(f"written: {tables.PAGE.relative_to(ROOT)}, {tables.FACTS.relative_to(ROOT)}")
    failed = [name for name, row in rows.items() if not tables.has_passed(row)]
    if failed:
        sys.exit(f"error: checks failed with {', '.join(failed)}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line's arguments; a mistake in them ends the process with a message."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=f"default: {MATRIX[0]} … {MATRIX[-1]}")
    parser.add_argument("--libraries", nargs="*", metavar="NAME", help=f"only {', '.join(LIBRARIES)}, or some of them")
    parser.add_argument("--write", action="store_true", help="put the rows into docs/compatibility.md")
    parser.add_argument("--again", action="store_true", help="do not take results that were kept")
    parser.add_argument("--keep", action="store_true", help="keep the environments, and use those that were kept")
    parser.add_argument("--environments", type=Path, default=CACHE / "environments", help="where they are made")
    given = parser.parse_args(arguments)
    try:
        given.versions = [read_version(version) for version in given.versions]
    except ValueError as error:
        parser.error(str(error))
    unknown = [name for name in given.libraries or () if name not in LIBRARIES]
    if unknown:
        parser.error(f"expected libraries among {', '.join(LIBRARIES)}, got {unknown[0]}")
    return given


def is_full(given: argparse.Namespace) -> bool:
    """Whether the command line asks for everything."""
    return not given.versions and given.libraries is None


def run_all(given: argparse.Namespace) -> dict[str, Any]:
    """The facts of what the command line asks for, in the form of docs/compatibility.json."""
    runner = runs.Runner(CACHE, given.environments, keep=given.keep, again=given.again)
    everything = is_full(given)
    versions = list(MATRIX) if everything else given.versions
    if versions:
        print(f"{len(runner.bundles)} bundles to check: {runner.bundles[0].parent}", file=sys.stderr)
    jobs: dict[str, Job] = {
        version: (f"transformers {version}", lambda version=version: runner.version(version)) for version in versions
    }
    if everything:
        jobs["too old"] = (f"transformers {TOO_OLD}, too old", lambda: runner.version(TOO_OLD, too_old=True))
    if everything or given.libraries is not None:
        for name in given.libraries or LIBRARIES:
            for specifier in ends(name):
                what = f"{name}{specifier}"
                jobs[what] = (what, lambda name=name, specifier=specifier: runner.library(name, specifier))
    return collect(run_jobs(jobs), code_key())


def run_jobs(jobs: dict[str, Job]) -> dict[str, dict[str, Any]]:
    """The reports, by the jobs' names; a line for each, with the time that those left may take."""
    reports: dict[str, dict[str, Any]] = {}
    started, fresh = time.monotonic(), 0
    for number, (name, (what, run)) in enumerate(jobs.items(), start=1):
        print(f"[{number:2} of {len(jobs)}] {what} …", end="", file=sys.stderr, flush=True)
        reports[name] = run()
        fresh += not reports[name]["kept"]
        left = (time.monotonic() - started) / max(fresh, 1) * (len(jobs) - number)
        count = len(reports[name]["checks"])
        passed = sum(check["passed"] for check in reports[name]["checks"])
        source = "kept" if reports[name]["kept"] else f"{reports[name]['seconds']:.0f} s"
        rest = f"; about {left / 60:.0f} min left" if fresh and left >= 60 else ""
        print(f" {passed} of {count} checks passed ({source}){rest}", file=sys.stderr, flush=True)
    return reports


def collect(reports: dict[str, dict[str, Any]], code: str) -> dict[str, Any]:
    """Facts from reports, by the names that `run_all` gives; `code` is the hash of the published files."""
    facts: dict[str, Any] = {
        **tables.no_facts(),
        "code": code,
        "scratchgpt": CODE_VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
    }
    for name, report in reports.items():
        row = tables.row_of(report)
        if name == "too old":
            facts["too_old"] = row | {"version": TOO_OLD}
        elif "library" in report:
            facts["libraries"][f"{report['library']}=={row['packages'][report['library']]}"] = row
        else:
            facts["versions"][name] = row
            facts["meaning"] |= report.get("meaning", {})
            facts["groups"] |= {check["check"]: check["group"] for check in report["checks"]}
    return facts


if __name__ == "__main__":
    main()
