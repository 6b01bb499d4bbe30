"""The tests of one mutant in a forked process: the libraries are loaded already, our packages are not."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import hypothesis
import pytest

from tests.mutation.areas import WARM

OURS = ("storage", "corpus", "modeling", "tokenization", "train", "hub_export", "panels", "tests", "conftest")
SURVIVED, KILLED, TIMEOUT = "survived", "killed", "time limit"
PROFILE = "mutation"


def warm_up(tree: Path) -> None:
    """Load the libraries, and have our packages found in the copy of the tree."""
    os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # loading anyio alone takes longer than most tests
    for name in WARM:
        importlib.import_module(name)
    # The same cases each time, and no search for the smallest one that fails.
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile(
        PROFILE, derandomize=True, database=None, deadline=None, max_examples=40, phases=phases
    )
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    checkout = Path(__file__).resolve().parents[2]
    sys.path[:] = [str(tree), *(place for place in sys.path if Path(place or ".").resolve() not in (tree, checkout))]
    os.chdir(tree)
    gc.freeze()  # else each process looks through all of it for garbage
    sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in repr(finder)]


def run_tests(tests: Sequence[str], cpu_seconds: float, seconds: float, log: Path) -> tuple[str, float, float]:
    """What became of the mutant that lies in the tree; the CPU seconds of its tests, and those on the clock.

    Args:
        cpu_seconds, seconds: how many it may take. An endless loop uses CPU seconds, a deadlock uses none.
    """
    began = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = os.fork()
    if not process:
        _run_in_child(tests, cpu_seconds, log)
    status = _wait(process, seconds)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)):
        return TIMEOUT, used, time.monotonic() - began
    return (SURVIVED if status == 0 else KILLED), used, time.monotonic() - began


def _run_in_child(tests: Sequence[str], cpu_seconds: float, log: Path) -> None:
    os.setsid()
    sys.dont_write_bytecode = True
    limit = int(cpu_seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    options = [
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "_hypothesis_pytestplugin",
        "-m",
        "not slow",
        f"--hypothesis-profile={PROFILE}",
    ]
    options += [
        f"--basetemp={log.with_name('pytest')}",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    ]  # the libraries are loaded before pytest begins
    code = 99
    try:
        code = int(pytest.main([*options, "--tb=short", *tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(process: int, seconds: float) -> int | None:
    """The status of a process; None where it did not end in time. What it has started is ended in any case."""
    deadline = time.monotonic() + seconds
    status = None
    while time.monotonic() < deadline:
        found, ended = os.waitpid(process, os.WNOHANG)
        if found:
            status = ended
            break
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    if status is None:
        os.waitpid(process, 0)
    return status
