"""The page's model is changed in a browser, by one of two visitors, while the other one writes."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from panels.generate import generate
from panels.models import load_model
from panels.sampling import settings_from
from storage.run_folder import RunFolder
from tests.page.writing import opened
from tests.panels.tiny_model import save_checkpoint, save_masked_checkpoint, save_run
from tests.serving import SEED, Window, button, choose_option, free_port, serving, set_length, wait_until

LISTENERS = """() => {
  const { components, dependencies } = window.gradio_config;
  const { id } = components.find((each) => each.props.elem_id === "model-choice");
  return dependencies.filter((each) => each.targets.some(([target]) => target === id)).map((each) => each.id);
}"""
"""The events of the field of the head."""
SLOW = """() => {
  const data = document.querySelector("#next-numbers [data-turn]");
  data.dataset.next = JSON.stringify({ ...JSON.parse(data.dataset.next), seconds: 9 });
  data.dataset.turn += " slow";
}"""
"""The last numbers of the bars again, as of a model that took nine seconds for them."""
DOCUMENT = "#document-text"
"""The text of the Write tab; once another kind of model was there, Fill in has a field of the same name."""


@pytest.fixture(scope="module")
def home(lab_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a model that is slow enough to be switched while it writes, one for blanks, and one whose weights lack
    layers."""
    home = tmp_path_factory.mktemp("models")
    shutil.copytree(lab_run, home / "runs" / "lab")
    save_checkpoint(home / "bundles" / "slow", layers=128)
    save_masked_checkpoint(home / "bundles" / "blanks")
    broken = save_checkpoint(home / "bundles" / "broken")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    return home


@pytest.fixture(scope="module")
def windows(browser: Any, home: Path) -> Iterator[tuple[Window, Window]]:
    """The page of the slow model, as two visitors see it."""
    with serving("bundles/slow", cwd=home) as (address, _):
        windows = Window(browser, address), Window(browser, address)
        yield windows
        for window in windows:
            window.page.close()


@pytest.fixture
def pages(windows: tuple[Window, Window]) -> Iterator[tuple[Any, Any]]:
    """The two pages, as the test before left them."""
    with windows[0].lent() as first, windows[1].lent() as second:
        yield first, second


def choose(page: Any, label: str) -> None:
    """Choose in the field of the head."""
    choose_option(page, page.locator("#model-choice input"), label)


def text_of(folder: Path, prompt: str, tokens: int) -> str:
    """What the model of a folder writes with seed 5."""
    return list(generate(load_model(folder), prompt, settings_from(seed=5, max_new_tokens=tokens)))[-1].text


def heading(page: Any) -> Any:
    return page.locator("#masthead h1")


def test_who_writes_ends_with_the_model_that_he_began_with_and_all_see_the_new_one(
    pages: tuple[Any, Any], home: Path
) -> None:
    from playwright.sync_api import expect

    writer, other = pages
    writer.locator(DOCUMENT).fill("The lamp")
    writer.locator(SEED).fill("5")
    set_length(writer, 200)
    button(writer, "Generate").click()
    expect(writer.locator("#status")).to_contain_text("tokens/s")
    choose(other, "Run lab, its best checkpoint")
    expect(heading(other)).to_have_text("lab")
    expect(heading(writer)).to_have_text("lab")
    expect(writer).to_have_title("lab · ScratchGPT")
    button(writer, "Continue").wait_for()
    expected = list(
        generate(load_model(home / "bundles" / "slow"), "The lamp", settings_from(seed=5, max_new_tokens=200))
    )
    shown = expected[-1].text.replace("\r\n", "\n").replace("\r", "\n")  # as every field of a browser has it
    assert writer.locator(DOCUMENT).input_value() == shown

    writer.locator(DOCUMENT).fill("One day")
    set_length(writer, 10)
    button(writer, "Generate").click()
    button(writer, "Continue").wait_for()
    assert writer.locator(DOCUMENT).input_value() == text_of(home / "runs" / "lab", "One day", 10)


