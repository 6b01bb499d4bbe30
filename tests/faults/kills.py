"""SIGKILL anywhere: at a call that changes the folder, or at a moment; then the same command again."""

import random
from collections import Counter
from pathlib import Path

from tests.faults.injection import COUNT, KILL, KILLED, run
from tests.faults.stages import Stage, describe_problem, fresh, show_progress, stages
from tests.faults.workers import ALONE, TOGETHER, kill_workers

SHARES = {"training": 10, "search": 3, "bundling": 1, "Space making": 2}
"""How many kills a stage gets for each one that another gets."""
EVERY_CALL = ("download", "cleaning", "BPE training", "encoding")
"""Short stages, killed at every call in turn, beside the kills at a time."""


def kill_stages(inputs: Path, work: Path, *, kills: int, seed: int, only: list[str]) -> list[str]:
    """Kill each stage many times; return the lines of a table.

    Args:
        kills: in all, shared among the stages.
        only: names of the stages; none: all.
    """
    chosen = [stage for stage in [*stages(), TOGETHER, ALONE] if not only or stage.name in only]
    shares = [SHARES.get(stage.name, 2) for stage in chosen]
    lines = []
    for stage, share in zip(chosen, shares, strict=True):
        kill = kill_workers if stage is ALONE else _kill_stage
        lines.append(kill(stage, inputs, work, max(1, round(kills * share / sum(shares))), seed))
        print(lines[-1], flush=True)
    return lines


def _kill_stage(stage: Stage, inputs: Path, work: Path, kills: int, seed: int) -> str:
    randomness = random.Random(f"{seed} {stage.name}")
    out = fresh(work / "unbroken")
    unbroken = run(lambda: stage.command(inputs, out), out, mode=COUNT)
    assert unbroken.status == 0, unbroken.output
    expected = stage.result(out)
    counts: Counter[str] = Counter()
    moments = [randomness.randint(1, unbroken.calls) if number % 4 else 0 for number in range(kills)]
    if stage.name in EVERY_CALL:
        moments = [*range(1, unbroken.calls + 1), *(at for at in moments if not at)]
    for number, at in enumerate(moments, start=1):
        after = None if at else randomness.uniform(0.0, 0.9 * unbroken.seconds)
        out = fresh(work / "killed")
        command = lambda out=out: stage.command(inputs, out)  # noqa: E731
        moment = f"call {at} of {unbroken.calls}" if at else f"{after:.2f} s of {unbroken.seconds:.2f} s"
        ended = run(command, out, mode=KILL if at else COUNT, at=at, kill_after=after)
        if ended.status != KILLED:  # it was done before, as the next one of a time may be
            counts["not killed"] += 1
            continue
        counts["at a call" if at else "at a time"] += 1
        if broken := stage.broken(out, expected):
            counts["incomplete"] += 1
            print(f"{stage.name}, killed at {moment}: incomplete under a final name: {broken}", flush=True)
        problem = describe_problem(stage, out, expected, run(command, out))
        counts["failed" if problem else "survived"] += 1
        show_progress(stage, number, len(moments), counts["survived"])
        if problem:
            print(f"{stage.name}, killed at {moment}: {problem}", flush=True)
    tried, which = counts["at a call"] + counts["at a time"], "each of" if stage.name in EVERY_CALL else "one of"
    return (
        f"| SIGKILL: {stage.name} | {tried} ({counts['at a call']} at {which} {unbroken.calls} calls, "
        f"{counts['at a time']} at a time) | {counts['survived']} | incomplete under a final name: "
        f"{counts['incomplete']} |"
    )
