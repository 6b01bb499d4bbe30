"""The Inside tab in a browser, against the same model here."""

import json
import math
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from modeling.inspection import attention, logit_lens
from panels.formats import percent
from panels.generate import encode_prompt
from panels.models import LoadedModel, load_model
from panels.tabs.inside.analysis import LENS_TOP, heads, surprisal
from tokenization.spans import label

STRANGE = "the cat <img src=x onerror=alert(1)></script> ${1+1} {{7*7}} <|endoftext|> שלום 😀\nthe dog"
ALPHAS = """
(canvas) => {
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  return [...pixels].filter((_, index) => index % 4 === 3);
}
"""
NOTES = "(tokens) => tokens.map((token) => token.dataset.note ?? null)"


@pytest.fixture(scope="module")
def loaded(lab_run: Path) -> LoadedModel:
    """The page's model."""
    return load_model(lab_run)


@pytest.fixture
def tab(lab_page: Any) -> Any:
    """The page with the tab open."""
    lab_page.get_by_role("tab", name="Inside").click()
    lab_page.locator("#look-inside").wait_for()
    return lab_page


def look(page: Any, text: str, view: str) -> None:
    """Look at a text by Ctrl+Enter, and wait until the answer is there. What each step changes is waited for before the
    next: of two requests on their way at once, the server may take the second first."""
    field, chosen = page.locator("#inside-text textarea"), page.get_by_role("radio", name=view)
    refused = page.locator("#inside-status .trouble").get_by_text("got none")
    field.fill("")
    if not refused.is_visible():
        page.get_by_role("button", name="Look inside").click()
        refused.wait_for()
    page.locator("#inside-result section").wait_for(state="detached")
    if not chosen.is_checked():
        chosen.check()
        refused.wait_for(state="detached")
    field.fill(text)
    field.press("Control+Enter")
    page.get_by_role("region", name=view).wait_for()


def test_surprise_token_by_token(lab_page: Any, loaded: LoadedModel) -> None:
    page = lab_page
    page.locator("#document textarea").fill(STRANGE)
    page.get_by_role("tab", name="Inside").click()
    page.get_by_role("button", name="Take the text of the Write tab").click()
    page.locator(".surprisal").wait_for()
    assert page.locator("#inside-text textarea").input_value() == STRANGE
    scored = surprisal(loaded, STRANGE)
    tokens = page.locator(".surprisal .tokens .token")
    assert tokens.all_inner_texts() == [token.piece.label for token in scored.tokens]
    assert page.locator("#inside-result img, #inside-result script").count() == 0
    figures = page.locator(".surprisal dl").inner_text().replace("\n", " ")
    assert f"Surprise {scored.bits:,.1f} bits" in figures
    assert f"Bits per byte {scored.bits_per_byte:.3f}" in figures

    page.locator(".surprisal .all-numbers").focus()
    page.keyboard.press("Tab")
    for step, (piece, found, likeliest) in enumerate(scored.tokens[:4]):
        assert page.evaluate("document.activeElement.ariaSelected") == "true"
        told = page.locator(".surprisal .detail").inner_text()
        assert told.startswith(f"{piece.label}  {found.bits:.2f} bits, probability {percent(2 ** -(found.bits or 0))}")
        if found.rank != 1:
            assert f"number {found.rank:,} by probability. The most likely token was {likeliest} (" in told
        assert page.locator('.surprisal [tabindex="0"]').count() == 1, step
        page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    assert page.locator(".surprisal .detail").inner_text().startswith(f"{scored.tokens[-1].piece.label}  ")
    assert page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    tokens.nth(2).hover()
    assert page.locator(".surprisal .detail").inner_text().startswith(f"{scored.tokens[2].piece.label}  ")
    content = "(token) => getComputedStyle(token, '::after').content"
    assert tokens.nth(2).evaluate(content) == "none"
    page.get_by_label("Number on every token").check()
    assert tokens.nth(2).evaluate(content) == f'"{scored.tokens[2].surprisal.bits:.2f}"'


def test_the_lens_layer_by_layer(tab: Any, loaded: LoadedModel) -> None:
    document = tab.locator("#document textarea").input_value()
    look(tab, STRANGE, "Logit lens")
    ids = encode_prompt(loaded, STRANGE)
    layers = logit_lens(loaded.model, ids, LENS_TOP, last=48)[::-1]
    rows = tab.locator(".lens tbody tr")
    names = rows.locator("th").all_inner_texts()
    assert names == ["output", *(f"layer {number}" for number in range(len(layers) - 2, 0, -1)), "embedding"]
    for row, layer in zip(rows.all(), layers, strict=True):
        shown = row.locator(".cell span").all_inner_texts()
        assert shown == [label(loaded.tokenizer, guesses[0].token_id) for guesses in layer]
    correct = sum(
        guesses[0].token_id == token for row in layers for guesses, token in zip(row, ids[-47:], strict=False)
    )
    assert tab.locator(".lens .cell.correct").count() == correct
    tab.locator(".lens .cell").first.focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowDown")
    assert tab.locator(".lens .detail p").inner_text().startswith(f"{names[1]}, after ")
    expected = [f"{label(loaded.tokenizer, token)} {percent(share)}" for token, share in layers[1][1]]
    assert [line.replace("\n", " ") for line in tab.locator(".lens .detail li").all_inner_texts()] == expected
    assert tab.locator('.lens [tabindex="0"]').count() == 1
    assert tab.locator("#document textarea").input_value() == document  # Ctrl+Enter meant this tab alone