@pytest.mark.slow  # after it the list of models may still be drawn anew when the next test opens it
def test_a_model_for_blanks_brings_its_tab_and_goes_with_it(pages: tuple[Any, Any]) -> None:
    from playwright.sync_api import expect

    page, other = pages
    page.locator(DOCUMENT).fill("A text that stays")
    choose(page, "Bundle bundles/blanks")
    expect(heading(page)).to_have_text("blanks")
    for each in (page, other):
        expect(each.get_by_role("tab", name="Fill in", exact=True)).to_have_attribute("aria-selected", "true")
        expect(each.get_by_role("tab", name="Write", exact=True)).to_have_count(0)
    page.locator("#fill-text textarea").fill("The lamp ____ low.")
    button(page, "Fill in").click()
    expect(page.locator("#candidates")).to_contain_text("Blank 1")

    page.locator("#model-choice input").fill("runs/lab")  # what is no choice may be typed
    page.locator("#model-choice input").press("Enter")
    expect(heading(page)).to_have_text("lab")
    expect(page.get_by_role("tab", name="Write", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("tab", name="Fill in", exact=True)).to_have_count(0)
    expect(page.locator(DOCUMENT)).to_have_value("A text that stays")


def test_a_model_that_cannot_be_had_is_told_and_the_old_one_stays(pages: tuple[Any, Any], home: Path) -> None:
    from playwright.sync_api import expect

    page, _ = pages
    choose(page, "Bundle bundles/broken")
    notice = page.locator("#model-notice")
    expect(notice).to_contain_text("Not this model: bundles/broken is incomplete: its weights lack")
    expect(notice).to_contain_text("The page keeps its model, lab.")
    expect(page.locator("#model-choice input")).to_have_value("lab")
    shutil.rmtree(home / "bundles" / "broken")
    choose(page, "Bundle bundles/broken")
    expect(notice).to_contain_text("there is no folder bundles/broken")
    expect(heading(page)).to_have_text("lab")
    button(page, "Generate").or_(button(page, "Continue")).first.click()
    expect(page.locator("#status")).to_contain_text(re.compile(r"\d+ tokens"))


def test_a_field_that_is_left_asks_the_server_for_nothing(pages: tuple[Any, Any]) -> None:
    """Gradio sends `input` then, and drops a choice that is made before it is answered."""
    page, _ = pages
    listeners = page.evaluate(LISTENERS)
    assert listeners
    asked: list[Any] = []
    page.on("request", lambda request: asked.append(request.post_data_json) if "queue/join" in request.url else None)
    page.locator("#model-choice input").click()
    page.locator("#model-choice input").blur()
    page.wait_for_timeout(500)
    assert not [each for each in asked if each["fn_index"] in listeners]


def test_escape_takes_back_what_was_typed_into_the_field(pages: tuple[Any, Any]) -> None:
    from playwright.sync_api import expect

    page, _ = pages
    field, listeners = page.locator("#model-choice input"), page.evaluate(LISTENERS)
    before = field.input_value()
    asked: list[Any] = []
    page.on("request", lambda request: asked.append(request.post_data_json) if "queue/join" in request.url else None)
    field.fill("nobody/no")
    field.press("Escape")
    expect(field).to_have_value(before)
    field.blur()
    page.wait_for_timeout(500)
    assert not [each for each in asked if each["fn_index"] in listeners]


def test_compare_keeps_what_was_chosen_when_another_visitor_switches(pages: tuple[Any, Any]) -> None:
    from playwright.sync_api import expect

    page, other = pages
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.get_by_label("Prompt for both").fill("mine")
    page.get_by_role("button", name="Careful and wild settings").click()
    expect(page.get_by_label("Same settings as A")).not_to_be_checked()
    note = page.locator("#compare-note-a").inner_text()
    choose(other, "Bundle bundles/slow")
    expect(heading(page)).to_have_text("slow")
    expect(page.locator("#compare-note-a")).not_to_have_text(note)
    expect(page.get_by_label("Same settings as A")).not_to_be_checked()
    expect(page.get_by_label("Prompt for both")).to_have_value("mine")
    choose(other, "Run lab, its best checkpoint")
    expect(heading(page)).to_have_text("lab")
    page.get_by_role("tab", name="Write", exact=True).click()


def test_the_bars_of_a_model_that_follows_a_slow_one_come_by_themselves(pages: tuple[Any, Any]) -> None:
    from playwright.sync_api import expect

    page, other = pages
    stale = page.locator("#bars .next-token.stale")
    page.locator(DOCUMENT).fill("The lamp is")
    expect(stale).to_have_count(0)
    expect(page.locator("#bars .tail")).to_have_text("after The lamp is")

    def looks_only_when_asked() -> bool:
        page.evaluate(SLOW)
        page.wait_for_timeout(500)  # the data is looked at ten times a second
        page.locator(DOCUMENT).fill("The lamp is")
        page.locator(DOCUMENT).fill("The lamp was")
        page.wait_for_timeout(1500)
        return stale.count() == 1

    wait_until(looks_only_when_asked)  # the numbers that a switch before asked for may come late
    choose(other, "Bundle bundles/slow")
    expect(heading(page)).to_have_text("slow")
    expect(page.locator("#bars .tail")).to_have_text("after The lamp was")
    expect(stale).to_have_count(0)
    choose(other, "Run lab, its best checkpoint")
    expect(heading(page)).to_have_text("lab")


def test_learn_takes_the_run_that_it_shows(pages: tuple[Any, Any]) -> None:
    from playwright.sync_api import expect

    page, other = pages
    page.get_by_role("tab", name="Learn", exact=True).click()
    expect(page.locator("#learn-status")).to_contain_text("Finished")
    expect(page.locator("#learn-use")).to_be_hidden()  # it is the page's model
    choose(other, "Bundle bundles/slow")
    expect(heading(page)).to_have_text("slow")
    page.locator("#learn-use").click()
    expect(page.get_by_role("tab", name="Write", exact=True)).to_have_attribute("aria-selected", "true")
    expect(heading(page)).to_have_text("lab")
    expect(heading(other)).to_have_text("lab")
    page.get_by_role("tab", name="Learn", exact=True).click()
    expect(page.locator("#learn-use")).to_be_hidden()


def test_a_run_that_is_trained_meanwhile_can_be_chosen_without_a_reload(pages: tuple[Any, Any], home: Path) -> None:
    from playwright.sync_api import expect

    page, _ = pages
    run = RunFolder(save_run(home / "runs" / "fresh"))
    run.write_state(run.peek_state() | {"status": "running", "steps": 100})
    with run.lock():
        expect(page.locator("#strip-shown")).to_contain_text("Training fresh")
        choose(page, "Run fresh, its best checkpoint")
        expect(heading(page)).to_have_text("fresh")
        page.get_by_role("tab", name="Compare", exact=True).click()
        expect(page.locator("#compare-note-b")).to_contain_text("parameters")
        save_checkpoint(run.path / "checkpoints" / "step-000040")
        run.write_state(run.peek_state() | {"step": 40})
        expect(page.locator("#strip-shown")).to_contain_text("step 40")
        choose_option(page, page.get_by_label("Model B"), "Step 40 of fresh")
    run.write_state(run.peek_state() | {"status": "finished"})
    page.get_by_role("tab", name="Write", exact=True).click()
    choose(page, "Run lab, its best checkpoint")
    expect(heading(page)).to_have_text("lab")


def test_a_page_that_outlives_its_server_shows_the_model_of_the_next(browsing: Any, home: Path) -> None:
    from playwright.sync_api import expect

    port = free_port()
    with serving("bundles/slow", cwd=home, port=port) as (address, _):
        page = opened(browsing, address)
        expect(heading(page)).to_have_text("slow")
        page.locator(DOCUMENT).fill("The lamp")
    with serving("runs/lab", cwd=home, port=port):
        expect(heading(page)).to_have_text("lab")
        expect(page).to_have_title("lab · ScratchGPT")
        expect(page.locator("#model-choice input")).to_have_value("lab")
        expect(page.locator(DOCUMENT)).to_have_value("The lamp")
