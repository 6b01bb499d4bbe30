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
from panels.tabs.learn.curves import read_points
from panels.tabs.learn.timelapse import describe_loss
from storage.records import read_json_object, read_jsonl
from tests.serving import WAIT, Window, choose_option

STRANGE = "</script><img src=x onerror=alert(1)> ${1+1}"
RECORD = """
() => {
  window.seen = [];
  new MutationObserver(() => {
    const step = document.querySelector("#learn-timelapse .position")?.textContent.split(" ·")[0];
    if (step && window.seen.at(-1) !== step) window.seen.push(step);
  }).observe(document.querySelector("#learn-timelapse"), {subtree: true, childList: true, characterData: true});
}
"""


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
    window.page.locator("#learn-curves .loss .plot-area").wait_for()


@pytest.fixture
def tab(lab_page: Any) -> Any:
    """The page."""
    return lab_page


def paste(page: Any, text: str) -> None:
    """Put a text into the box in one go, as pasting does; typing 100,000 characters takes a browser minutes."""
    box = page.locator("#start-text textarea")
    box.evaluate("(box, text) => { box.value = text; box.dispatchEvent(new Event('input', {bubbles: true})); }", text)


def says(page: Any, selector: str, words: str, timeout: int = WAIT) -> str:
    """Wait until an element says so; what it says."""
    page.locator(selector).get_by_text(re.compile(words)).first.wait_for(timeout=timeout)
    return page.locator(selector).inner_text()


def test_the_curves_and_the_time_lapse_are_those_of_the_run(tab: Any, home: Path) -> None:
    run = home / "runs" / "lab"
    metrics, samples = read_jsonl(run / "metrics.jsonl"), read_jsonl(run / "samples.jsonl")
    points = json.loads(tab.locator("#learn-curves .curves").get_attribute("data-points"))
    assert [point[0] for point in points] == [line["step"] for line in metrics]
    for point, line in zip(points, metrics, strict=True):
        assert point[1] == pytest.approx(line["train_loss"], rel=1e-5)
        for column, name in ((2, "train_eval_loss"), (3, "validation_loss")):
            assert point[column] == (pytest.approx(line[name], rel=1e-5) if name in line else None)
    assert "train_eval_loss" in metrics[-1]
    state = tab.locator("#learn-status .run-status").inner_text()
    assert "Finished" in state
    assert f"step {metrics[-1]['step']} of" in state
    assert "python app.py --model runs/lab" in state
    assert "above the floor" in state

    # The keyboard goes from point to point, in all plots at once, and the text says where.
    readout = tab.locator("#learn-curves .loss .readout")
    area = tab.locator("#learn-curves .loss .plot-area")
    area.focus()
    area.press("Home")
    assert f"Step {metrics[0]['step']} · training {metrics[0]['train_loss']:.4g}" in readout.inner_text()
    area.press("ArrowRight")
    assert f"Step {metrics[1]['step']} · training {metrics[1]['train_loss']:.4g}" in readout.inner_text()
    assert area.get_attribute("aria-valuetext") == readout.inner_text()
    plots = tab.locator("#learn-curves .plot-area:visible").count()
    assert tab.locator("#learn-curves .cursor:visible").count() == plots >= 3
    area.press("End")
    assert f"validation {metrics[-1]['validation_loss']:.4g}" in readout.inner_text()
    area.hover(position={"x": 2, "y": 20})
    assert f"Step {metrics[0]['step']} " in readout.inner_text()

    tab.get_by_text("The numbers as a table").click()
    tab.locator("#learn-curves table").wait_for()
    assert tab.locator("#learn-curves table tbody tr").count() == len(metrics)
    names = tab.locator("#learn-curves table th").all_inner_texts()
    last = dict(zip(names, tab.locator("#learn-curves table tr").last.locator("td").all_inner_texts(), strict=True))
    assert last["Step"] == str(metrics[-1]["step"])
    assert float(last["Validation loss"]) == pytest.approx(metrics[-1]["validation_loss"], rel=1e-4)
    tab.get_by_text("The numbers as a table").click()
    tab.locator("#learn-curves .loss .zoom-choice input").check()
    assert tab.locator("#learn-curves .zoomed .plot-area").is_visible()
    assert not area.is_visible()
    tab.locator("#learn-curves .zoomed .zoom-choice input").uncheck()

    # The slider moves through the samples without asking anybody.
    requests: list[str] = []
    # The strip above the tabs asks whether something trains; nothing of this view does.
    tab.on("request", lambda request: "/training/state" in request.url or requests.append(request.url))
    slider, text, position = (tab.locator(f"#learn-timelapse {name}") for name in ("input", ".text", ".position"))
    frames: list[dict[str, Any]] = []
    for index, prompt in enumerate(dict.fromkeys(sample["prompt"] for sample in samples)):
        tab.locator("#learn-timelapse select").select_option(str(index))
        frames = [sample for sample in samples if sample["prompt"] == prompt]
        slider.press("Home")
        for frame in frames:
            assert text.evaluate("element => element.textContent") == frame["text"]
            loss = describe_loss(read_points(metrics), frame["step"])
            assert position.inner_text().startswith(f"Step {frame['step']} · {loss} · seed ")
            slider.press("ArrowRight")
    tab.evaluate(RECORD)
    tab.locator("#learn-timelapse .play").click()
    tab.wait_for_function("(count) => window.seen.length >= count", arg=len(frames))
    says(tab, "#learn-timelapse", "Play")
    assert tab.evaluate("window.seen") == [f"Step {frame['step']}" for frame in frames]
    assert requests == []


