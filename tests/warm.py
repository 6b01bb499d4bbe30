"""Python processes that need not import torch and transformers first, which takes most of the time of a small test."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

QUICK = "import atexit, gc; gc.disable(); atexit.register(gc.freeze)\n"
"""Before a script that imports torch and transformers: spares it the search for garbage among what they import."""

WARM = """
import gc, json, os, runpy, sys
gc.disable()
from transformers import AutoTokenizer, GenerationMixin, PreTrainedModel
gc.freeze()
gc.enable()
for line in sys.stdin:
    words, folder, *files = json.loads(line)
    child = os.fork()
    if not child:
        for number, (file, mode) in enumerate(zip(files, (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY))):
            os.dup2(os.open(file, mode), number)
        sys.stdin = open(0)
        os.chdir(folder)
        sys.argv = {"-m": words[1:], "-c": ["-c", *words[2:]]}.get(words[0], words)
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            exec(words[1], {"__name__": "__main__"})
        else:
            runpy.run_path(words[0], run_name="__main__")
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class WarmPython:
    """`python WORDS` in a process forked from one that has torch and transformers imported, and nothing of ours.

    Libraries read their part of the environment when they are imported: it is that of the first process.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path, scratch: Path) -> None:
        self.process, self.folder = process, folder
        self.files = [scratch / name for name in ("stdin", "stdout", "stderr")]

    @classmethod
    @contextlib.contextmanager
    def start(cls, folder: Path, environment: dict[str, str], scratch: Path) -> Iterator["WarmPython"]:
        """Processes that work in `folder`; it ends with the block."""
        command = [sys.executable, "-c", WARM]
        with subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            yield cls(process, folder, scratch)

    def run(self, *words: str, typed: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Like `subprocess.run`."""
        assert self.process.stdin
        assert self.process.stdout
        for file, text in zip(self.files, (typed, "", ""), strict=True):
            file.write_text(text)
        task = (words, str(folder or self.folder), *map(str, self.files))
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        return subprocess.CompletedProcess(words, status, *(file.read_text() for file in self.files[1:]))
