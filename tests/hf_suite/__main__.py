"""Run transformers' own common tests on our classes: `python -m tests.hf_suite [NAME…]`.

NAME picks test classes, such as ModernTest; without one, all run, each in a process of its own. Prints a Markdown table
of what passed, failed and was skipped, the failures, and the reasons of the skips. Needs the network once (pip).
"""

import argparse
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path

from tests.hf_suite.source import CACHE, ROOT, fetch, version

SUITES = {
    "ModernTest": "model_suite",
    "ClassicTest": "model_suite",
    "MaskedTest": "model_suite",
    "LlamaTest": "model_suite",
    "GPT2Test": "model_suite",
    "ScratchGPTTokenizerTest": "tokenizer_suite",
    "ByT5TokenizerTest": "tokenizer_suite",
    "ScratchGPTFastTokenizerTest": "tokenizer_suite",
    "GPT2TokenizerTest": "tokenizer_suite",
}
PEERS = ("LlamaTest", "GPT2Test", "ByT5TokenizerTest", "GPT2TokenizerTest")
OPTIONS = (
    *("-p", "no:xdist", "-p", "tests.hf_suite.plugin", "--quiet", "--tb=short", "--disable-warnings"),
    *("-o", "addopts=--import-mode=importlib", "-o", "filterwarnings=default"),
)
WORST_FIRST = ("failed", "passed", "skipped")


def run(name: str) -> dict[str, tuple[str, str]]:
    """Run one test class; from test to its result and, where it was skipped or failed, the reason."""
    report = CACHE / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", f"{Path(__file__).parent / SUITES[name]}.py::{name}", *OPTIONS]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "RUN_SLOW": "1"}
    done = subprocess.run(
        [*command, f"--junitxml={report}"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if not report.exists():
        raise OSError(f"the tests of {name} did not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return results(report)


def results(report: Path) -> dict[str, tuple[str, str]]:
    """What a JUnit report says of each test; of a test's parts the worst counts, and one that ran beats a skip."""
    found: dict[str, tuple[str, str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        outcome = ("passed", "")
        for child in case:
            if child.tag in ("skipped", "failure", "error"):
                message = (child.get("message") or "").strip().splitlines()
                outcome = ("skipped" if child.tag == "skipped" else "failed", message[0] if message else "")
        name = case.get("name") or ""
        found[name] = min(found.get(name, outcome), outcome, key=lambda result: WORST_FIRST.index(result[0]))
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.hf_suite", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SUITES))
    names = parser.parse_args().names or list(SUITES)
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        sys.exit(f"error: expected names among {', '.join(SUITES)}, got {unknown[0]}")
    try:
        fetch()
        found = {}
        for name in names:
            print(f"{name} …", file=sys.stderr, flush=True)
            found[name] = run(name)
    except OSError as error:
        sys.exit(f"error: {error}")
    show(found)
    if any(outcome == "failed" for name in names if name not in PEERS for outcome, _ in found[name].values()):
        sys.exit("error: tests of transformers failed on our classes")


def show(found: dict[str, dict[str, tuple[str, str]]]) -> None:
    """Print the table, the failures and the reasons of the skips."""
    print(f"transformers {version()}\n\n| suite | passed | failed | skipped |\n|---|---|---|---|")
    reasons: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, tests in found.items():
        count = Counter(outcome for outcome, _ in tests.values())
        print(f"| {name} | {count['passed']} | {count['failed']} | {count['skipped']} |")
        for test, (outcome, reason) in tests.items():
            if outcome == "skipped":
                reasons[reason][name].add(test)
    for name, tests in found.items():
        for test, (outcome, reason) in tests.items():
            if outcome == "failed":
                print(f"\nFAILED {name}.{test}: {reason}")
    print("\n| reason of a skip | tests |\n|---|---|")
    for reason, by_name in sorted(reasons.items(), key=lambda item: -max(map(len, item[1].values()))):
        print(f"| {reason} | {', '.join(f'{name} {len(tests)}' for name, tests in by_name.items())} |")


if __name__ == "__main__":
    main()