def test_a_prompt_of_ones_own_with_every_checkpoint(tab: Any, home: Path) -> None:
    tab.get_by_role("button", name="Continue a prompt of your own").click()
    tab.locator("#timelapse-prompt textarea").fill(STRANGE)
    tab.locator("#timelapse-seed").locator("input, textarea").fill("not a number")
    tab.locator("#timelapse-make").click()
    says(tab, "#timelapse-status", "seed")
    tab.locator("#timelapse-seed").locator("input, textarea").fill("11")
    tab.locator("#timelapse-length input[type=number]").fill("12")
    tab.locator("#timelapse-make").click()
    says(tab, "#timelapse-status", "Done: 2 of 2 checkpoints, seed 11")
    checkpoints = sorted((home / "runs" / "lab" / "checkpoints").glob("step-*"))
    slider, text = tab.locator("#learn-timelapse input"), tab.locator("#learn-timelapse .text")
    slider.press("Home")
    for folder in checkpoints:
        *_, draft = generate(load_model(folder), STRANGE, SamplingSettings(max_new_tokens=12, seed=11))
        assert text.evaluate("element => element.textContent") == draft.text
        assert text.locator("b").inner_text() == STRANGE
        slider.press("ArrowRight")
    assert tab.locator("#learn-timelapse img").count() == 0


def test_a_file_is_read_in_the_encoding_that_is_chosen(tab: Any, home: Path) -> None:
    from playwright.sync_api import expect

    (home / "letters.txt").write_bytes("Лампа горела тихо, и море было спокойно.\n".encode("cp1251") * 100)
    tab.get_by_role("button", name="Train on a text of your own").click()
    tab.locator("#start-file input[type=file]").set_input_files(home / "letters.txt")
    says(tab, "#start-plan", r"letters\.txt: .*cp1251.*Лампа горела")
    tab.locator("#start-encoding input").fill("klingon")
    tab.locator("#start-encoding input").press("Enter")
    says(tab, "#start-plan", "encoding: expected the name of an encoding")
    tab.locator("#start-encoding input").fill("cp1251")
    tab.locator("#start-encoding input").press("Enter")
    says(tab, "#start-plan", "On disk")
    expect(tab.locator("#start-plan .note")).to_have_count(0)
    tab.locator("#start-file").get_by_label("Clear").click()
    expect(tab.locator("#start-encoding")).to_be_hidden()
    tab.get_by_role("button", name="Train on a text of your own").click()


