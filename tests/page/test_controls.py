"""The Write tab's controls in a browser: the sampler in JavaScript, the bars, presets, and what is taken along."""

import json
import random
import re
import subprocess
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import torch

from modeling.inspection import next_token_logits
from modeling.sampling import Sampler, SamplingSettings
from panels.formats import percent
from panels.generate import encode_prompt
from panels.models import LoadedModel, load_model
from panels.sampling import PRESETS
from panels.tabs.write.next_token import look
from tests.serving import SEED, button
from tokenization.spans import label

STRANGE = "\u202e<img src=x onerror=alert(1)></script> ${1+1} שלום 😀\x07"
SAMPLE = """
(cases) => cases.map(({logits, seen, settings}) =>
  [...window.scratch.sampler.distribution(Float32Array.from(logits, (x) => x ?? -Infinity), settings, seen)])
"""
SHOWN = """
(bars) => bars.map((bar) => ['label', 'was', 'share'].map((name) => bar.querySelector(`.${name}`).textContent))
"""
SETTINGS = {
    "temperature": [0.0, 0.05, 0.7, 1.0, 1.5, 2.0],
    "top_k": [0, 1, 2, 5, 40, 200],
    "top_p": [0.05, 0.5, 0.95, 1.0],
    "min_p": [0.0, 0.05, 0.5],
    "typical_p": [0.05, 0.3, 0.95, 1.0],
    "repetition_penalty": [1.0, 1.05, 1.3, 2.0],
}


@pytest.fixture(scope="module")
def loaded(lab_run: Path) -> LoadedModel:
    """The page's model."""
    return load_model(lab_run)


@pytest.fixture
def page(lab_page: Any) -> Any:
    """The page with the bars of an empty text."""
    lab_page.locator("#bars .bar").first.wait_for()
    return lab_page


def after(page: Any, text: str) -> None:
    """Wait for the bars of `text`."""
    tail = text if len(text) <= 24 else text[-24:]
    page.wait_for_function(
        "(tail) => document.querySelector('#bars .tail').textContent.endsWith(tail)"
        " && !document.querySelector('#bars .stale')",
        arg=tail,
    )


def bar_after(page: Any, text: str) -> tuple[Any, Any, int]:
    """Put a text into the document: the document, the first bar that may follow, and its token."""
    document = page.locator("#document textarea")
    document.fill(text)
    after(page, text)
    bar = page.locator("#bars .bar:not([aria-disabled='true'])").first
    return document, bar, int(bar.get_attribute("data-token"))


def shown(page: Any) -> list[tuple[str, str, str]]:
    """Label and both numbers of each bar."""
    return [tuple(row) for row in page.locator("#bars .bar").evaluate_all(SHOWN)]


def compact(share: float) -> str:
    """A percentage as the narrow columns of the bars show it."""
    return re.sub(r"\s", "", percent(share))


def expected(loaded: LoadedModel, text: str, **values: Any) -> tuple[str, dict[str, tuple[str, str]]]:
    """What the bars say by the sampler here: the count, and both numbers of each label."""
    ids = encode_prompt(loaded, text)
    logits_V = next_token_logits(loaded.model, ids)
    model_V = torch.softmax(logits_V, -1)
    after_V = Sampler(SamplingSettings(**values), ids, len(logits_V)).distribution(logits_V)
    numbers = {
        label(loaded.tokenizer, token_id): (compact(was), compact(share) if share else "cut")
        for token_id, (was, share) in enumerate(zip(model_V.tolist(), after_V.tolist(), strict=True))
    }
    return f"{int((after_V > 0).sum()):,} of {len(logits_V):,} tokens kept", numbers


