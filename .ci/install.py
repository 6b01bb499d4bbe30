"""Runs pip and shows how far it is: packages, megabytes, time. `python .ci/install.py PYTHON -m pip install …`

On a terminal one line that moves, elsewhere a line every ten seconds. What pip says on standard error, its warnings and
errors, is shown as it comes; when pip fails, so is the end of what it said on standard output. Standard library only:
nothing is installed yet.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import TextIO

PAUSE_TERMINAL, PAUSE = 0.5, 10.0
"""Seconds between two lines."""
TAIL = 30
"""Lines of pip's that are shown when it fails."""
FILE = re.compile(r"(?:Downloading|Using cached) (\S+) \(([\d.]+) (bytes|kB|MB|GB)\)")
LOCAL = re.compile(r"Processing (\S+\.whl)\b")
IN_MB = {"bytes": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}


class Progress:
    """What is known of an installation from the lines of pip.

    Args:
        total: packages to come; 0: pip says it when it has collected them.
        site: the folder that they are installed into.
    """

    def __init__(self, total: int, site: Path) -> None:
        self.total, self.site = total, site
        self.found: set[str] = set()  # names of the packages so far
        self.megabytes = 0.0
        self.present = ""  # the file that is being fetched
        self.is_installing = False
        self._began, self._since = time.monotonic(), time.time() - 1

    def read(self, line: str) -> None:
        """Take in a line of pip's standard output."""
        line = line.strip()
        if line.startswith("Collecting "):
            self._take(re.split(r"[=<>!~;\[ ]", line.removeprefix("Collecting "), maxsplit=1)[0])
        elif found := LOCAL.match(line):
            path = Path(found[1])
            self._take(path.name.split("-")[0], path.stat().st_size / 1e6 if path.is_file() else 0.0)
        elif line.startswith("Ignoring "):  # a package of another platform
            self.total = max(0, self.total - 1)
        elif (found := FILE.match(line)) and not found[1].endswith(".metadata"):
            self._take(found[1].split("/")[-1].split("-")[0], float(found[2]) * IN_MB[found[3]])
        elif line.startswith("Installing collected packages: "):
            self.is_installing = True
            self.total = line.count(",") + 1

    def line(self) -> str:
        """The state in one line."""
        seconds = int(time.monotonic() - self._began)
        of = f" of {self.total}" if self.total else ""
        if self.is_installing:
            what = f"installing: {min(self._count(), self.total)}{of} packages"
        elif self.found:
            what = f"fetching: {len(self.found)}{of} packages (now {self.present})"
        else:
            what = "looking for packages"
        return f"{what}, {self.megabytes:.0f} MB, {seconds // 60}:{seconds % 60:02d}"

    def summary(self) -> str:
        """What was done."""
        seconds = round(time.monotonic() - self._began)
        count = self._count()
        packages = f"{count} package{'' if count == 1 else 's'}"
        return f"installed: {packages}, {self.megabytes:.0f} MB, {seconds // 60}:{seconds % 60:02d}"

    def _take(self, name: str, megabytes: float = 0.0) -> None:
        self.found.add(re.sub(r"[-_.]+", "-", name).lower())
        self.megabytes += megabytes
        self.present = f"{name}, {megabytes:.1f} MB" if megabytes else name

    def _count(self) -> int:
        """Packages that pip has put in place: it makes this folder with each."""
        folders = [folder for folder in self.site.glob("*.dist-info") if folder.exists()]
        return sum(folder.stat().st_mtime > self._since for folder in folders)


def locked(words: list[str]) -> int:
    """How many packages the `-r` files of a command of pip's name with an exact version."""
    files = [Path(word) for flag, word in zip(words, words[1:], strict=False) if flag in ("-r", "--requirement")]
    lines = (line for file in files if file.is_file() for line in file.read_text(encoding="utf-8").splitlines())
    return sum(bool(re.match(r"[A-Za-z0-9][\w.-]*==", line)) for line in lines)


def run(command: list[str], site: Path, sink: TextIO) -> int:
    """Run pip; show its progress on `sink`; its exit status."""
    progress, tail, over = Progress(locked(command), site), deque[str](maxlen=TAIL), threading.Event()
    moves = sink.isatty()

    def show() -> None:
        while not over.wait(PAUSE_TERMINAL if moves else PAUSE):
            sink.write(f"\r\x1b[K{progress.line()[: width() - 1]}" if moves else f"{progress.line()}\n")
            sink.flush()

    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, "--progress-bar", "off"], env=env, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as pip:
        assert pip.stdout is not None
        clock = threading.Thread(target=show, daemon=True)
        clock.start()
        for line in pip.stdout:
            tail.append(line)
            progress.read(line)
        pip.wait()
    over.set()
    clock.join()
    sink.write("\r\x1b[K" if moves else "")
    sink.write("".join(tail) if pip.returncode else f"{progress.summary()}\n")
    sink.flush()
    return pip.returncode


def width() -> int:
    """Columns of the terminal."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except OSError:
        return 80


def main() -> None:
    """The command line; it ends with pip's exit status."""
    command = sys.argv[1:]
    if not command:
        sys.exit("error: expected a command of pip, such as .venv/bin/python -m pip install -r requirements.lock")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([command[0], "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    try:
        sys.exit(run(command, Path(site), sys.stdout))
    except KeyboardInterrupt:
        sys.exit("\nerror: interrupted; the same command again goes on")


if __name__ == "__main__":
    main()
