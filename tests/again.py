"""`python -m tests.again`, after a run of pytest that failed: few failures in files that start the app or a browser are
tried once more, each file whole and alone, in new processes with a new server and a new browser.

On a busy machine Chromium crashes at times, or a page takes longer than anybody waits. A failure in any other file
counts at once, and so do more than `MOST` of these. `make test` calls it; what it did stands in its last line.
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


def files_to_repeat(failed: list[str], root: Path = ROOT) -> list[str]:
    """The files of the tests of these names, each once; empty: the failures count as they are."""
    files = sorted({name.partition("::")[0] for name in failed})
    return files if len(failed) <= MOST and all(starts_a_page(root / file) for file in files) else []


def starts_a_page(file: Path) -> bool:
    """Whether the tests of a file start `app.py` in a process of its own, or a browser."""
    return file.is_file() and (file.parent.name == "page" or "tests.serving" in file.read_text("utf-8"))


def main() -> int:
    """Repeat them; 0: they pass now."""
    failed = list(json.loads((ROOT / FAILED).read_text("utf-8"))) if (ROOT / FAILED).exists() else []
    files = files_to_repeat(failed)
    if not files:
        return 1
    print(f"\nOnce more, alone: {' '.join(files)}", flush=True)
    command = [sys.executable, "-m", "pytest", "-m", "not slow", *files]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    said = "failed again" if status else "failed beside other tests and passes alone"
    print(f"{', '.join(failed)}: {said}", flush=True)
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(main())