def test_the_sampler_in_the_browser_is_the_one_here(page: Any) -> None:
    choice = random.Random(7)
    cases = []
    combinations = [dict(zip(SETTINGS, values, strict=True)) for values in product(*SETTINGS.values())]
    for settings in choice.sample(combinations, 400):
        size = choice.choice([5, 40, 300])
        logits_V = 4 * torch.randn(size, generator=torch.Generator().manual_seed(len(cases)))
        has_ties = choice.random() < 0.4
        logits_V = logits_V.round() if has_ties else logits_V
        if choice.random() < 0.2:
            logits_V[choice.randrange(size)] = -torch.inf
        seen = choice.sample(range(size), choice.randrange(size // 2))
        ours_V = Sampler(SamplingSettings(**settings), seen, size).distribution(logits_V)
        numbers = [None if x == -torch.inf else x for x in logits_V.tolist()]
        cases.append(({"logits": numbers, "seen": seen, "settings": settings}, ours_V, has_ties))
    drawn = page.evaluate(SAMPLE, [case for case, _, _ in cases])
    for (case, ours_V, has_ties), theirs in zip(cases, drawn, strict=True):
        theirs_V = torch.tensor(theirs)
        if has_ties:  # which of several equal tokens stay is chance here
            ours_V, theirs_V = ours_V.sort().values, theirs_V.sort().values
        assert (ours_V - theirs_V).abs().max() < 1e-6, case["settings"]


def test_bars_move_with_the_sliders_and_ask_for_nothing(page: Any, loaded: LoadedModel) -> None:
    text = "the cat saw the"
    page.locator("#document textarea").fill(text)
    after(page, text)
    requests: list[str] = []
    # The strip above the tabs asks whether something trains; a request about the next token carries the text.
    page.on("request", lambda request: text in (request.post_data or "") and requests.append(request.url))
    for preset in PRESETS:
        button(page, preset.name).click()
        pressed = page.locator("button[aria-pressed='true'][data-preset]")
        page.wait_for_function(
            "(name) => document.querySelector('[data-preset][aria-pressed=true]')?.textContent === name",
            arg=preset.name,
        )
        assert pressed.count() == 1
        count, numbers = expected(loaded, text, **preset.values)
        page.locator("#bars .kept b", has_text=re.compile(f"^{count}$")).wait_for()
        rows = shown(page)
        assert len(rows) == 10
        assert all(numbers[name] == (was, share) for name, was, share in rows)
    slider = page.get_by_label("range slider for Repetition", exact=True)
    slider.focus()
    for _ in range(10):
        slider.press("ArrowRight")
    page.get_by_label("number input for Typical p", exact=True).fill("0.4")
    count, numbers = expected(loaded, text, temperature=1.0, repetition_penalty=1.5, typical_p=0.4)
    page.locator("#bars .kept b", has_text=re.compile(f"^{count}$")).wait_for()
    assert all(numbers[name] == (was, share) for name, was, share in shown(page))
    assert page.locator("button[data-preset][aria-pressed='true']").count() == 0
    assert page.locator("#bars .bar.cut .share").first.inner_text() == "cut"
    page.locator("#bars .spoken", has_text=f"{count}. Most likely: ").wait_for(state="attached")
    assert requests == []


def test_a_bar_goes_behind_the_text_by_keyboard_and_undo_takes_it_back(page: Any, loaded: LoadedModel) -> None:
    document, bar, token_id = bar_after(page, "the cat")
    bar.focus()
    page.keyboard.press("Enter")
    longer = "the cat" + look(loaded, "the cat").texts[token_id]
    after(page, longer)
    assert document.input_value() == longer
    assert page.evaluate("document.activeElement.classList.contains('bar')")
    place = "[...document.querySelectorAll('#bars .bar')].indexOf(document.activeElement)"
    before = page.evaluate(place)
    page.keyboard.press("ArrowDown")
    assert page.evaluate(place) == before + 1
    button(page, "Undo").click()
    after(page, "the cat")
    assert document.input_value() == "the cat"
    document.fill(STRANGE)
    after(page, STRANGE[-10:])
    assert page.locator("#bars img").count() == 0
    closed = page.locator("#bars .bar[aria-disabled='true']")
    if closed.count():
        closed.first.dispatch_event("click")
        page.wait_for_timeout(300)
        assert document.input_value() == STRANGE


def test_taken_along_as_python_curl_and_link(page: Any, lab_address: str, browser: Any) -> None:
    document, taken = page.locator("#document textarea"), page.locator("#taken textarea")
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    text = 'it\'s the "cat"\n\\n $HOME <b>'
    document.fill(text)
    page.locator(SEED).fill("7")
    page.get_by_label("Stop text").fill("\\n")
    page.get_by_label("number input for Length", exact=True).fill("12")
    button(page, "Wild").click()
    page.get_by_text("Take it along").click()
    button(page, "Copy").click()
    page.get_by_text("Nothing to copy yet").wait_for()
    button(page, "Python").click()
    page.get_by_text("Python that does the same.").wait_for()
    code = taken.input_value()
    assert "max_new_tokens=12" in code
    assert "stop_strings=['\\n']" in code
    compile(code, "snippet", "exec")

    button(page, "curl").click()
    page.get_by_text("Two calls of curl that do the same.").wait_for()
    command = taken.input_value()
    assert f"curl -s {lab_address}/gradio_api/call/generate" in command
    answer = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60).stdout
    assert "event: complete" in answer
    button(page, "Generate").click()
    button(page, "Continue").wait_for()
    assert document.input_value() == json.loads(answer.rsplit("data: ", 1)[1])[0]
    button(page, "Undo").click()

    button(page, "Link").click()
    page.get_by_text("A link that brings text and settings back.").wait_for()
    link = taken.input_value()
    button(page, "Copy").click()
    page.get_by_text("Copied.").wait_for()
    other = browser.new_page()
    other.goto(link)
    other.wait_for_function("document.querySelector('#document textarea')?.value")
    other.wait_for_function("location.hash === ''")
    assert other.locator("#document textarea").input_value() == text
    assert other.locator(SEED).input_value() == "7"
    assert other.get_by_label("Stop text").input_value() == "\\n"
    assert other.get_by_label("number input for Length", exact=True).input_value() == "12"
    other.locator("button[aria-pressed='true']", has_text="Wild").wait_for()
    values = {"text": "the", "temperature": "9", "top_k": "<b>", "top_p": "", "unknown": "1"}
    other.evaluate("(hash) => (location.hash = hash)", urlencode(values))
    other.wait_for_function("document.querySelector('#document textarea').value === 'the'")
    assert other.evaluate("window.scratch.settings.read()") == PRESETS[3].values | {"temperature": 2}
    button(other, "Generate").click()
    button(other, "Continue").wait_for()
    other.close()

    document.fill("x" * 9000)
    button(page, "Link").click()
    page.get_by_text(re.compile(r"too long for a link: it would have 9,\d\d\d characters of at most 8,000")).wait_for()
    assert taken.input_value() == ""
    page.locator(SEED).fill("dice")
    button(page, "Python").click()
    page.locator("#take-said").get_by_text("seed: expected a whole number, got 'dice'.").wait_for()


def test_the_controls_fit_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.wait_for_function("document.querySelectorAll('#bars .bar').length === 8")
    if not button(page, "Python").is_visible():
        page.get_by_text("Take it along").click()
    button(page, "Python").wait_for()
    page.wait_for_function("document.documentElement.scrollWidth <= 360")
    page.wait_for_timeout(300)  # they grow
    boxes = page.locator("#controls button:visible:not(.reset-button)").evaluate_all(
        "(all) => all.map((each) => [each.textContent.trim(), each.getBoundingClientRect().height])"
    )
    assert [name for name, height in boxes if height < 40 and "Take it along" not in name] == []


def test_a_bar_that_is_clicked_twice_adds_one_token(page: Any, loaded: LoadedModel) -> None:
    document, bar, token_id = bar_after(page, "the cat")
    bar.evaluate("(bar) => { bar.click(); bar.click(); }")
    assert document.input_value() == "the cat" + look(loaded, "the cat").texts[token_id]
