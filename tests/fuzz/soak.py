"""Many users for a long time: python -m tests.fuzz.soak [--users 20] [--minutes 30].

A page as a Space serves it, with a model of the modern recipe's shape. Each user asks for a text, reads it for a few
seconds, asks again; some hang up in the middle. Every text must be the one that its prompt, seed and settings give
alone. Ends with 1 where one is not, where a request fails, where the memory still grows after the first fifth of the
time, or where something goes on computing when all have left."""

import argparse
import contextlib
import random
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.page import PARAMETERS, ask, make_model, request
from tests.fuzz.campaign import API, served

KINDS = 40
"""Different requests."""
TOKENS = 60
READING = 6.0
"""The longest pause of a user, in seconds."""
HANG_UP = 0.1
"""Share of the requests that nobody waits for."""
GROWTH = 0.10
"""Of the memory, from the first fifth of the time to the end."""
IDLE = 0.3
"""CPU seconds in two seconds, of a page that nobody asks for anything."""


@dataclass(kw_only=True)
class Count:
    """What happened so far."""

    texts: int = 0
    hung_up: int = 0
    full: int = 0  # the queue had no place, which is said at once
    seconds: list[float] = field(default_factory=list)  # that a text took
    wrong: list[str] = field(default_factory=list)


def use(address: str, number: int, expected: list[str], count: Count, end: float) -> None:
    """What one user does until the end."""
    draw = random.Random(number)
    while time.monotonic() < end:
        index = draw.randrange(KINDS)
        try:
            if draw.random() < HANG_UP:
                hang_up(address, index)
                count.hung_up += 1
            else:
                answer = ask(address, request(index, TOKENS))
                if answer["text"] is None and "queue is full" in answer["error"]:
                    count.full += 1
                elif answer["text"] != expected[index]:
                    count.wrong.append(f"request {index}: {answer['error'] or 'another text'}")
                else:
                    count.texts += 1
                    count.seconds.append(answer["end"])
        except httpx.HTTPError as error:
            count.wrong.append(f"request {index}: {type(error).__name__}: {error}")
        time.sleep(draw.random() * READING)


def hang_up(address: str, index: int) -> None:
    """Ask for a text and go after its first words."""
    values = request(index, TOKENS)
    place = f"{address}{API}/call/generate"
    with httpx.Client(timeout=120) as client:
        event = client.post(place, json={"data": [values[name] for name in PARAMETERS]}).json()["event_id"]
        with client.stream("GET", f"{place}/{event}") as answer:
            next(answer.iter_lines())


def soak(address: str, process: psutil.Process, *, users: int, minutes: float) -> bool:
    """Let the users write; print a line a minute; whether all is well."""
    expected = [ask(address, request(index, TOKENS))["text"] for index in range(KINDS)]
    count, begun = Count(), time.monotonic()
    end = begun + 60 * minutes
    threads = [threading.Thread(target=use, args=(address, number, expected, count, end)) for number in range(users)]
    for thread in threads:
        thread.start()
    memory: list[float] = []
    while time.monotonic() < end:
        time.sleep(min(6 * minutes, 60.0, max(0.1, end - time.monotonic())))
        memory.append(process.memory_info().rss / 1e6)
        passed = (time.monotonic() - begun) / 60
        print(f"{passed:.1f} min: {count.texts} texts, {len(count.wrong)} wrong, {memory[-1]:.0f} MB", flush=True)
    for thread in threads:
        thread.join()
    time.sleep(1.0)  # whoever hung up is noticed
    before = process.cpu_times().user
    time.sleep(2.0)
    idle = process.cpu_times().user - before
    is_same = ask(address, request(0, TOKENS))["text"] == expected[0]
    warm = memory[len(memory) // 5]
    growth = statistics.mean(memory[-3:]) / warm - 1
    print(
        f"{users} users, {minutes:g} minutes: {count.texts} texts, each the one of its seed, "
        f"{count.hung_up} hung up, {count.full} refused by a full queue, {len(count.wrong)} wrong\n"
        f"a text took {statistics.median(count.seconds):.1f} s (median), {max(count.seconds):.1f} s at most\n"
        f"memory {warm:.0f} MB after a fifth of the time, {memory[-1]:.0f} MB at the end ({growth:+.1%})\n"
        f"{idle:.1f} CPU seconds in two seconds afterwards; the same request: {'same' if is_same else 'ANOTHER'} text",
        *count.wrong[:20],
        sep="\n",
    )
    return not count.wrong and is_same and growth < GROWTH and idle < IDLE


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.soak", description=__doc__)
    parser.add_argument("--users", type=int, default=20, help="how many at once (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: %(default)g)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        home = Path(folder)
        make_model(home / "model")
        address, process, output = stack.enter_context(served("--model", "model", cwd=home, is_public=True))
        is_well = soak(address, process, users=given.users, minutes=given.minutes)
        if "Traceback" in (said := output.read_text(encoding="utf-8", errors="replace")):
            print(said[-20_000:])
            is_well = False
    if not is_well:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
