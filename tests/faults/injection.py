"""A command in a process of its own whose writes below a folder fail, or that is killed at one of them."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SHIM = Path(__file__).with_name("shim.c")
OFF, COUNT, KILL, FULL, READONLY, RECORD, ONCE = range(7)
"""What the shim does; see there."""
PRELOAD = "LD_PRELOAD"
KILLED = -signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int  # exit status; -9: killed
    calls: int  # that changed the folder, up to then
    seconds: float
    output: str


def begin_with_shim(module: str) -> None:
    """Start this Python again with the shim in it, unless it is; `module` is what runs.

    Raises:
        SystemExit: there is no C compiler, or the machine is not Linux.
    """
    if os.environ.get(PRELOAD, "").endswith("faults-shim.so"):
        ctypes.CDLL(None).faults_prepare()
        return
    if sys.platform != "linux":
        sys.exit("error: faults are injected by LD_PRELOAD: expected Linux, got another system")
    library = Path(tempfile.mkdtemp(prefix="faults-")) / "faults-shim.so"
    words = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SHIM), "-ldl", "-lpthread"]
    try:
        subprocess.run(words, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: expected a C compiler that makes {SHIM.name} ({error}); install one (apt-get install gcc)")
    environment = {**os.environ, PRELOAD: str(library), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], environment)


def run(
    command: Callable[[], None],
    folder: Path,
    *,
    mode: int = OFF,
    at: int = 0,
    notes: Path | None = None,
    kill_after: float | None = None,
    seconds: float = 900.0,
) -> Ended:
    """Run a command in a fork of this process, a session of its own.

    Args:
        folder: where calls are counted and spoilt.
        mode: what the shim does, from call `at` on.
        notes: folder for what `RECORD` notes.
        kill_after: seconds after which the session is killed.
        seconds: after so many it counts as hanging and is killed, with status 124.
    """
    shim = ctypes.CDLL(None)
    shim.faults_count.restype = ctypes.c_long
    with tempfile.TemporaryFile("w+") as log:
        begun = time.monotonic()
        child = os.fork()
        if not child:
            os.setsid()
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            configure(folder, mode, at, notes)
            os._exit(status_of(command))
        status, is_late = None, False
        while status is None:
            done, code = os.waitpid(child, os.WNOHANG)
            passed = time.monotonic() - begun
            if done:
                status = os.waitstatus_to_exitcode(code)
                if status == KILLED:
                    _wait_for_group(child)
            elif passed > (seconds if kill_after is None else min(kill_after, seconds)):
                is_late = passed > seconds
                try:
                    os.killpg(child, signal.SIGKILL)
                except ProcessLookupError:  # it has no session of its own yet
                    os.kill(child, signal.SIGKILL)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                _wait_for_group(child)
            else:
                time.sleep(0.002)
        log.seek(0)
        return Ended(124 if is_late else status, shim.faults_count(), time.monotonic() - begun, log.read()[-3000:])


def _wait_for_group(group: int, seconds: float = 5.0) -> None:
    """Wait until the killed processes that a command had started are gone too, and with them their locks."""
    end = time.monotonic() + seconds
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(group, 0)
            time.sleep(0.002)


def configure(folder: Path, mode: int, at: int = 0, notes: Path | None = None) -> None:
    """Set what the shim does below a folder in this process and those that it forks; the count begins again."""
    ctypes.CDLL(None).faults_configure(str(folder).encode(), mode, ctypes.c_long(at), str(notes or "").encode())


def status_of(command: Callable[[], None]) -> int:
    """Run a command of this project; its exit status, as a process of its own would have it."""
    try:
        command()
        status = 0
    except SystemExit as stopped:
        if isinstance(stopped.code, str):
            print(stopped.code, file=sys.stderr)
        status = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return status
