"""Visitors who ask before the model is there, in a process of their own: `python -m tests.panels.early_visitors RUN`.

Prints, as JSON, which imports of torch and transformers came outside `modeling.quick_imports`, and what each visitor
got. transformers replaces its module while it is imported: a thread that looks at it meanwhile sees an empty one."""

import json
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modeling
from storage.run_folder import RunFolder

HEAVY = ("torch", "transformers")
lock: Any = modeling._importing
unguarded: list[str] = []


class Watch:
    """A finder of modules that finds none: it notes who asks."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Note an import by a thread that does not hold the lock."""
        if name in HEAVY and not lock._is_owned():
            ours = [frame for frame in traceback.extract_stack() if "/panels/" in frame.filename][:-1]
            unguarded.append(f"{name} by {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else name)


class Waiting(threading.Event):
    """The loader's event, which counts who has waited for it."""

    def __init__(self) -> None:
        super().__init__()
        self.by: set[int] = set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, and be counted."""
        self.by.add(threading.get_ident())
        return super().wait(timeout)


def visits(context: Any, run: Path) -> Iterator[tuple[str, Any]]:
    """What visitors ask for, by name; each is called in a thread."""
    from panels.page import build_page
    from panels.request_queue import LatestRequest
    from panels.tabs.chat.conversation import answer
    from panels.tabs.inside.tab import run_analysis
    from panels.tabs.learn.estimate import SIZES, RunPlan
    from panels.tabs.learn.timelapse import make_timelapse
    from panels.tabs.tokens import tab as tokens
    from panels.tabs.tour.tab import TourState, run_tour

    size = next(iter(SIZES.values()))
    yield "plan", lambda: RunPlan.of(text_bytes=10**6, size=size, steps=100)
    yield "tour", lambda: list(run_tour(context, TourState(), "The lamp"))
    yield "inside", lambda: list(run_analysis(context, LatestRequest(), "The lamp", "Surprise"))
    yield "chat", lambda: list(answer(context, [{"role": "user", "content": "Hi"}], seed=1))
    yield "tokens", lambda: tokens.show(context, "The lamp", "none")
    yield "second", lambda: tokens.fetch(context, "bytes")
    lapse = {"seed": 1, "tokens": 2, "should_stop": lambda: False}
    yield "time-lapse", lambda: list(make_timelapse(RunFolder(run), "The lamp", **lapse))
    functions: dict[Any, Any] = {each.api_name: each.fn for each in build_page(context).fns.values()}
    for name in ("tokenize", "next_token", "surprise"):
        yield f"/{name}", lambda call=functions[name]: call("The lamp")
    yield "/generate", lambda: list(functions["generate"]("The lamp", 2))


def main(run: Path) -> None:
    """Let all ask, and load the model when all of them wait for it, or have their answer."""
    from panels.context import AppContext
    from panels.models import ModelLoader, find_model

    sys.meta_path.insert(0, Watch())
    loader = ModelLoader(find_model(run))
    loader.done = waiting = Waiting()
    got: dict[str, str] = {}

    def ask(name: str, call: Any) -> None:
        try:
            call()
            got[name] = "an answer"
        except Exception as error:
            got[name] = f"{type(error).__name__}: {error}"

    threads = [
        threading.Thread(target=ask, args=visit, daemon=True) for visit in visits(AppContext(loader=loader), run)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() and thread.ident not in waiting.by for thread in threads):
        threading.Event().wait(0.02)
    loader.start()
    for thread in threads:
        thread.join(120)
    print(json.dumps({"unguarded": unguarded, "got": got}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
