"""Do the tests notice a fault? `make mutation`, or python -m tests.mutation [--area NAME] [--count N] [--seed N].

Puts small faults (`tests.mutation.mutants`) one at a time into a copy of the tree and runs the tests that mirror the
file. Of each file a sample is tried, the same for the same seed. Results are kept in `.mutation/`: what was tried is
not tried again, unless with `--again` (all) or `--survivors` (after new tests). A mutant that behaves like the original
is listed with its reason in equivalent.json. Ends with 1 where an area scores below --score percent.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tests.mutation.areas import AREAS
from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.worker import SURVIVED, run_tests, warm_up

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENT: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("equivalent.json").read_text("utf-8"))
LEAST_SECONDS = 4
"""CPU seconds that the tests of a mutant may take at least; else five times those of the original. On the clock it is
five times that of the original and a minute, since other things may run."""


def main() -> None:
    """Try the mutants that were not tried yet, and print the table."""
    parser = argparse.ArgumentParser(description="Puts faults into the code and looks whether the tests notice.")
    parser.add_argument("--area", choices=[*AREAS], action="append", help="(default: all)")
    parser.add_argument("--file", help="of one file only")
    parser.add_argument("--count", type=int, default=50, help="mutants of a file at most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (default: %(default)s)")
    parser.add_argument("--score", type=float, default=85, help="percent that must be noticed (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="try again what was tried")
    parser.add_argument("--survivors", action="store_true", help="try again what survived")
    parser.add_argument("--folder", type=Path, default=ROOT / ".mutation", help="results and tree (default: .mutation)")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    results = _read(folder / "results.jsonl")
    areas = {name: files for name, files in AREAS.items() if not arguments.area or name in arguments.area}
    chosen: dict[str, list[Mutant]] = {
        file: sample((ROOT / file).read_bytes(), arguments.count, arguments.seed)
        for files in areas.values()
        for file in files
        if arguments.file in (None, file)
    }

    def is_open(file: str, mutant: Mutant) -> bool:
        if mutant.name in EQUIVALENT.get(file, {}):
            return False
        before = results.get((file, mutant.name))
        return before is None or arguments.again or (arguments.survivors and before == SURVIVED)

    todo = {file: [mutant for mutant in mutants if is_open(file, mutant)] for file, mutants in chosen.items()}
    if any(todo.values()):
        tree = folder / "tree"
        _copy_tree(tree)
        warm_up(tree)
        tests = {file: tests for files in areas.values() for file, tests in files.items()}
        with tqdm(total=sum(map(len, todo.values())), desc="mutants", unit="") as bar:
            for file, mutants in todo.items():
                if mutants:
                    _try(folder, file, mutants, tests[file], results, bar)
    if not report(areas, chosen, results, arguments.score):
        raise SystemExit(1)


def sample(source: bytes, count: int, seed: int) -> list[Mutant]:
    """So many mutants of a file, in the order of its text; all where there are no more."""
    mutants = mutants_of(source)
    drawn = random.Random(seed).sample(mutants, min(count, len(mutants)))
    return sorted(drawn, key=lambda mutant: (mutant.start, mutant.end, mutant.text))


def _copy_tree(tree: Path) -> None:
    """The files that git knows, and those that it does not ignore."""
    shutil.rmtree(tree, ignore_errors=True)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)


def _try(
    folder: Path, file: str, mutants: list[Mutant], tests: list[str], results: dict[tuple[str, str], str], bar: Any
) -> None:
    path, log = folder / "tree" / file, folder / "log.txt"
    source = path.read_bytes()
    outcome, cpu_seconds, seconds = run_tests(tests, 600, 3600, log)
    if outcome != SURVIVED:
        raise SystemExit(f"{file}: its tests fail without any fault ({outcome}):\n{log.read_text()[-3000:]}")
    limit = max(LEAST_SECONDS, 5 * cpu_seconds)
    try:
        for mutant in mutants:
            bar.set_postfix_str(f"{file}:{mutant.line}")
            path.write_bytes(mutant.apply(source))
            outcome, used, _ = run_tests(tests, limit, 60 + 5 * seconds, log)
            results[file, mutant.name] = outcome
            record = {
                "file": file,
                "line": mutant.line,
                "mutant": mutant.name,
                "outcome": outcome,
                "cpu": round(used, 1),
            }
            with (folder / "results.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            if outcome == SURVIVED:
                tqdm.write(f"survived: {file}:{mutant.line} {mutant.name}")
            bar.update()
    finally:
        path.write_bytes(source)


def _read(path: Path) -> dict[tuple[str, str], str]:
    """The last outcome of each mutant."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(one["file"], one["mutant"]): one["outcome"] for one in map(json.loads, lines)}


def report(
    areas: dict[str, dict[str, list[str]]],
    chosen: dict[str, list[Mutant]],
    results: dict[tuple[str, str], str],
    least: float,
) -> bool:
    """Print what survived and a table in Markdown; whether every area scores at least so many percent."""
    rows, is_enough = [], True
    for area, files in areas.items():
        total = [0, 0, 0, 0]
        for file in filter(chosen.__contains__, files):
            equal = [mutant for mutant in chosen[file] if mutant.name in EQUIVALENT.get(file, {})]
            tried = [mutant for mutant in chosen[file] if mutant not in equal and (file, mutant.name) in results]
            survived = [mutant for mutant in tried if results[file, mutant.name] == SURVIVED]
            for mutant in survived:
                print(f"survived: {file}:{mutant.line} {mutant.name}")
            counts = [len(tried) + len(equal), len(tried) - len(survived), len(survived), len(equal)]
            rows.append(f"| {area} | `{file}` | {' | '.join(map(str, counts))} | {_percent(counts)} |")
            total = [before + count for before, count in zip(total, counts, strict=True)]
        is_enough &= total[1] >= least / 100 * (total[1] + total[2])
        rows.append(f"| {area} | all | {' | '.join(map(str, total))} | {_percent(total)} |")
    print("\n| area | file | tried | killed | survived | equivalent | score |\n|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    return is_enough


def _percent(counts: list[int]) -> str:
    """Killed of those that are no equivalents."""
    _, killed, survived, _ = counts
    return f"{100 * killed / (killed + survived):.0f} %" if killed + survived else "-"


if __name__ == "__main__":
    main()
