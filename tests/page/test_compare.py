"""Compare and About in a browser: a bundle with a card that tries everything, and the run that it came from."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from docs.screenshot import open_tab
from panels.formats import percent
from panels.models import load_model
from panels.sampling import WILD, settings_from
from panels.tabs.compare.comparison import Side, compare
from panels.tabs.compare.view import sentence
from tests.page.test_look import LOOK
from tests.panels.tiny_model import save_checkpoint

PROMPT = "the cat </script><img src=x onerror=alert(1)> שלום"

LATE = """
const send = window.fetch;
const isFree = new Promise((resolve) => { window.letGo = resolve; });
window.fetch = async (address, options) => {
  const asked = String(address).includes("queue/join") && JSON.parse(options.body).fn_index;
  const part = window.gradio_config.components.find((each) => each.props.elem_id === "compare-another").id;
  const isLoad = (each) => each.id === asked && each.targets.some(([, kind]) => kind === "load");
  if (window.gradio_config.dependencies.some((each) => isLoad(each) && each.outputs.includes(part))) await isFree;
  return send(address, options);
};
"""
"""The answer that the tab begins with comes late, as that of a page whose model loads does."""


@pytest.fixture(scope="module")
def home(lab_run: Path) -> Path:
    """Where the page looks for models."""
    return lab_run.parents[1]


def checkpoints(home: Path) -> list[Path]:
    """The run's checkpoints, the earliest first."""
    return sorted((home / "runs" / "lab" / "checkpoints").glob("step-*"))


def choose(page: Any, letter: str, value: str) -> None:
    """Type a model."""
    field = page.get_by_label(f"Model {letter}")
    field.fill(value)
    field.press("Enter")
    field.blur()


def test_two_checkpoints_side_by_side(lab_page, home):
    from playwright.sync_api import expect

    page = lab_page
    open_tab(page, "Compare")
    expect(page.locator("#compare-note-a .note, #compare-note-b .note")).to_have_count(
        2
    )  # what it begins with is there
    first, second = (str(folder.relative_to(home)) for folder in (checkpoints(home)[0], checkpoints(home)[-1]))
    prompt, status = page.get_by_label("Prompt for both"), page.locator("#compare-status")
    choose(page, "A", first)
    choose(page, "B", second)
    prompt.fill(PROMPT)
    page.get_by_label("Seed of both").fill("3")
    page.get_by_label("number input for Length of each text").fill("60")
    prompt.press("Control+Enter")
    expect(status).to_contain_text("Done. Both with seed 3.")

    settings = settings_from(seed=3, max_new_tokens=60)
    sides = [Side(loaded=load_model(home / folder), settings=settings) for folder in (first, second)]
    *_, expected = compare(sides[0], sides[1], PROMPT)
    assert expected.divergence is not None
    texts = page.locator("#comparison .text")
    for number, (text, written) in enumerate(zip(texts.all(), expected.texts, strict=True)):
        shown = text.evaluate("(text) => { text.querySelector('mark b').remove(); return text.textContent; }")
        assert shown == PROMPT + written.text
        assert text.locator("mark").count() == 1, number
    assert page.locator("#comparison .sentence").text_content() == "".join(part for part, _ in sentence(expected))
    shares = [percent(chance.model) for fork in expected.divergence.branches for chance in fork.probabilities if chance]
    assert page.locator("#comparison td b").all_inner_texts() == shares
    bits = [f"{written.bits_per_byte:.2f} bits per byte" for written in expected.texts]
    for facts, words in zip(page.locator("#comparison .facts").all(), bits, strict=True):
        expect(facts).to_contain_text(words)
    assert page.locator("#comparison img, #comparison script").count() == 0

    for colours in ("light", "dark"):
        page.evaluate(f"document.body.classList.toggle('dark', {str(colours == 'dark').lower()})")
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_timeout(300)
            assert page.evaluate(LOOK) == [], (colours, width)
    buttons = page.locator("#compare-actions > button, #compare-ideas button").all()
    assert min(button.bounding_box()["height"] for button in buttons if button.is_visible()) >= 40


