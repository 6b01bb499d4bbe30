"""Losses of power: what was not synced is lost. A model of ext4 with ordered metadata.

A run is recorded: every call that changes its folder, and the content of a file whenever it is synced. For a moment of
the record the folder is made as a disk could have it then: the changes of names up to some call at or after the last
sync (a sync commits all names before it), in their order, and of every file what was last synced of it, or nothing.
"""

import os
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.faults.injection import RECORD, run
from tests.faults.stages import find, fresh, leftovers


@dataclass(frozen=True, slots=True)
class Call:
    """A line of the record."""

    number: int
    kind: str  # create, truncate, sync, rename, link, mkdir, remove
    inode: int
    one: str
    two: str


def lose_power(inputs: Path, work: Path, *, losses: int, seed: int) -> list[str]:
    """Lose the power at random moments of a run, most of them while a checkpoint is written; the lines of a table."""
    stage, randomness = find("training"), random.Random(seed)
    out, notes = fresh(work / "power"), fresh(work / "notes")
    recorded = run(lambda: stage.command(inputs, out), out, mode=RECORD, notes=notes)
    assert recorded.status == 0, recorded.output
    expected = stage.result(out)
    calls = [_parse(line) for line in (notes / "calls").read_text().splitlines()]
    at_checkpoints = [call.number for call in calls if "/checkpoints" in call.one or "/checkpoints" in call.two]
    moments = [randomness.choice(at_checkpoints) for _ in range(losses)]
    survived = incomplete = 0
    for moment in moments:
        fresh(out)
        synced = max((call.number for call in calls if call.kind == "sync" and call.number <= moment), default=0)
        _replay(calls, out, notes, moment, names_until=randomness.randint(synced, moment))
        broken = stage.broken(out, expected)
        incomplete += bool(broken)
        again = run(lambda: stage.command(inputs, out), out)
        is_same = not again.status and stage.result(out) == expected and not leftovers(out)
        survived += is_same and not broken
        if broken or not is_same:
            print(
                f"power lost at call {moment}: incomplete {broken}, {leftovers(out)}: {again.output[-900:]}", flush=True
            )
    notes_column = f"incomplete under a final name: {incomplete}"
    return [f"| power lost while a checkpoint is written | {losses} | {survived} | {notes_column} |"]


def _parse(line: str) -> Call:
    number, kind, inode, one, two = line.split("\t")
    return Call(int(number), kind, int(inode), one, two)


def _replay(calls: list[Call], out: Path, notes: Path, moment: int, *, names_until: int) -> None:
    """Make the folder as the disk has it after a loss of power at call `moment`."""
    # Of an inode its number, and how often it was made or emptied: numbers are used again.
    files: dict[str, tuple[int, int]] = {}
    folders: list[str] = [str(out)]
    content: dict[tuple[int, int], bytes] = {}
    lives: Counter[int] = Counter()
    for call in calls:
        if call.number > moment:
            break
        lives[call.inode] += call.kind in ("create", "truncate")
        key = (call.inode, lives[call.inode])
        if call.kind == "sync" and (notes / str(call.number)).is_file():
            content[key] = (notes / str(call.number)).read_bytes()
        if call.number > names_until:
            continue
        if call.kind == "mkdir":
            folders.append(call.one)
        elif call.kind in ("create", "truncate"):
            files[call.one] = key
        elif call.kind == "sync" and key in files.values() and key != files.get(call.one):
            # safetensors renames by a system call of its own, which is not recorded; a sync commits it.
            files = {path: file for path, file in files.items() if file != key} | {call.one: key}
        elif call.kind == "link":
            files[call.two] = files[call.one]
        elif call.kind == "remove":
            files.pop(call.one, None)
            folders = [folder for folder in folders if folder != call.one]
        elif call.kind == "rename":
            files.pop(call.two, None)
            folders = [_moved(folder, call) for folder in folders]
            files = {_moved(path, call): file for path, file in files.items()}
    for folder in folders:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    for path, file in files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content.get(file, b""))


def _moved(path: str, call: Call) -> str:
    return call.two + path[len(call.one) :] if path == call.one or path.startswith(call.one + "/") else path
