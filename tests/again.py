"""`python -m tests.again`, after a run of pytest that failed: the files of few failures are tried once more, whole and
alone, in new processes with a new server and a new browser.

Hundreds of these tests race with something: a browser on a busy machine, a process that is killed, a folder that is
deleted while it is read. One that fails beside others and passes alone is named in the last line, since its failure
deserves a look all the same. One that fails twice counts, and so do more than `MOST`. `make test` calls it.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FAILED = Path(".pytest_cache/v/cache/lastfailed")
"""What pytest writes of a run: the names of the tests that failed; below the root."""
MOST = 3
"""Tests that may have failed."""


def files_to_repeat(failed: list[str]) -> list[str]:
    """The files of the tests of these names, each once; empty: the failures count as they are."""
    return sorted({name.partition("::")[0] for name in failed}) if len(failed) <= MOST else []


def main() -> int:
    """Repeat them; 0: they pass now."""
    failed = list(json.loads((ROOT / FAILED).read_text("utf-8"))) if (ROOT / FAILED).exists() else []
    files = files_to_repeat(failed)
    if not files:
        return 1
    print(f"\nOnce more, alone: {' '.join(files)}", flush=True)
    command = [sys.executable, "-m", "pytest", "-m", "not slow", *files]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    said = "failed again" if status else "failed beside other tests and passes alone; look at its failure above"
    print(f"{', '.join(failed)}: {said}", flush=True)
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(main())