def test_attention_head_by_head(tab: Any, loaded: LoadedModel) -> None:
    for text in ("the cat saw the dog", STRANGE):
        look(tab, text, "Attention")
        ids = [token_id for token_id, _ in heads(loaded, text).tokens]
        weights_LHQK = attention(loaded.model, ids)
        layers, count, size, _ = weights_LHQK.shape
        labels = [label(loaded.tokenizer, token_id) for token_id in ids][:: math.ceil(size / 26)]
        for axis in ("queries", "keys"):
            assert tab.locator(f".attention .{axis} span").all_text_contents() == labels
        choices = tab.locator(".attention .head")
        assert choices.count() == layers * count
        for head, weights_QK in enumerate(weights_LHQK.flatten(0, 1)):
            alphas = choices.nth(head).locator("canvas").evaluate(ALPHAS)
            assert alphas == pytest.approx((255 * weights_QK.sqrt()).flatten().tolist(), abs=1.5)

    tab.locator('.attention .head[tabindex="0"]').focus()
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowRight")
    assert "Layer 2, head 2" in tab.locator("figcaption").inner_text()
    weights_QK = weights_LHQK[1, 1]
    assert tab.locator(".map canvas").evaluate(ALPHAS) == pytest.approx(
        (255 * weights_QK.sqrt()).flatten().tolist(), abs=1.5
    )
    box = tab.locator(".map").bounding_box()
    tab.locator(".map").click(position={"x": box["width"] / 2, "y": (5 + 0.5) * box["height"] / size})
    key = int(size / 2)
    assert tab.locator(".map").get_attribute("title") == (
        f"6. {label(loaded.tokenizer, ids[5])} to {key + 1}. {label(loaded.tokenizer, ids[key])}: "
        f"{percent(weights_QK[5, key].item())}"
    )
    chosen = tab.locator('.attention .token[aria-selected="true"]')
    assert chosen.inner_text().startswith(label(loaded.tokenizer, ids[5]))
    chosen.focus()
    tab.keyboard.press("ArrowRight")
    row_K = weights_QK[6, :7]
    best = row_K.sort(descending=True)
    shown = tab.locator(".attention .detail li").all_inner_texts()
    first, share = shown[0].split("\n")
    assert first == f"{int(best.indices[0]) + 1}. {label(loaded.tokenizer, ids[int(best.indices[0])])}"
    assert math.isclose(float(share.removesuffix("\u00a0%")), 100 * best.values[0].item(), abs_tol=0.51)
    assert tab.locator(".attention .token.unseen").count() == size - 7
    notes = tab.locator(".attention .token").evaluate_all(NOTES)
    assert [note is not None for note in notes[:7]] == [weight >= 0.045 for weight in row_K.tolist()]


def test_what_is_wrong_is_said_and_the_page_goes_on(tab: Any) -> None:
    for text, message in (
        ("", "text: expected at least one character, got none."),
        ("x" * 100_000, "text: expected at most 20,000 characters, got 100,000."),
    ):
        tab.locator("#inside-text textarea").fill(text)
        tab.get_by_role("button", name="Look inside").click()
        tab.locator("#inside-status .trouble").get_by_text(message).wait_for()
    look(tab, bytes(range(1, 256)).decode("latin-1"), "Surprise")
    tab.locator("#inside-status .trouble").wait_for(state="detached")


def test_it_fits_a_phone(tab: Any) -> None:
    tab.set_viewport_size({"width": 360, "height": 740})
    for view in ("Surprise", "Logit lens", "Attention"):
        look(tab, STRANGE, view)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    small = tab.locator("#look-inside, #take-written, #inside-view label, .attention .head").evaluate_all(
        "(items) => items.filter((item) => item.getBoundingClientRect().height < 40).map((item) => item.outerHTML)"
    )
    assert small == []


def test_the_api_answers(lab_address: str, loaded: LoadedModel) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(lab_address, verbose=False)
    answer = client.predict(STRANGE, api_name="/surprise")
    assert answer["bits_per_byte"] == pytest.approx(surprisal(loaded, STRANGE).bits_per_byte)
    found = client.predict("the cat", 3, temperature=0, api_name="/next_token")
    assert [each["sampled_probability"] for each in found] == [1.0, 0.0, 0.0]
    with pytest.raises(AppError, match="top_p: expected a number from 0 to 1"):
        client.predict("the cat", top_p=7, api_name="/next_token")
    client.close()
    lone = json.dumps({"data": ["a \ud83d b"]}).encode()  # a lone surrogate, as JSON may spell it
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{lab_address}/gradio_api/call/surprise", lone, headers)
    event = json.load(urllib.request.urlopen(request))["event_id"]
    with urllib.request.urlopen(f"{lab_address}/gradio_api/call/surprise/{event}") as reply:
        assert reply.read().startswith(b"event: complete")
