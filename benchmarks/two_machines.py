"""A training on two machines beside one on one of them: how much of the second machine's work arrives (efficiency).

Two network namespaces of this machine stand in for the machines, with one core each and gloo between them: the network
is as fast as memory, which a real one is not. Needs root and the command `ip`.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from storage.records import read_jsonl

ROOT = Path(__file__).parents[1]
PORT = "29571"
STEPS, WARM = 16, 4
MODEL = [
    "stories", "--corpus.stories", "300", "--model.hidden-size", "256", "--model.intermediate-size", "704",
    "--model.num-hidden-layers", "6", "--model.num-attention-heads", "4", "--model.max-position-embeddings", "256",
    "--data.batch-size", "16", "--data.evaluation-windows", "16", "--run.sample-tokens", "0", "--run.log-every", "4",
    "--run.evaluate-every", "1000", "--steps", str(STEPS),
]  # fmt: skip
"""The shape of `modern`, on stories."""


def run(rounds: int = 3) -> dict[str, Any]:
    """Seconds a step of 16 windows on one machine and shared by two, the two by turns; efficiency is one machine's
    seconds over twice those of two."""
    alone, together = [], []
    with machines() as names, tempfile.TemporaryDirectory() as made:
        for turn in range(rounds):
            for seconds, chosen in ((alone, names[:1]), (together, names)):
                folder = Path(made, f"{turn}-{len(chosen)}")
                for status, output in train_on(chosen, [folder] * len(chosen), MODEL):
                    if status:
                        raise RuntimeError(f"the training on {len(chosen)} machines failed:\n{output[-2000:]}")
                seconds.append(step_seconds(folder))
    one, two = map(statistics.median, (alone, together))
    efficiency = statistics.median(a / b / 2 for a, b in zip(alone, together, strict=True))
    return {
        "windows a step": 16,
        "one machine, seconds a step": one,
        "two, seconds a step": two,
        "efficiency": efficiency,
    }


def step_seconds(folder: Path) -> float:
    """Seconds a step of a run, without its first ones, and the last ones, which count the evaluation at the end."""
    lines = [line for line in read_jsonl(folder / "metrics.jsonl") if WARM <= line["step"] < STEPS]
    return statistics.median((b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairwise(lines))


@contextmanager
def machines() -> Iterator[list[str]]:
    """The names of two namespaces that reach each other as 10.77.0.1 and 10.77.0.2.

    Raises:
        ValueError: they cannot be made here.
    """
    names = [f"scratch{os.getpid()}{side}" for side in "ab"]
    if shutil.which("ip") is None or os.geteuid():
        raise ValueError("network namespaces: expected root and the command ip (package iproute2), got less")
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", "veth-a", "netns", names[0], "type", "veth", "peer", "veth-b", "netns", names[1])
        for name, side, address in zip(names, "ab", ("10.77.0.1/24", "10.77.0.2/24"), strict=True):
            _ip("-n", name, "addr", "add", address, "dev", f"veth-{side}")
            _ip("-n", name, "link", "set", f"veth-{side}", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield names
    except subprocess.CalledProcessError as error:
        raise ValueError(f"no network namespaces here: {error.stderr.decode().strip()}") from None
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def train_on(
    machines: Sequence[str], folders: Sequence[Path], *flags: Sequence[str], processes: int = 1
) -> list[tuple[int, str]]:
    """`python -m train …` on all machines at once, as `accelerate launch` starts it on each (on one of them: without),
    each with its run folder and one thread; exit status and output of each.

    Args:
        flags: of all machines, or those of each.
        processes: on each machine.
    """
    started = []
    for rank, (machine, folder) in enumerate(zip(machines, folders, strict=True)):
        launch = ["accelerate.commands.launch", "--multi_gpu", "--num_machines", "2"]
        launch += ["--num_processes", str(2 * processes)]
        launch += ["--machine_rank", str(rank), "--main_process_ip", "10.77.0.1", "--main_process_port", PORT]
        launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m"]
        train = ["train", *flags[rank % len(flags)], "--run-dir", str(folder), "--run.threads", "1"]
        command = [sys.executable, "-m", *(launch if len(machines) > 1 else []), *train]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": f"veth-{'ab'[rank]}"}
        command = ["ip", "netns", "exec", machine, *command]
        started.append(
            subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    outputs = [process.communicate(timeout=600)[0] for process in started]
    return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]