def test_a_time_is_chosen_instead_of_a_size(tab: Any) -> None:
    from playwright.sync_api import expect

    tab.get_by_role("button", name="Train on a text of your own").click()
    paste(tab, "The lamp burned low and the sea was quiet. " * 2000)
    tab.get_by_role("radio", name="the best for a time").check()
    says(tab, "#start-plan", r"about \d\.\d\d bits per byte of held-out text")
    expect(tab.locator("#start-steps")).to_be_hidden()
    tab.locator("#start-minutes input[type=number]").fill("45")
    tab.locator("#start-minutes input[type=number]").press("Tab")
    says(tab, "#start-plan", "45 min")
    tab.get_by_role("radio", name="tiny").check()
    says(tab, "#start-plan", "On disk")
    expect(tab.locator("#start-minutes")).to_be_hidden()
    expect(tab.locator("#start-steps")).to_be_visible()
    tab.get_by_role("button", name="Train on a text of your own").click()


def test_a_run_is_started_watched_stopped_and_lost(tab: Any, home: Path) -> None:
    from playwright.sync_api import expect

    tab.get_by_role("button", name="Train on a text of your own").click()
    tab.locator("#start-text textarea").fill("too short")
    says(tab, "#start-plan", "too short for the size tiny: expected at least 400 bytes, got 9")
    tab.locator("#start-run").click()
    says(tab, "#start-plan", "too short for the size tiny")
    paste(tab, ("The lamp burned low and the sea was quiet. " + STRANGE + "\n") * 1200)
    says(tab, "#start-plan", "133,568")
    tab.locator("#start-steps input[type=number]").fill("5000")
    tab.locator("#start-steps input[type=number]").press("Tab")
    says(tab, "#start-plan", "5.12 M tokens")
    tab.locator("#start-title").locator("input, textarea").fill("Lamp & <b>sea</b>")
    tab.locator("#start-run").click()
    says(tab, "#start-plan", "lamp-b-sea-b was started")
    says(tab, "#learn-status", "Preparing|Running")
    run = home / "runs" / "lamp-b-sea-b"
    tab.locator("#start-run").click()
    says(tab, "#start-plan", "One run at a time: lamp-b-sea-b is running")

    # The curves grow while it runs; what the reader opened and pointed at stays.
    says(tab, "#learn-status", "Running")
    tab.wait_for_function("document.querySelector('#learn-curves .curves')?.dataset.run === 'lamp-b-sea-b'")
    count = "JSON.parse(document.querySelector('#learn-curves .curves').dataset.points).length"
    tab.get_by_text("The numbers as a table").click()
    area = tab.locator("#learn-curves .loss .plot-area")
    area.focus()
    area.press("Home")
    first = tab.locator("#learn-curves .loss .readout").inner_text()
    before = tab.evaluate(count)
    tab.wait_for_function(f"{count} > {before}")
    assert tab.locator("#learn-curves .loss .readout").inner_text() == first
    assert tab.evaluate("document.activeElement.dataset.plot") == "loss"
    assert tab.locator("#learn-curves table tbody tr").count() == tab.evaluate(count)

    tab.locator("#learn-stop").click()
    says(tab, "#learn-status", "Stopped, saved")
    expect(tab.locator("#start-plan")).not_to_contain_text("is running")
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
    says(tab, "#learn-status", "Crashed: its process ended without saving")
    tab.locator("#learn-resume").wait_for()
    run.rename(home / "elsewhere")
    tab.get_by_role("button", name="Refresh").click()
    says(tab, "#learn-status", "This run's folder is missing")
    choose_option(tab, tab.locator("#learn-run input"), re.compile("lab · finished"))
    says(tab, "#learn-status", "Finished")
