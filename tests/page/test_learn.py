"""The Learn tab in a browser: a run's own numbers and texts, and a run that is started, watched, stopped and lost."""

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modeling.generation import SamplingSettings
from panels.generate import generate
from panels.models import load_model
from storage.records import read_json_object, read_jsonl
from tests.serving import Window

STRANGE = "</script><img src=x onerror=alert(1)> ${1+1}"
RECORD = """
() => {
  window.seen = [];
  new MutationObserver(() => {
    const step = document.querySelector("#learn-lapse .where").textContent.split(" ·")[0];
    if (window.seen.at(-1) !== step) window.seen.push(step);
  }).observe(document.querySelector("#learn-lapse"), {subtree: true, childList: true, characterData: true});
}
"""
SETTLED = 60_000  # milliseconds for a process to have begun, on a busy machine


@pytest.fixture(scope="module")
def home(lab_run: Path) -> Iterator[Path]:
    """Where the page looks for runs; no process that it started outlives these tests."""
    home = lab_run.parents[1]
    yield home
    for note in home.glob("runs/*/page.json"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(read_json_object(note)["pid"], signal.SIGKILL)


@pytest.fixture(scope="module", autouse=True)
def opened(window: Window) -> None:
    """The tab is open and up to date."""
    with window.page.expect_response(lambda response: '[null,"lab"]' in (response.request.post_data or "")):
        window.page.get_by_role("tab", name="Learn").click()  # the timer's first tick, after which nothing is asked
    window.page.locator("#learn-curves .loss .field").wait_for()


@pytest.fixture
def tab(lab_page: Any) -> Any:
    """The page."""
    return lab_page


def paste(page: Any, text: str) -> None:
    """Put a text into the box in one go, as pasting does; typing 100,000 characters takes a browser minutes."""
    box = page.locator("#start-text textarea")
    box.evaluate("(box, text) => { box.value = text; box.dispatchEvent(new Event('input', {bubbles: true})); }", text)


def says(page: Any, selector: str, words: str, timeout: int = 30_000) -> str:
    """Wait until an element says so; what it says."""
    page.locator(selector).get_by_text(re.compile(words)).first.wait_for(timeout=timeout)
    return page.locator(selector).inner_text()


def test_the_curves_and_the_time_lapse_are_those_of_the_run(tab: Any, home: Path) -> None:
    run = home / "runs" / "lab"
    metrics, samples = read_jsonl(run / "metrics.jsonl"), read_jsonl(run / "samples.jsonl")
    points = json.loads(tab.locator("#learn-curves .curves").get_attribute("data-points"))
    assert [point[0] for point in points] == [line["step"] for line in metrics]
    for point, line in zip(points, metrics, strict=True):
        assert point[2] == pytest.approx(line["train_loss"], rel=1e-5)
        assert point[3] == pytest.approx(line["validation_loss"], rel=1e-5) if "validation_loss" in line else True
    state = tab.locator("#learn-state .run-state").inner_text()
    assert "Finished" in state
    assert f"step {metrics[-1]['step']} of" in state
    assert "python app.py --model runs/lab" in state
    assert "above the floor" in state

    # The keyboard goes from point to point, in all plots at once, and the text says where.
    readout = tab.locator("#learn-curves .loss .readout")
    field = tab.locator("#learn-curves .loss .field")
    field.focus()
    field.press("Home")
    assert f"Step {metrics[0]['step']} · training {metrics[0]['train_loss']:.4g}" in readout.inner_text()
    field.press("ArrowRight")
    assert f"Step {metrics[1]['step']} · training {metrics[1]['train_loss']:.4g}" in readout.inner_text()
    assert field.get_attribute("aria-valuetext") == readout.inner_text()
    plots = tab.locator("#learn-curves .field:visible").count()
    assert tab.locator("#learn-curves .cursor:visible").count() == plots >= 3
    field.press("End")
    assert f"validation {metrics[-1]['validation_loss']:.4g}" in readout.inner_text()
    field.hover(position={"x": 2, "y": 20})
    assert f"Step {metrics[0]['step']} " in readout.inner_text()

    tab.get_by_text("The numbers as a table").click()
    tab.locator("#learn-curves table").wait_for()
    assert tab.locator("#learn-curves table tbody tr").count() == len(metrics)
    last = tab.locator("#learn-curves table tbody tr").last.locator("td").all_inner_texts()
    assert last[0] == str(metrics[-1]["step"])
    assert float(last[3]) == pytest.approx(metrics[-1]["validation_loss"], rel=1e-4)
    tab.get_by_text("The numbers as a table").click()
    tab.locator("#learn-curves .loss .closer input").check()
    assert tab.locator("#learn-curves .late .field").is_visible()
    assert not field.is_visible()
    tab.locator("#learn-curves .late .closer input").uncheck()

    # The slider moves through the samples without asking anybody.
    requests: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    reel, text, where = (tab.locator(f"#learn-lapse {name}") for name in ("input[type=range]", ".sheet", ".where"))
    for index, prompt in enumerate(dict.fromkeys(sample["prompt"] for sample in samples)):
        tab.locator("#learn-lapse select").select_option(str(index))
        frames = [sample for sample in samples if sample["prompt"] == prompt]
        reel.press("Home")
        for frame in frames:
            assert text.evaluate("element => element.textContent") == frame["text"]
            assert where.inner_text().startswith(f"Step {frame['step']} · validation loss ")
            reel.press("ArrowRight")
    frames = [sample for sample in samples if sample["prompt"] == samples[-1]["prompt"]]
    tab.evaluate(RECORD)
    tab.locator("#learn-lapse .play").click()
    tab.wait_for_function("(count) => window.seen.length >= count", arg=len(frames))
    says(tab, "#learn-lapse", "Play")
    assert tab.evaluate("window.seen") == [f"Step {frame['step']}" for frame in frames]
    assert requests == []


def test_a_prompt_of_ones_own_with_every_checkpoint(tab: Any, home: Path) -> None:
    tab.get_by_role("button", name="Write a prompt of your own").click()
    tab.locator("#film-prompt textarea").fill(STRANGE)
    tab.locator("#film-seed").locator("input, textarea").fill("not a number")
    tab.locator("#film-make").click()
    says(tab, "#film-state", "seed")
    tab.locator("#film-seed").locator("input, textarea").fill("11")
    tab.locator("#film-length input[type=number]").fill("12")
    tab.locator("#film-make").click()
    says(tab, "#film-state", "Done: 2 of 2 checkpoints, seed 11", SETTLED)
    checkpoints = sorted((home / "runs" / "lab" / "checkpoints").glob("step-*"))
    reel, text = tab.locator("#learn-lapse input[type=range]"), tab.locator("#learn-lapse .sheet")
    reel.press("Home")
    for folder in checkpoints:
        *_, draft = generate(load_model(folder), STRANGE, SamplingSettings(max_new_tokens=12, seed=11))
        assert text.evaluate("element => element.textContent") == draft.text
        assert text.locator("b").inner_text() == STRANGE
        reel.press("ArrowRight")
    assert tab.locator("#learn-lapse img").count() == 0


def test_a_run_is_started_watched_stopped_and_lost(tab: Any, home: Path) -> None:
    tab.get_by_role("button", name="Train on a text of your own").click()
    tab.locator("#start-text textarea").fill("too short")
    says(tab, "#start-plan", "too short for the size tiny: expected at least 400 bytes, got 9")
    tab.locator("#start-run").click()
    says(tab, "#start-plan", "too short for the size tiny")
    paste(tab, ("The lamp burned low and the sea was quiet. " + STRANGE + "\n") * 1200)
    says(tab, "#start-plan", "133,568", SETTLED)
    tab.locator("#start-steps input[type=number]").fill("5000")
    tab.locator("#start-steps input[type=number]").press("Tab")
    says(tab, "#start-plan", "5.12 M tokens")
    tab.locator("#start-title").locator("input, textarea").fill("Lamp & <b>sea</b>")
    tab.locator("#start-run").click()
    says(tab, "#start-plan", "lamp-b-sea-b is running")
    says(tab, "#learn-state", "Preparing|Running")
    run = home / "runs" / "lamp-b-sea-b"
    tab.locator("#start-run").click()
    says(tab, "#start-plan", "One run at a time: lamp-b-sea-b is running")

    # The curves grow while it runs; what the reader opened and pointed at stays.
    says(tab, "#learn-state", "Running", SETTLED)
    tab.wait_for_function("document.querySelector('#learn-curves .curves')?.dataset.run === 'lamp-b-sea-b'")
    count = "JSON.parse(document.querySelector('#learn-curves .curves').dataset.points).length"
    tab.get_by_text("The numbers as a table").click()
    field = tab.locator("#learn-curves .loss .field")
    field.focus()
    field.press("Home")
    first = tab.locator("#learn-curves .loss .readout").inner_text()
    before = tab.evaluate(count)
    tab.wait_for_function(f"{count} > {before}", timeout=SETTLED)
    assert tab.locator("#learn-curves .loss .readout").inner_text() == first
    assert tab.evaluate("document.activeElement.dataset.plot") == "loss"
    assert tab.locator("#learn-curves table tbody tr").count() == tab.evaluate(count)

    tab.locator("#learn-stop").click()
    says(tab, "#learn-state", "Stopped, saved", SETTLED)
    state = read_json_object(run / "run.json")
    assert state["status"] == "stopped"
    assert 0 < state["step"] < 5000
    assert (run / state["latest_checkpoint"] / "config.json").is_file()
    points = json.loads(tab.locator("#learn-curves .curves").get_attribute("data-points"))
    assert [point[0] for point in points] == [line["step"] for line in read_jsonl(run / "metrics.jsonl")]

    # One whose process was killed says it is running for ever, and is not believed.
    tab.locator("#learn-resume").wait_for()
    (run / "run.json").write_text(json.dumps(state | {"status": "running"}))
    tab.get_by_role("button", name="Refresh").click()
    says(tab, "#learn-state", "Crashed: its process ended without saving")
    tab.locator("#learn-resume").wait_for()
    run.rename(home / "elsewhere")
    tab.get_by_role("button", name="Refresh").click()
    says(tab, "#learn-state", "This run's folder is missing")
    tab.locator("#learn-run input").click()
    tab.get_by_role("option", name=re.compile("lab · finished")).click()
    says(tab, "#learn-state", "Finished")
