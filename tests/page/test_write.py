"""The Write tab in the browser: the shaded tokens with mouse, keyboard and finger, branches, Retry, odd texts."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panels import generate as writing
from panels.models import load_model
from panels.sampling import settings_from
from panels.tabs.write.token_rows import ALTERNATIVES
from tests.serving import SEED, button, set_length, wait_until

TOKEN = "#document .layer .token"
MARKUP = "<img src=x onerror=alert(1)></script> The"


@pytest.fixture
def page(lab_page: Any) -> Any:
    """The page with an empty document."""
    lab_page.keyboard.press("Escape")
    button(lab_page, "Clear").click()
    lab_page.get_by_text("A new page.").wait_for()
    return lab_page


def write(page: Any, prompt: str | None, *, tokens: int = 40, seed: str = "5") -> str:
    """Let the model go on from `prompt`; the text when it is over."""
    document = page.get_by_label("Your text")
    if prompt is not None:
        document.fill(prompt)
    page.locator(SEED).fill(seed)
    set_length(page, tokens)
    before = document.input_value()
    page.locator("#generate").click()
    wait_until(lambda: document.input_value() != before)
    over(page)
    return document.input_value()


def over(page: Any) -> None:
    """Wait until what was begun is over, and its tokens are there to be chosen from."""
    button(page, "Continue").wait_for()
    page.locator(f"{TOKEN}[tabindex='0']").wait_for(state="attached")


def shown_tokens(page: Any) -> str:
    """The text of the tokens that are shaded."""
    return "".join(page.locator(TOKEN).all_text_contents())


def point(page: Any, index: int) -> tuple[float, float]:
    """Where a token lies on the screen; the field is over it."""
    token = page.locator(TOKEN).nth(index)
    token.scroll_into_view_if_needed()
    box = token.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def visible_token(page: Any, first: int) -> int:
    """The number of the first token from `first` on that a pointer can hit."""
    widths = page.locator(TOKEN).evaluate_all("all => all.map(each => each.getClientRects()[0]?.width ?? 0)")
    return next(index for index in range(first, len(widths)) if widths[index] > 3)


def options(page: Any) -> Any:
    """The alternatives in the popover."""
    return page.get_by_role("dialog").get_by_role("option")


def test_tokens_are_shaded_where_they_are_read_and_show_what_could_have_been(page):
    from playwright.sync_api import expect

    document = page.get_by_label("Your text")
    first = write(page, MARKUP)
    assert shown_tokens(page) == first[len(MARKUP) :]
    assert page.locator(".layer").text_content() == first
    assert page.locator("img[src='x']").count() == 0
    count = page.locator(TOKEN).count()
    expect(page.locator("#status")).to_contain_text(f"{count} tokens")

    index = visible_token(page, 4)
    x, y = point(page, index)
    page.mouse.move(x, y)
    tip = page.get_by_role("tooltip")
    expect(tip).to_contain_text(re.compile(r"\d bits, .*%"))
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.mouse.click(x, y)
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(tip).to_be_hidden()
    assert options(page).count() in (10, 11)
    shares = [float(text.strip("<>\u00a0% ")) for text in page.locator("#token-panel .p").all_text_contents()[:10]]
    assert shares == sorted(shares, reverse=True)
    expect(document).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert document.input_value() == first

    document.press("Control+Home")
    for _ in range(len(MARKUP) + 1):
        document.press("ArrowRight")
    document.press("Alt+ArrowDown")
    expect(page.locator(TOKEN).nth(0)).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator(TOKEN).nth(count - 1)).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(document).to_be_focused()

    page.locator(TOKEN).nth(6).focus()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(TOKEN).nth(7)).to_be_focused()
    page.keyboard.press("Enter")
    expect(options(page).nth(0)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(TOKEN).nth(7)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()

    page.keyboard.press("Enter")
    free = options(page).evaluate_all(
        "items => items.findIndex((item, at) => at && !item.ariaDisabled && item.ariaSelected === 'false')"
    )
    for _ in range(free):
        page.keyboard.press("ArrowDown")
    expect(options(page).nth(free)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(f"{TOKEN}.chosen")).to_have_count(1)
    over(page)
    second = document.input_value()
    before = "".join(page.locator(TOKEN).all_text_contents()[:7])
    assert second.startswith(MARKUP + before)
    assert first.startswith(MARKUP + before)
    assert second != first
    assert shown_tokens(page) == second[len(MARKUP) :]
    expect(page.locator(TOKEN).nth(7)).to_be_focused()

    button(page, "Undo").click()
    expect(document).to_have_value(first)
    assert shown_tokens(page) == first[len(MARKUP) :]
    expect(page.locator(f"{TOKEN}.chosen")).to_have_count(0)

    document.press("Control+End")
    for _ in range(6):
        document.press("Backspace")
    assert first[:-6].startswith(MARKUP + shown_tokens(page))
    assert page.locator(TOKEN).count() < count
    for _ in range(6):  # on a busy machine the keys are more than one step
        if document.input_value() != first:
            document.press("Control+z")
    expect(document).to_have_value(first)
    assert shown_tokens(page) == first[len(MARKUP) :]
    document.press("End")
    page.keyboard.type(" by hand")
    longer = write(page, None, tokens=5)
    assert shown_tokens(page) == first[len(MARKUP) :] + longer[len(first + " by hand") :]
    document.fill("Other")
    expect(page.locator(TOKEN)).to_have_count(0)


TEXTS = (
    "The lamp burned low, and nobody answered.\n\nfiffffl AVAToTe “quoted” — dash … end\n",
    "averyveryverylongwordwithoutaspace" * 20 + " and\ttabs\t\there  two  spaces   \n",
    "שלום עליكم مرحبا 東京は大きい 👩\u200d🚀🏳️\u200d🌈 é e\u0301 \u00ad soft\u200bzero",
)
WITH_TOKENS = """
(text) => {
  const { EMPTY, History, grow } = window.scratch.history;
  const pieces = [{ id: 0, label: "x", text: "x", obstacle: "", model: "m" }];
  const parts = text.match(/[^]{1,3}/gu);
  const rows = parts.map((part) => [part, 0, Math.random(), 0.5, 1, 0, []]);
  const state = grow({ ...EMPTY, origin: 0 }, { text, rest: "", tokens: rows }, pieces);
  window.scratch.editor.load(new History([EMPTY, state]));
}
"""
ONLY = """
(shown) => {
  const style = document.getElementById("only") ?? document.head.appendChild(document.createElement("style"));
  style.id = "only";
  style.textContent = `.writing .paper > textarea { caret-color: transparent !important;
      -webkit-text-fill-color: ${shown === "field" ? "black" : "transparent"} !important }
    .writing .layer, .writing .layer * {
      -webkit-text-fill-color: ${shown === "layer" ? "black" : "transparent"} !important;
      background: none !important; box-shadow: none !important }
    .writing .layer .line::before { content: none !important }`;
  document.activeElement.blur();
}
"""


def test_every_character_of_the_layer_lies_under_its_own_in_the_field(page):
    from PIL import Image, ImageChops

    for width in (1280, 768, 390):
        page.set_viewport_size({"width": width, "height": 900})
        for text in TEXTS:
            page.evaluate(WITH_TOKENS, text)
            assert page.locator(TOKEN).count() > 10
            shots = []
            for shown in ("field", "layer"):
                page.evaluate(ONLY, shown)
                page.wait_for_timeout(100)
                shots.append(Image.open(io.BytesIO(page.locator(".paper").screenshot())).convert("L"))
            dark = sum(shots[0].point(lambda value: value < 128 and 255).histogram()[255:])
            differing = sum(ImageChops.difference(*shots).histogram()[101:])
            assert dark > 300
            assert differing < dark / 50, (width, text)
    page.evaluate("document.getElementById('only').remove()")


def test_retry_writes_the_last_go_anew(page):
    from playwright.sync_api import expect

    document = page.get_by_label("Your text")
    expect(button(page, "Retry")).to_be_disabled()
    first = write(page, "About", tokens=20)
    longer = write(page, None, tokens=20)
    assert longer.startswith(first)
    page.locator(SEED).fill("")
    button(page, "Retry").click()
    wait_until(lambda: document.input_value() != longer)
    over(page)
    other = document.input_value()
    assert other.startswith(first)
    assert other != longer
    button(page, "Undo").click()
    expect(document).to_have_value(longer)
    page.locator(SEED).fill("8")
    button(page, "Retry").click()
    expect(page.locator("#status")).to_contain_text("seed 8")
    over(page)
    with_seed = document.input_value()
    button(page, "Retry").click()
    expect(page.locator("#status")).to_contain_text("The same text again. Another seed")
    assert document.input_value() == with_seed


def test_on_a_phone(browser, lab_address):
    from playwright.sync_api import expect

    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(lab_address)
    page.get_by_text("Ready.", exact=True).first.wait_for()
    expect(page.locator("#sliders")).to_be_hidden()
    expect(page.locator("#bars .kept")).to_contain_text("tokens kept")
    strip = page.locator("#strip")  # of a run that another test has left
    above = strip.evaluate("element => element.offsetHeight") if strip.count() else 0
    assert page.evaluate("document.documentElement.scrollHeight") < 1250 + above
    assert button(page, "Generate").bounding_box()["y"] < 700 + above
    assert "Ctrl" not in page.locator("#document").inner_text()
    page.get_by_role("button", name="Sampling").click()
    expect(page.locator("#sliders")).to_be_visible()
    page.get_by_role("button", name="Length, seed").click()
    write(page, "About", tokens=60)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    index = visible_token(page, 8)
    page.touchscreen.tap(*point(page, index))
    sheet = page.get_by_role("dialog")
    expect(sheet).to_be_visible()
    expect(page.get_by_label("Your text")).not_to_be_focused()
    box = sheet.bounding_box()
    assert (box["x"], box["width"], round(box["y"] + box["height"])) == (0, 390, 844)
    assert page.locator(TOKEN).nth(index).bounding_box()["y"] < box["y"]
    assert min(options(page).nth(index).bounding_box()["height"] for index in range(10)) >= 40
    sheet.get_by_role("button", name="Close").tap()
    expect(sheet).to_be_hidden()
    page.locator("#document label").tap()
    expect(page.get_by_label("Your text")).to_be_focused()
    page.touchscreen.tap(*point(page, index))
    expect(sheet).to_be_hidden()
    context.close()


def test_the_bars_move_with_each_draft_while_the_model_writes(page):
    page.evaluate(
        """() => {
          window.seen = [];
          const view = document.querySelector("#bars .next-token");
          new MutationObserver(() => {
            const drawn = view.querySelector(".kept .quiet").textContent;
            if (drawn.startsWith("drawn: ")) window.seen.push([drawn, view.classList.contains("stale"),
              view.querySelectorAll(".drawn").length, view.querySelector(".tail").textContent]);
          }).observe(view.querySelector(".kept"), { childList: true });
        }"""
    )
    text = write(page, "About", tokens=150)
    seen = page.evaluate("window.seen")
    assert len(seen) >= 2  # how often depends on how fast the model is
    assert {(stale, drawn) for _, stale, drawn, _ in seen} == {(False, 1)}
    places = [text.find(tail.removeprefix("after ").removeprefix("…")) for *_, tail in seen]
    assert -1 not in places
    assert len({tail for *_, tail in seen}) >= 2
    page.wait_for_function("!document.querySelector('#bars .stale') && !document.querySelector('#bars .drawn')")
    assert "equally likely tokens" in page.locator("#bars .rest").inner_text()


@pytest.fixture
def repeated(lab_run: Path) -> Iterator[list[writing.Token]]:
    """What the model writes behind "About" with seed 5. As long as the test goes, its tokens but for the first two and
    the last two are the first document of the training text."""
    settings = settings_from(seed=5, max_new_tokens=40)
    drafts = writing.generate(load_model(lab_run), "About", settings, alternatives=ALTERNATIVES)
    tokens = [token for draft in drafts for token in draft.tokens]
    manifest, shard = lab_run / "tokens" / "manifest.json", lab_run / "tokens" / "train-repeated.npy"
    content = manifest.read_text()
    told = json.loads(content)
    train, separator = told["train"], told["end_of_text"]
    kind = np.load(manifest.with_name(train["files"][0])).dtype
    ids = [separator, *(token.token_id for token in tokens[2:-2])]
    np.save(shard, np.array(ids, dtype=kind))
    more = {
        "files": [shard.name, *train["files"]],
        "tokens": train["tokens"] + len(ids),
        "documents": train["documents"] + 1,
    }
    del told["checksum"]
    manifest.write_text(json.dumps(told | {"train": train | more}))
    yield tokens
    manifest.write_text(content)
    shard.unlink()


def test_a_passage_of_the_training_text_is_named_and_shown(page, lab_run, repeated):
    from playwright.sync_api import expect

    count = len(repeated) - 4
    passage = "".join(token.text for token in repeated[2:-2]).strip()
    documents = json.loads((lab_run / "tokens" / "manifest.json").read_text())["train"]["documents"]
    text = write(page, "About")
    assert text == "About" + "".join(token.text for token in repeated)
    note = page.get_by_role("complementary", name="Memorised?")
    words = f"{count} tokens in a row ({len(passage.split())} words) occur word for word in the training text"
    expect(note).to_contain_text(f"{words}: document 1 of {documents:,}, 0% of the way through it.")
    assert note.locator("blockquote").text_content() == passage
    mark = button(page, "Show it in the text")
    mark.click()
    expect(mark).to_have_attribute("aria-pressed", "true")
    marked = page.locator(TOKEN).evaluate_all("all => all.map(each => each.classList.contains('passage'))")
    assert marked == [False, False, *[True] * count, False, False]
    mark.click()
    expect(page.locator(f"{TOKEN}.passage")).to_have_count(0)
    button(page, "Undo").click()
    expect(note).to_be_hidden()


ODD = (
    "''",
    "'a'",
    "'word '.repeat(20000)",
    "String.fromCharCode(...Array(256).keys())",
    "'\\x00\\x1b[2J\\x07'",
    "'\\ud800 alone'",
    "'שלום عليكم'",
    "'👩\\u200d🚀🏳️\\u200d🌈'",
)
"""Texts, as the browser writes them."""


def test_no_text_is_too_odd(page):
    for prompt in ODD:
        page.evaluate(
            f"""() => {{
                const area = document.querySelector('#document textarea');
                area.value = {prompt};
                area.dispatchEvent(new Event('input', {{bubbles: true}}));
            }}"""
        )
        text = write(page, None, tokens=5)
        assert text.endswith(shown_tokens(page)), prompt
        assert page.locator(TOKEN).count() == 5
        assert page.locator(".layer").text_content() == text
        page.locator(TOKEN).nth(2).focus()
        assert options(page).count() >= 10
        page.keyboard.press("Escape")  # or the panel may lie over what is clicked next
        button(page, "Clear").click()
        page.get_by_text("A new page.").wait_for()
