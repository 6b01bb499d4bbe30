"""Disks that take nothing more, at every write in turn, and run folders that may only be read."""

from collections import Counter
from pathlib import Path
from typing import Any

from tests.faults.injection import COUNT, FULL, ONCE, READONLY, run
from tests.faults.stages import Stage, fresh, leftovers, show_progress, stages

FAULTS = {FULL: "no space", ONCE: "no space for one call"}
SHARES = {FULL: 1, ONCE: 4}
"""One call fails at so many times fewer calls than the disk is full from then on."""


def fill_disks(inputs: Path, work: Path, *, most: int, again_every: int, only: list[str], first: int = 1) -> list[str]:
    """A full disk and a folder that cannot be written, for each stage; the lines of a table.

    Args:
        most: calls of a stage from which on the disk is full; of more, so many are taken at even distances.
        again_every: the command is run again with room after every so many of them.
        only: names of the stages; none: all.
        first: the calls before this one were tried in an earlier run, with the disk full from then on; default: none.
    """
    lines = []
    for stage in stages():
        if only and stage.name not in only:
            continue
        out = fresh(work / "unbroken")
        unbroken = run(lambda out=out, stage=stage: stage.command(inputs, out), out, mode=COUNT)
        assert unbroken.status == 0, unbroken.output
        expected = stage.result(out)
        for mode in FAULTS:
            calls = range(first if mode == FULL else 1, unbroken.calls + 1)
            share = max(1, min(most, len(calls)) // SHARES[mode])
            lines.append(_fill(stage, inputs, work, mode, calls, expected, share, again_every))
            print(lines[-1], flush=True)
        lines.append(_lock(stage, inputs, work))
        print(lines[-1], flush=True)
    return lines


def _fill(
    stage: Stage, inputs: Path, work: Path, mode: int, calls: range, expected: Any, most: int, again_every: int
) -> str:
    counts: Counter[str] = Counter()
    for number, at in enumerate(calls[:: max(1, -(-len(calls) // most))]):
        out = fresh(work / "full")
        ended = run(lambda out=out: stage.command(inputs, out), out, mode=mode, at=at)
        counts["tried"] += 1
        broken = stage.broken(out, expected)
        problem = None
        if ended.status == 0:
            counts["ended well"] += 1
            problem = None if stage.result(out) == expected else "it says nothing, and the result is another"
        elif "Traceback" in ended.output or "no room" not in ended.output:
            problem = f"no message about the disk ({ended.status}): {ended.output[-900:]}"
        if broken:
            problem = f"incomplete under a final name: {broken}"
        if problem is None and ended.status and number % again_every == 0:
            again = run(lambda out=out: stage.command(inputs, out), out)
            counts["again"] += 1
            if again.status or stage.result(out) != expected or leftovers(out):
                problem = f"not continued ({again.status}): {leftovers(out)} {again.output[-900:]}"
        counts["survived"] += problem is None
        show_progress(stage, counts["tried"], most, counts["survived"])
        if problem:
            print(f"{stage.name}, {FAULTS[mode]} from call {at} of {calls[-1]} on: {problem}", flush=True)
    return (
        f"| {FAULTS[mode]}: {stage.name} | {counts['tried']} of {len(calls)} calls | {counts['survived']} | "
        f"ended well all the same {counts['ended well']}, continued with room {counts['again']} times |"
    )


def _lock(stage: Stage, inputs: Path, work: Path) -> str:
    out = fresh(work / "readonly")
    ended = run(lambda: stage.command(inputs, out), out, mode=READONLY)
    is_explained = bool(ended.status) and "Traceback" not in ended.output and str(out) in ended.output
    is_survived = is_explained and not any(out.iterdir())
    if not is_survived:
        print(f"{stage.name}, folder that cannot be written: {ended.status}: {ended.output[-900:]}", flush=True)
    return f"| read-only folder: {stage.name} | 1 | {int(is_survived)} | |"