def test_what_is_typed_and_chosen_before_the_model_is_there_stays(browsing, lab_address):
    from playwright.sync_api import expect

    page = browsing.new_page()
    page.add_init_script(LATE)
    page.goto(lab_address, timeout=120_000)
    page.get_by_text("Ready.", exact=True).first.wait_for()
    open_tab(page, "Compare")
    prompt = page.get_by_label("Prompt for both")
    expect(prompt).to_have_value("")
    page.get_by_role("button", name="Careful and wild settings").click()
    prompt.fill("mine")
    page.evaluate("window.letGo()")
    expect(page.locator("#compare-another")).to_be_visible()  # what the tab begins with is there
    expect(page.locator("#compare-note-b .note")).to_be_visible()
    expect(prompt).to_have_value("mine")
    expect(page.get_by_label("number input for Temperature, B")).to_have_value(str(WILD.temperature))
    expect(page.get_by_label("Same settings as A")).not_to_be_checked()


def test_ready_made_comparisons_and_what_goes_wrong(lab_page, home):
    from playwright.sync_api import expect

    page = lab_page
    open_tab(page, "Compare")
    status, found = page.locator("#compare-status"), page.locator("#comparison .sentence")
    page.get_by_label("Seed of both").fill("3")
    page.get_by_role("button", name="The same model twice").click()
    expect(page.get_by_label("Model A")).to_have_value("This page's model: A card <b>of</b> a stranger")
    go = page.get_by_role("button", name="Compare", exact=True)
    go.click()
    expect(found).to_contain_text("They never diverge")
    page.get_by_role("button", name="Careful and wild settings").click()
    expect(page.get_by_label("number input for Temperature, B")).to_have_value(str(WILD.temperature))
    go.click()
    expect(found).to_contain_text("They diverge at token")
    expect(page.get_by_role("article", name="Text B")).to_contain_text(f"temperature {WILD.temperature}")

    page.get_by_label("Seed of both").fill("dice")
    go.click()
    expect(status).to_contain_text("seed: expected a whole number, got 'dice'.")
    page.get_by_label("Seed of both").fill("")
    extra = home / "runs" / "lab" / "checkpoints" / "step-999999"
    shutil.copytree(checkpoints(home)[0], extra)
    choose(page, "B", str(extra.relative_to(home)))
    shutil.rmtree(extra)
    go.click()
    expect(page.locator("#compare-note-b")).to_contain_text("there is no folder runs/lab/checkpoints/step-999999")
    expect(status).to_contain_text("Model B cannot be taken: see there.")
    choose(page, "B", "<img src=x onerror=alert(1)>")
    expect(page.locator("#compare-note-b")).to_contain_text("there is no folder <img src=x onerror=alert(1)>")
    choose(page, "B", "runs/lab")
    expect(page.locator("#compare-note-b")).to_contain_text("parameters")


def test_escape_stops_both(lab_page, tmp_path):
    from playwright.sync_api import expect

    page = lab_page
    open_tab(page, "Compare")
    status, go = page.locator("#compare-status"), page.get_by_role("button", name="Compare", exact=True)
    # The run's own model is done with its text, or ends it, before a busy browser has shown that it writes.
    choose(page, "B", str(save_checkpoint(tmp_path / "slow", layers=128)))
    expect(page.locator("#compare-note-b")).to_contain_text("parameters")
    page.get_by_label("number input for Length of each text").fill("500")
    go.click()
    expect(status).to_contain_text("Both write")
    expect(go).to_be_disabled()
    page.keyboard.press("Escape")
    expect(status).to_contain_text("Stopped. Both with seed")
    expect(go).to_be_enabled()
    texts = page.locator("#comparison .text").all_text_contents()
    assert page.locator("#comparison .caret").count() == 0
    page.wait_for_timeout(300)
    assert page.locator("#comparison .text").all_text_contents() == texts


@pytest.mark.slow
def test_about_and_its_code_runs_as_pasted(lab_page, home, lab_address, clean_python):
    from playwright.sync_api import expect

    page = lab_page
    open_tab(page, "About")
    expect(page.locator("#about-facts")).to_contain_text("What it cannot do")
    card = page.locator("#about-card")
    expect(card).to_contain_text("A card of a stranger")
    expect(card).not_to_contain_text("license")
    expect(card).to_contain_text("window.broken = 1")
    assert page.evaluate("window.broken") is None
    assert page.locator("#about-card :is(img, script, svg[onload], iframe, [style*=example])").count() == 0
    assert card.get_by_role("link", name="far").get_attribute("href") == "https://example.org/a.png"
    assert page.evaluate(LOOK) == []
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_timeout(300)
    assert page.evaluate(LOOK) == []

    codes = [page.locator(f"{place} code.language-python").inner_text() for place in ("#about-load", "#about-api")]
    assert 'from_pretrained("bundle", trust_remote_code=True)' in codes[0]
    assert f'Client("{lab_address}")' in codes[1]
    for code in codes:
        done = clean_python.run("-c", code, folder=home)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
