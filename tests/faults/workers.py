"""A training in two processes (DDP, gloo): all of it killed, or one of the two."""

import faulthandler
import functools
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

import train.__main__ as train_command
from tests.faults.injection import COUNT, KILL, KILLED, OFF, Ended, configure, run, status_of
from tests.faults.stages import TINY, Stage, broken_run, describe_problem, fresh, show_progress, weights

ALONE_SECONDS, LAUNCHER_SECONDS = 60.0, 30.0
"""How long a worker may take to end after the other one; then it gets SIGTERM, as a launcher sends it at once, and
SIGKILL after so many more seconds. Before the two have found each other, one waits half an hour for the other: torch's
default.
"""
OTHER = re.compile(r"^the other one ended with (-?\d+), (-?[\d.]+) s later$", re.MULTILINE)


def train_in_two(inputs: Path, out: Path, *, at: int = 0, rank: int | None = None, after: float | None = None) -> None:
    """What `accelerate launch --num_processes 2 -m train …` does, with forks: they need no seconds for their imports.

    The other worker has time to end by itself when one has ended, so that a hanging one is seen.

    Args:
        rank: the worker to kill, alone: at its call number `at`, or after so many seconds (default: none).
    """
    words = ["debug", *TINY, "--run.device", "cpu", "--steps", "12", "--run-dir", str(out / "run"), "--resume"]
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    os.environ |= {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
    }
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}

    def start(index: int) -> int:
        if worker := os.fork():
            return worker
        faulthandler.register(signal.SIGUSR1)
        os.environ |= {"RANK": str(index), "LOCAL_RANK": str(index)}
        if index == rank:
            os.setpgid(0, 0)  # the shim kills its process group
            configure(out, KILL if at else OFF, at)
        os._exit(status_of(lambda: train_command.main(words)))

    workers = {start(index): index for index in range(2)}
    begun = time.monotonic()
    ends: dict[int, float] = {}
    statuses: dict[int, int] = {}
    is_told = False
    while workers:
        worker, code = os.waitpid(-1, os.WNOHANG)
        now = time.monotonic()
        if worker:
            index = workers.pop(worker)
            statuses[index], ends[index] = os.waitstatus_to_exitcode(code), now
        elif ends and now - min(ends.values()) > ALONE_SECONDS + LAUNCHER_SECONDS:
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
        elif ends and now - min(ends.values()) > ALONE_SECONDS and not is_told:
            is_told = True
            for worker in workers:
                os.kill(worker, signal.SIGUSR1)  # it writes where it is
                time.sleep(1.0)
                os.kill(worker, signal.SIGTERM)
        elif rank is not None and after is not None and now - begun > after:
            after = None
            for worker in [worker for worker, index in workers.items() if index == rank]:
                os.kill(worker, signal.SIGKILL)
        else:
            time.sleep(0.002)
    if rank is not None and statuses[rank] == KILLED:
        print(f"\nthe other one ended with {statuses[1 - rank]}, {ends[1 - rank] - ends[rank]:.2f} s later")
    sys.exit(next((status % 256 for status in statuses.values() if status), 0))


TOGETHER = Stage("training in two processes", train_in_two, weights, broken_run, uses_inputs=False)
ALONE = Stage("one of two processes", train_in_two, weights, broken_run, uses_inputs=False)


def kill_workers(stage: Stage, inputs: Path, work: Path, kills: int, seed: int) -> str:
    """Kill one of the two workers many times; return a line of a table."""
    randomness = random.Random(f"{seed} workers")
    out = fresh(work / "unbroken")
    unbroken = run(lambda: train_in_two(inputs, out), out, mode=COUNT)
    assert unbroken.status == 0, unbroken.output
    expected = weights(out)
    counts, waits = Counter[str](), list[float]()
    for number in range(kills):
        rank = number % 2
        # The second process writes nothing, so it has no call to be killed at.
        at = randomness.randint(1, unbroken.calls) if not rank and number % 4 else 0
        after = None if at else randomness.uniform(0.0, 0.95 * unbroken.seconds)
        out = fresh(work / "killed")
        moment = f"call {at} of {unbroken.calls}" if at else f"{after:.2f} s of {unbroken.seconds:.2f} s"
        ended = run(
            lambda out=out, at=at, rank=rank, after=after: train_in_two(inputs, out, at=at, rank=rank, after=after), out
        )
        other = OTHER.search(ended.output)
        if other is None:
            counts["not killed"] += 1
            continue
        counts[f"rank {rank}"] += 1
        if int(other[1]) == -signal.SIGTERM:
            counts["told"] += 1
        else:
            waits.append(max(0.0, float(other[2])))
        problem = _judge_other(ended, int(other[1]))
        if broken := broken_run(out, expected):
            problem = f"incomplete under a final name: {broken}"
        problem = problem or describe_problem(
            stage, out, expected, run(functools.partial(train_in_two, inputs, out), out)
        )
        counts["survived"] += not problem
        show_progress(stage, number + 1, kills, counts["survived"])
        counts["finished"] += other[1] == "0"
        if problem:
            print(f"{stage.name}, rank {rank} killed at {moment}: {problem}", flush=True)
    tried = counts["rank 0"] + counts["rank 1"]
    waited = f"{sorted(waits)[len(waits) // 2]:.1f} s later (median; {max(waits):.1f} at most)" if waits else "never"
    which = f"(the first {counts['rank 0']}, the second {counts['rank 1']})"
    return (
        f"| SIGKILL: {stage.name} of a training | {tried} {which} | {counts['survived']} | the other one ended "
        f"{waited}, {counts['finished']} times with all done; by SIGTERM {counts['told']} times |"
    )


def _judge_other(ended: Ended, status: int) -> str | None:
    """What was wrong with the end of the worker that was not killed."""
    if status == KILLED:
        return f"the other one hung: {ended.output[-1500:]}"
    if status == -signal.SIGTERM:
        has_met = "in init_process_group" not in ended.output  # then it should have ended by itself
        return f"the other one had to be ended: {ended.output[-1500:]}" if has_met else None
    if status and ("Traceback" in ended.output or "another one ended or cannot be reached" not in ended.output):
        return f"the other one ended without a message ({status}): {ended.output[-1500:]}"
    return None
