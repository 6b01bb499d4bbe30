"""Parts of a benchmark that is run once, on a machine that costs money: none takes another with it.

Each is a process of its own, with a share of the time: after an error of CUDA a process can compute nothing more on the
GPU, the memory of one part would be missing in the next, and a compiler that hangs is ended from outside alone.
"""

import multiprocessing
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

TRACEBACK_LINES = 12
"""The last ones of a traceback are reported."""
SOFT_SHARE = 0.85
"""A section plans with this part of its time; the rest is for what it cannot plan, before it is ended."""

END_SECONDS = 5.0
"""That a process has for ending by itself after its result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of a benchmark.

    Args:
        name: of it.
        measure: called as `measure(*arguments, seconds=…)` in a process of its own, with the time to plan with; returns
            JSON values. A function of a module, and arguments that can be pickled. What has failed inside it without
            ending it is in its result under "errors".
        share: of the time, beside those of the other sections. What one leaves over goes to those after it.
    """

    name: str
    measure: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...] = ()
    share: float = 1.0


def run_sections(
    sections: Sequence[Section], seconds: float, report: Callable[[str, dict[str, Any]], None]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Measure them one after the other.

    Args:
        seconds: for all of them together.
        report: called with the name and the result of each as soon as it has ended: what `measure` returned, or under
            "error" the type, message and last lines of the traceback; and its seconds.

    Returns:
        The results by name, and the names of those that failed, wholly or in part.
    """
    end = time.monotonic() + seconds
    results: dict[str, dict[str, Any]] = {}
    for index, section in enumerate(sections):
        begun = time.monotonic()
        share = section.share / sum(other.share for other in sections[index:])
        result = _measure(section, max(0.0, end - begun) * share)
        results[section.name] = result | {"seconds of the section": round(time.monotonic() - begun, 1)}
        report(section.name, results[section.name])
    return results, [name for name, result in results.items() if "error" in result or result.get("errors")]


def describe_error(error: BaseException) -> dict[str, Any]:
    """Type, message and the last lines of the traceback, as JSON values."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return {"type": type(error).__name__, "message": str(error), "traceback": lines[-TRACEBACK_LINES:]}


def _measure(section: Section, seconds: float) -> dict[str, Any]:
    # Not a fork of this process, which CUDA does not survive; the server of the forks imports its modules once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([section.measure.__module__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, section, SOFT_SHARE * seconds))
    try:
        process.start()
        sender.close()
        if not receiver.poll(seconds):
            message = f"expected it to end within {seconds:.0f} s, its share of the time; it was ended"
            return {"error": {"type": "TimeoutError", "message": message, "traceback": []}}
        result = receiver.recv()
        process.join(END_SECONDS)
        return result
    except EOFError:
        process.join()
        message = f"its process ended with the exit code {process.exitcode} (below 0: by that signal)"
        return {"error": {"type": "ChildProcessError", "message": message, "traceback": []}}
    finally:
        if process.pid is not None:
            process.kill()  # one that does not end after its result, too: it must not disturb the next one
            process.join()
        receiver.close()


def _answer(sender: Connection, section: Section, seconds: float) -> None:
    try:
        result = section.measure(*section.arguments, seconds=seconds)
    except (Exception, SystemExit) as error:  # whatever it is, the others are measured
        result = {"error": describe_error(error)}
    sender.send(result)
