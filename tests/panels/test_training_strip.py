"""The strip: which run it shows, what it says of each end, and when it sends nothing."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from filelock import FileLock

from panels.components.model_switch import ModelSwitch
from panels.components.training_strip import IDLE_TICK, LAST_TICK, PARTS, TICK, Seen, StripParts
from panels.context import AppContext
from panels.models import ModelLoader, find_model
from panels.training.companion import CompanionRun
from panels.training.launcher import launcher_of
from panels.training.monitor import RunView, monitor_of
from panels.training.strip import StripView, TrainingStrip, render_strip
from storage.run_folder import RunFolder
from tests.panels.tiny_model import save_checkpoint, save_run

STRANGE = "<b>lamp</b>"


@pytest.fixture
def context(tmp_path: Path) -> AppContext:
    """The page of a bundle, beside a finished run."""
    save_checkpoint(tmp_path / "bundle", layers=1)
    save_run(tmp_path / "runs" / "lamp")
    return AppContext(loader=ModelLoader(find_model(tmp_path / "bundle")), home=tmp_path, is_public=False)


@pytest.fixture
def lamp(context: AppContext) -> Iterator[RunFolder]:
    """The run, which another process trains."""
    run = RunFolder((context.home / "runs" / "lamp").resolve())
    monitor_of(run).interval, monitor_of(run).silence = 0.0, -1.0
    change(run, status="running", steps=100)
    with FileLock(run.path / ".lock"):
        yield run


def change(run: RunFolder, **values: object) -> None:
    (run.path / "run.json").write_text(json.dumps(run.peek_state() | values))


def append(run: RunFolder, name: str, **record: object) -> None:
    with (run.path / name).open("a") as stream:
        stream.write(json.dumps(record) + "\n")


def test_a_page_asks_more_often_when_a_run_is_about_to_end(context: AppContext, lamp: RunFolder) -> None:
    parts = StripParts(context, None)
    assert parts.state()["seconds"] == TICK  # nothing is known of its pace
    for step in (20, 30):
        append(lamp, "metrics.jsonl", step=step, seconds=step / 2, train_loss=1.0)
    parts.strip.refresh()
    assert parts.state()["seconds"] == TICK
    append(lamp, "metrics.jsonl", step=90, seconds=45.0, train_loss=1.0)
    parts.strip.refresh()
    assert parts.state()["seconds"] == LAST_TICK
    change(lamp, status="finished", step=100)
    parts.strip.refresh()
    assert parts.state()["seconds"] == IDLE_TICK


def test_a_run_that_somebody_trains_is_shown_with_its_numbers_and_its_latest_sample(
    context: AppContext, lamp: RunFolder
) -> None:
    for step in (20, 30):
        append(lamp, "metrics.jsonl", step=step, tokens_seen=10 * step, seconds=step / 2, train_loss=60 / step)
    append(lamp, "samples.jsonl", step=10, prompt="The", text="The …", seed=1)
    for prompt in ("The", "A second"):
        append(
            lamp, "samples.jsonl", step=30, prompt=prompt, text=f"{prompt} {STRANGE}\n burned " + "on " * 200, seed=1
        )
    shown = TrainingStrip(context).look()
    assert shown.run == lamp
    page = render_strip(shown)
    for words in ("Training lamp", "Running", "step 30 of 100", "35 s left", "loss 2.000", 'aria-valuenow="30"'):
        assert words in page
    assert "At step 30 it writes:" in page
    assert "<b>The</b> &lt;b&gt;lamp&lt;/b&gt; burned on on" in page
    assert page.count("on ") < 120
    change(lamp, max_seconds=20)
    assert "5 s left" in render_strip(TrainingStrip(context).look())  # the time limit comes first


def test_a_sample_after_a_long_prompt_shows_what_the_model_wrote(context: AppContext, lamp: RunFolder) -> None:
    prompt = "word " * 100 + "and the end:"
    append(lamp, "samples.jsonl", step=10, prompt=prompt, text=f"{prompt} The lamp " + "burned " * 100, seed=1)
    page = render_strip(TrainingStrip(context).look())
    assert "and the end:</b> The lamp burned burned" in page
    assert page.count("word ") < 20
    assert 30 < page.count("burned ") < 40


def test_nothing_is_sent_where_nothing_is_new(context: AppContext, lamp: RunFolder) -> None:
    parts = StripParts(context, ModelSwitch(context))
    seen = Seen()
    first = parts.begin(seen)
    assert not all(update == gr.skip() for update in first)
    parts.strip.refresh()
    assert all(update == gr.skip() for update in parts.follow(seen))
    append(lamp, "metrics.jsonl", step=40, seconds=20.0, train_loss=1.5)
    parts.strip.refresh()
    changed = parts.follow(seen)
    assert "loss 1.500" in str(changed)
    assert changed[PARTS.index("spoken")] == gr.skip()  # a screen reader hears what happens, no numbers
    other = Seen()
    assert "loss 1.500" in str(parts.begin(other))


def test_a_page_learns_of_the_models_that_a_run_makes(context: AppContext, lamp: RunFolder) -> None:
    parts, seen = StripParts(context, ModelSwitch(context)), Seen()
    first = parts.begin(seen)[PARTS.index("models")].splitlines()
    save_run(context.home / "runs" / "fresh")
    append(lamp, "metrics.jsonl", step=40, seconds=20.0, train_loss=1.5)
    parts.strip.refresh()
    assert {*parts.follow(seen)[PARTS.index("models")].splitlines()} - {*first} == {"runs/fresh"}


@pytest.mark.parametrize(("shown", "is_told"), [(1, True), (2, False), (None, True), (1e300, False)])
def test_a_page_that_shows_an_older_model_is_told_of_the_next(
    context: AppContext, shown: float | None, is_told: bool
) -> None:
    parts, seen = StripParts(context, ModelSwitch(context)), Seen()
    parts.begin(seen)
    first = context.version
    context.version += 2
    parts.after_switch(seen, None if shown is None else first + shown)
    assert parts.follow(seen)[-1] == (context.version if is_told else gr.skip())


def test_a_page_that_outlives_its_server_is_told_of_the_model_of_the_next(context: AppContext) -> None:
    parts = StripParts(context, ModelSwitch(context))
    assert parts.follow(Seen())[-1] == context.version  # what the old server knew of the page is lost
    time.sleep(0.002)
    assert AppContext(loader=context.loader).version > context.version


@pytest.mark.parametrize(
    ("state", "words", "can_use", "can_resume"),
    [
        ({"status": "finished"}, "Finished", True, False),
        (
            {"status": "finished", "cut_short": "The limit ended it.", "resume_command": "python -m train more"},
            "Finished, but cut short|The limit ended it.|It goes on with <code>python -m train more</code>",
            True,
            True,
        ),
        ({"status": "stopped", "cut_short": "stopped (SIGINT)"}, "Stopped, saved", True, True),
        ({"status": "running"}, "Crashed: its process ended without saving", True, True),
        ({"status": "failed"}, "Failed|error: the loss is infinite|trouble", True, True),
    ],
    ids=["finished", "cut short", "stopped", "crashed", "failed"],
)
def test_how_a_run_ended_stays_until_it_is_put_away(
    context: AppContext, state: dict[str, str], words: str, can_use: bool, can_resume: bool
) -> None:
    run = RunFolder((context.home / "runs" / "lamp").resolve())
    change(run, status="running", steps=100)
    strip = TrainingStrip(context)
    with FileLock(run.path / ".lock"):
        assert strip.refresh().message == "Running"
    monitor_of(run).interval, monitor_of(run).silence = 0.0, -1.0
    run.page_log.write_text("error: the loss is infinite\n")
    change(run, **{"latest_checkpoint": "checkpoints/step-000020"} | state)
    shown = strip.refresh()
    for each in words.split("|"):
        assert each.removeprefix("error: ") in render_strip(shown)
    assert (shown.can_use, shown.can_resume) == (can_use, can_resume)
    seen, parts = Seen(), StripParts(context, ModelSwitch(context))
    parts.strip = strip
    assert parts.begin(seen)[0]["visible"]
    assert not parts.put_away(seen)[0]["visible"]
    assert parts.begin(Seen())[0]["visible"]  # another visitor's is not


def test_a_run_that_had_ended_before_the_page_was_there_is_not_shown(context: AppContext) -> None:
    assert TrainingStrip(context).look().view is None
    parts = StripParts(context, ModelSwitch(context))
    assert not parts.begin(Seen())[0]["visible"]


def test_the_strip_goes_when_the_page_writes_with_the_run_except_where_it_was_cut_short(context: AppContext) -> None:
    run = RunFolder((context.home / "runs" / "lamp").resolve())
    change(run, status="running", latest_checkpoint="checkpoints/step-000020")
    strip = TrainingStrip(context)
    with FileLock(run.path / ".lock"):
        strip.refresh()
    monitor_of(run).interval = 0.0
    change(run, status="finished")
    assert strip.refresh().can_use
    context.switch(find_model(run.path))
    assert strip.refresh().view is None
    change(run, cut_short="The limit ended it.")
    shown = strip.refresh()
    assert (shown.message, shown.can_use) == ("Finished, but cut short", False)
    assert TrainingStrip(context).look().message == "Finished, but cut short"  # after a restart too
    context.switch(find_model(context.home / "bundle"))
    assert TrainingStrip(context).look().view is None


def test_a_run_that_vanishes_is_named(context: AppContext, lamp: RunFolder) -> None:
    strip = TrainingStrip(context)
    strip.refresh()
    lamp.path.rename(context.home / "away")
    assert "folder is missing" in render_strip(strip.refresh())


def test_what_is_wrong_beside_the_training_is_shown(context: AppContext) -> None:
    companion = CompanionRun(launcher_of(context.home), ["lamp"], tell=lambda line: None)
    context.companion = companion
    strip = TrainingStrip(context)
    assert strip.refresh() == StripView(0)
    companion.trouble = f"the text has changed: {STRANGE}"
    shown = strip.refresh()
    assert "the text has changed: &lt;b&gt;lamp" in render_strip(shown)
    assert shown.view is None


def test_the_last_error_of_a_run_without_a_recipe_says_what_to_do() -> None:
    view = RunView(name="lamp", status="failed")
    page = render_strip(StripView(1, run=RunFolder(Path("nowhere")), view=view, error="error: there is no file books"))
    assert "there is no file books. Fix that, and start the page again." in page


def test_a_run_that_has_ended_shows_the_figure_of_the_model_that_it_gives() -> None:
    figures: dict[str, Any] = {"bits_per_byte": 1.75, "best_bits_per_byte": 1.25, "loss": 2.0}
    ended = render_strip(StripView(1, view=RunView(name="lamp", status="finished", **figures)))
    assert "1.250 bits per byte at its best" in ended
    assert "1.750" not in ended
    assert "1.750 bits per byte" in render_strip(StripView(1, view=RunView(name="lamp", status="running", **figures)))
