"""A process of several that is killed: the others end with a message, and the run continues as if nothing had been."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.distributed import FileStore  # pyright: ignore[reportPrivateImportUsage]

from storage.run_folder import RunFolder
from tests.train.test_processes import DDP, ROOT, TWO, same_curve, same_weights, train_debug
from train.device import is_lost_process, torch_errors_explained

PAIR = """
import os, sys
from pathlib import Path
import torch
from storage.run_folder import RunFolder
from train.device import torch_errors_explained

store = torch.distributed.FileStore(sys.argv[1] + "/store", 2)
rank = 0 if os.fork() else 1
torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
if rank:
    torch.distributed.barrier()  # the other one has found this one by then
    os._exit(9)
try:
    with torch_errors_explained(RunFolder(Path(sys.argv[1]))):
        torch.distributed.barrier()
        torch.distributed.all_reduce(torch.ones(1))
except ConnectionError as error:
    print(error)
    os._exit(3)
"""


def test_a_process_whose_partner_ends_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PAIR, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 3, done.stderr[-2000:]
    assert "expected 2 processes until the end of the run, but another one ended" in done.stdout
    assert "there is no checkpoint yet" in done.stdout
    assert "--resume" in done.stdout


def test_other_errors_of_torch_stay_what_they_are(tmp_path: Path) -> None:
    error = RuntimeError("[/pytorch/gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    assert not is_lost_process(error)  # one process alone loses nobody
    store = FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert is_lost_process(error)
        assert not is_lost_process(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
        with pytest.raises(RuntimeError, match="shapes"), torch_errors_explained(RunFolder(tmp_path)):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    finally:
        torch.distributed.destroy_process_group()


def workers_of(launcher: subprocess.Popen[str]) -> dict[int, int]:
    """The process of each rank that a launcher has started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    found = {}
    for child in map(int, children):
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found |= {int(value[5:]): child for value in variables if value.startswith(b"RANK=")}
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
@pytest.mark.parametrize("killed", [0, 1])
def test_one_of_two_launched_processes_is_killed(killed: int, tmp_path: Path) -> None:
    """The launcher ends too, and the same command continues to the weights of an unbroken run, bit for bit."""
    flags = ("--model.residual-dropout", "0.3", "--run.checkpoint-every", "5", "--run.keep-checkpoints", "9")
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    expected = train_debug(unbroken, *flags, launched=DDP)
    command = [sys.executable, "-m", "accelerate.commands.launch", *DDP, *TWO, "train", "debug"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    launcher = subprocess.Popen(
        [*command, "--run-dir", str(broken), *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 900
    while not (broken / "checkpoints" / "step-000005").exists():
        assert launcher.poll() is None, launcher.communicate()[1][-2000:]
        assert time.monotonic() < end
        time.sleep(0.02)
    workers = workers_of(launcher)
    os.kill(workers[killed], signal.SIGKILL)
    errors = launcher.communicate(timeout=300)[1]
    assert launcher.returncode
    assert f"Signal 9 (SIGKILL) received by PID {workers[killed]}" in errors
    # The launcher sends the other one SIGTERM within a tenth of a second, which may come before its own message.
    assert "expected 2 processes until the end of the run" in errors or "Signal 15 (SIGTERM)" in errors
    assert "/gloo/transport" not in errors
    assert not Path(f"/proc/{workers[1 - killed]}").exists()
    assert not RunFolder(broken).is_locked
    assert RunFolder(broken).state["status"] in (("running",) if killed == 0 else ("running", "failed"))
    assert same_curve(train_debug(broken, *flags, "--resume", launched=DDP), expected, rel=0)
    assert same_weights(broken, unbroken, 0, 0)
    assert RunFolder(broken).state["status"] == "finished"
    assert not [path for path in broken.rglob(".*") if path.name.endswith((".tmp", ".old"))]
