"""How long after the last step of its training a model can be written with, on the page that trained it.

`python app.py --bundle DIR --train RECIPE`, as `make demo` runs it, with its page in a browser; no restart. The clock
starts when the record of the last step stands in metrics.jsonl; it is read when the strip offers the model, when a
click on *Write with it* has brought it onto the page, and when Generate shows its first token.
"""

import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from benchmarks.page import CHROMIUM, ROOT, page_process
from storage.run_folder import RunFolder

TOKEN = "#document .layer .token"


def run(*, rounds: int = 3, recipe: str = "stories", steps: int = 40, port: int = 7897) -> dict[str, Any]:
    """Train, and take the model over.

    Args:
        rounds: trainings, one after the other.
        recipe: what `--train` gets.
        steps: of each.
        port: a port that nobody listens on.

    Returns:
        Seconds after the record of the last step, median and maximum: `finished` (checkpoint, samples and picture are
        written, and the run says so), `offered` (the strip has the button), `taken` (one click later, the page has the
        model), `first_token` (of a text that Generate begins). The script clicks at once.
    """
    found = [measure(recipe, steps, port) for _ in range(rounds)]
    summary = {
        name: {
            "median": round(statistics.median(each[name] for each in found), 2),
            "last": round(max(each[name] for each in found), 2),
        }
        for name in ("finished", "offered", "taken", "first_token")
    }
    return {"recipe": recipe, "steps": steps, "rounds": rounds, **summary}


def measure(recipe: str, steps: int, port: int) -> dict[str, float]:
    """Seconds from the record of the last step to each of the moments, in one training."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        home = Path(place)
        (home / "pretrained").symlink_to(ROOT / "pretrained")  # what the page writes with meanwhile
        words = ["--bundle", "bundle", "--train", recipe, "--run-dir", "runs/own", "--steps", str(steps)]
        with page_process(["--port", str(port), *words], cwd=home), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            page.set_default_timeout(600_000)
            page.goto(f"http://127.0.0.1:{port}")
            page.get_by_text("Ready.", exact=True).first.wait_for()
            moments: dict[str, float] = {}
            watcher = threading.Thread(
                target=watch, args=(RunFolder(home / "runs" / "own"), steps, moments), daemon=True
            )
            watcher.start()
            use = page.locator("#strip-use")
            use.wait_for()
            moments["offered"] = time.monotonic()
            use.click()
            page.locator("#model-notice").get_by_text("from now on").wait_for()
            moments["taken"] = time.monotonic()
            page.locator("#generate:not([disabled])").click()
            page.locator(TOKEN).first.wait_for(state="attached")
            moments["first_token"] = time.monotonic()
            watcher.join(timeout=10)
            browser.close()
    last = moments.pop("last_step")
    return {name: moment - last for name, moment in moments.items()}


def watch(run: RunFolder, steps: int, moments: dict[str, float]) -> None:
    """Note the moments `last_step`, at which the record of that step is there, and `finished`, when the run says so."""
    records = run.follow_metrics()
    while "finished" not in moments:
        seen = time.monotonic()
        records.read()
        if records.records and records.records[-1].get("step") == steps:
            moments.setdefault("last_step", seen)
            if run.peek_state().get("status") == "finished":
                moments["finished"] = seen
        time.sleep(0.01)
