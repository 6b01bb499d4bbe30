"""The time-lapse: the training's own samples, and a prompt of one's own with every checkpoint."""

import html
import json
import re
from pathlib import Path

import pytest

from modeling.generation import SamplingSettings
from panels.generate import generate
from panels.models import load_model
from panels.tabs.learn.timelapse import MOST_FRAMES, Frame, Timelapse, make_timelapse, render_timelapses, timelapses_of
from storage.run_folder import RunFolder
from tests.panels.tiny_model import save_checkpoint, save_masked_checkpoint

STRANGE = '</script><img src=x onerror=alert(1)> "quoted" \ud800'


def timelapses_on(page: str) -> list[dict]:
    found = re.search(r'data-timelapses="([^"]*)"', page)
    assert found
    return json.loads(html.unescape(found[1]))


def sample(step: int, prompt: str, text: str) -> dict:
    return {"step": step, "prompt": prompt, "text": text, "seed": 7}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with two checkpoints."""
    run = tmp_path_factory.mktemp("runs") / "two"
    for step, layers in ((10, 1), (20, 2)):
        save_checkpoint(run / "checkpoints" / f"step-{step:06d}", layers=layers)
    return run


def test_samples_become_time_lapses_in_the_order_of_their_steps() -> None:
    lines = [sample(20, "", "b"), sample(20, "A", "Ab"), sample(10, "", "a"), sample(20, "", "c"), {"step": 3}]
    found = timelapses_of(lines)
    assert [(each.prompt, [(frame.step, frame.text) for frame in each.frames]) for each in found] == [
        ("", [(10, "a"), (20, "c")]),
        ("A", [(20, "Ab")]),
    ]
    assert found[0].seed == 7


def test_the_page_gets_texts_and_losses_as_data_only() -> None:
    metrics = [{"step": 10, "validation_loss": 2.5, "bits_per_byte": 1.25}]
    samples = [sample(10, STRANGE, STRANGE + "x"), sample(20, STRANGE, "y")]
    page = render_timelapses(timelapses_of(samples), metrics, run="<b>")
    assert "<img" not in page
    assert "</script" not in page
    assert "<b>" not in page.replace("<b></b>", "")
    clean = STRANGE.replace("\ud800", "\ufffd")
    [shown] = timelapses_on(page)
    loss = "validation loss 2.5{}, 1.25 bits per byte".format
    assert shown["frames"] == [[10, loss(""), clean + "x", None], [20, loss(" at step 10"), "y", None]]
    assert shown["prompt"] == clean
    assert render_timelapses([], metrics) == ""


def test_samples_between_two_checkpoints_are_frames_with_the_nearest_loss() -> None:
    lines = [sample(step, "", str(step)) for step in (1, 3, 10, 30, 100, 300)] + [sample(100, "A", "checkpoint")]
    metrics: list[dict] = [{"step": step, "train_loss": 9.0 - step / 50} for step in range(5, 301, 5)]
    metrics[19] |= {"validation_loss": 6.54321, "bits_per_byte": 2.5}  # at step 100
    first, second = timelapses_on(render_timelapses(timelapses_of(lines), metrics))
    assert [(step, loss) for step, loss, *_ in first["frames"]] == [
        (1, "training loss 8.9 at step 5"),
        (3, "training loss 8.9 at step 5"),
        (10, "training loss 8.8"),
        (30, "training loss 8.4"),
        (100, "validation loss 6.543, 2.5 bits per byte"),
        (300, "training loss 3"),
    ]
    assert len(second["frames"]) == 1
    assert timelapses_on(render_timelapses(timelapses_of(lines[:1]), []))[0]["frames"] == [[1, "", "1", None]]


def test_a_long_time_lapse_is_thinned_to_its_ends() -> None:
    frames = tuple(Frame(step=step, text=str(step)) for step in range(1000))
    [shown] = timelapses_on(render_timelapses([Timelapse(prompt="", seed=None, frames=frames)], []))
    assert len(shown["frames"]) == MOST_FRAMES
    assert (shown["frames"][0][0], shown["frames"][-1][0]) == (0, 999)


def test_every_checkpoint_writes_what_it_writes_alone(run: Path) -> None:
    seen = list(make_timelapse(RunFolder(run), "The lamp", seed=5, tokens=12, should_stop=lambda: False))
    assert [(len(made.frames), expected) for made, expected in seen] == [(1, 2), (2, 2)]
    last = seen[-1][0]
    assert last.is_own
    assert [frame.step for frame in last.frames] == [10, 20]
    for frame in last.frames:
        loaded = load_model(run / "checkpoints" / f"step-{frame.step:06d}")
        *_, draft = generate(loaded, "The lamp", SamplingSettings(max_new_tokens=12, seed=5))
        assert frame.text == draft.text
    assert last.frames[0].text != last.frames[1].text


def test_a_checkpoint_that_cannot_be_read_says_so_and_the_others_write(run: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoints" / "step-000030")
    for step in (10, 20):
        broken = tmp_path / "checkpoints" / f"step-{step:06d}"
        broken.mkdir()
        (broken / "config.json").write_text("{}" if step == 10 else '{"model_type": "scratchgpt"')
    *_, (made, expected) = make_timelapse(RunFolder(tmp_path), "The lamp", seed=5, tokens=3, should_stop=lambda: False)
    assert expected == 3
    assert [bool(frame.trouble) for frame in made.frames] == [True, True, False]
    assert all((frame.trouble or "").startswith("This checkpoint could not be read: ") for frame in made.frames[:2])


def test_a_text_that_time_cuts_says_so(run: Path) -> None:
    lapse = {"seed": 5, "tokens": 1000, "should_stop": lambda: False}
    *_, (made, _) = make_timelapse(RunFolder(run), "The lamp", **lapse, time_limit=0.0)
    assert [frame.is_cut for frame in made.frames] == [True, True]
    [shown] = timelapses_on(render_timelapses([made], []))
    assert [note for _, note, *_ in shown["frames"]] == ["cut short: time was up"] * 2
    metrics = [{"step": 10, "train_loss": 3.0}]
    [shown] = timelapses_on(render_timelapses([made], metrics))
    assert shown["frames"][0][1] == "training loss 3 · cut short: time was up"


def test_a_time_lapse_stops_within_a_text(run: Path) -> None:
    asked = iter([False] * 10)
    frames = make_timelapse(RunFolder(run), "The lamp", seed=5, tokens=1000, should_stop=lambda: next(asked, True))
    assert not list(frames)


def test_what_has_no_time_lapse_is_refused(run: Path, tmp_path: Path) -> None:
    save_masked_checkpoint(tmp_path / "masked" / "checkpoints" / "step-000010")
    for folder, prompt, message in (
        (tmp_path, "", "has kept no checkpoint yet"),
        (run, "x" * 20_001, "expected at most 20,000 characters, since every checkpoint reads it again"),
        (tmp_path / "masked", "", "fills blanks and does not write"),
    ):
        with pytest.raises(ValueError, match=message):
            list(make_timelapse(RunFolder(folder), prompt, seed=1, tokens=1, should_stop=lambda: False))
