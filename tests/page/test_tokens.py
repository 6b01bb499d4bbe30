"""The Tokens tab in a browser: real tokens of a really trained tokenizer, replayed without the server."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from panels.tabs.tokens.tab import SAMPLES
from tokenization import load_tokenizer
from tokenization.merge_trace import merge_counts, replay
from tokenization.spans import pieces

STRANGE = "<img src=x onerror=alert(1)></script> ${1+1} {{7*7}} <|endoftext|>"


def type_in(page: Any, text: str) -> None:
    """Put a text into the box as if pasted, and wait until its tokens are there."""
    page.locator("#tokens-text textarea").fill(text)
    count = f"{len(text):,} character"
    page.locator("#tokens-view .counts").first.get_by_text(re.compile(f"^{count}s?$")).wait_for()


def labels_of(page: Any, column: int = 0) -> list[str]:
    """The tokens that are shown."""
    return page.locator("#tokens-view .tokenizer").nth(column).locator(".token-text .token").all_inner_texts()


@pytest.fixture
def tab(lab_page: Any) -> Any:
    """The page with the tab open."""
    lab_page.get_by_role("tab", name="Tokens").click()
    lab_page.locator("#tokens-view .token-text .token").first.wait_for()
    return lab_page


def test_tokens_ids_and_merges(tab: Any, lab_run: Path) -> None:
    tokenizer: Any = load_tokenizer(lab_run / "tokenizer")
    text = "the cat\n\tthe naïve 😀 the dog"
    tab.locator("#tokens-text textarea").fill("")
    tab.locator("#tokens-text textarea").press_sequentially("the c", delay=20)
    tab.get_by_text("5 characters").wait_for()
    type_in(tab, text)
    found = pieces(tokenizer, text)
    assert labels_of(tab) == [piece.label for piece in found]
    ids = tab.locator("#tokens-view .token-ids .token")
    assert ids.all_inner_texts() == [str(piece.token_id) for piece in found]
    ratio = f"{len(text.encode()) / len(found):.2f} bytes per token"
    assert tab.locator("#tokens-view .counts").inner_text().replace("\n", " ").endswith(ratio)

    # A token and its id light up together, and so do equal ones.
    last = max(index for index, piece in enumerate(found) if [p.token_id for p in found].count(piece.token_id) > 1)
    tab.locator("#tokens-view .token-text .token").nth(last).hover()
    chosen = [index for index, node in enumerate(ids.all()) if node.get_attribute("aria-selected") == "true"]
    same = tab.evaluate(
        "[...document.querySelectorAll('#tokens-view .token-ids .token.same')].map(n => +n.dataset.index)"
    )
    assert chosen == [last]
    assert sorted([*same, last]) == [i for i, piece in enumerate(found) if piece.token_id == found[last].token_id]
    ids.nth(0).focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#tokens-view .token-text .token.here").inner_text() == found[1].label
    assert f"id {found[1].token_id}," in tab.locator("#tokens-view .token-detail").inner_text()
    tab.keyboard.press("End")
    assert tab.evaluate("+document.activeElement.dataset.index") == len(found) - 1
    tab.keyboard.press("Home")
    assert tab.evaluate("+document.activeElement.dataset.index") == 0

    # The replay: every step as Python has it, and no request.
    told = replay(tokenizer, text)
    states = [*told.states()]
    requests: list[str] = []
    # The strip above the tabs asks whether something trains; nothing of this view does.
    tab.on("request", lambda request: "/training/state" in request.url or requests.append(request.url))
    slider = tab.locator("#tokens-view .replay input")
    slider.focus()
    for step in range(len(told.merges) + 1):
        words = (
            [
                [node.inner_text() for node in word.locator(".token").all()]
                for word in tab.locator("#tokens-view .replay-words .word").all()
            ]
            if step in (0, 1, 2, len(told.merges))
            else None
        )
        assert words is None or words == [[told.labels[token_id] for token_id in word] for word in states[step]]
        if step:
            merge = told.merges[step - 1]
            line = tab.locator("#tokens-view .replay-step").inner_text().replace("\n", " ")
            assert line.startswith(f"Merge {merge.rank:,} of {told.learnt:,}")
            pair = f"{told.labels[merge.first]} + {told.labels[merge.second]} → {told.labels[merge.made]}"
            assert pair in line
            assert f"{merge.count:,} time" in line
            assert f"{merge.places:,} time" in line.split("training text")[1]
        tab.keyboard.press("ArrowRight")
    assert merge_counts(tokenizer)
    assert [n.inner_text() for n in tab.locator("#tokens-view .replay-words .token").all()] == labels_of(tab)
    tab.get_by_role("button", name="One merge back").click()
    assert slider.input_value() == str(len(told.merges) - 1)
    tab.get_by_role("button", name="One merge on").click()
    tab.get_by_role("button", name="Play").click()
    tab.wait_for_function("+document.querySelector('#tokens-view .replay input').value >= 2")
    tab.get_by_role("button", name="Pause").click()
    assert tab.get_by_role("button", name="Play").get_attribute("aria-pressed") == "false"
    assert requests == []


def test_strange_texts_second_tokenizers_and_errors(tab: Any, lab_run: Path) -> None:
    from playwright.sync_api import expect

    tokenizer: Any = load_tokenizer(lab_run / "tokenizer")
    for text in (STRANGE, "x", "שלום \u202e abc e\u0301", "".join(map(chr, range(1, 256)))):
        text = text.replace("\r", "")
        type_in(tab, text)
        assert labels_of(tab) == [piece.label for piece in pieces(tokenizer, text)]
    assert tab.locator("#tokens-view img, #tokens-view script").count() == 0
    type_in(tab, "the " * 25_000)
    assert len(labels_of(tab)) <= 1_000
    tab.get_by_text(re.compile(r"^The first 1,000 of [\d,]+ tokens are shown\.$")).wait_for()
    assert "only the first 300 characters" in tab.locator("#tokens-view .replay-note").inner_text()
    tab.locator("#tokens-text textarea").fill("a" * 100_001)
    tab.get_by_text("expected at most 100,000 characters, got 100,001").wait_for()
    tab.locator("#tokens-text textarea").fill("")
    tab.get_by_text("No text, no tokens.").wait_for()

    type_in(tab, "naïve")
    choose = tab.get_by_label("Compare with")
    choose.fill("characters")
    choose.press("Enter")
    tab.locator("#tokens-view .tokenizer").nth(1).wait_for()
    assert labels_of(tab, 1) == [*"naïve"]
    tab.locator("#tokens-view .tokenizer").nth(1).locator(".token-text .token").nth(2).hover()
    first = tab.locator("#tokens-view .tokenizer").first
    assert all("ï" in p or "⟨" in p for p in first.locator(".token-text .token.same").all_inner_texts())
    assert first.locator(".token-text .token.same").count() >= 1
    choose.fill("bytes")
    choose.press("Enter")
    tab.get_by_role("heading", name="bytes", exact=True).wait_for()
    assert labels_of(tab, 1) == ["n", "a", "⟨c3⟩", "⟨af⟩", "v", "e"]
    choose.fill("run lab")
    choose.press("Enter")
    tab.get_by_role("heading", name="run lab").wait_for()
    assert labels_of(tab, 1) == labels_of(tab, 0)
    choose.fill("runs/nothing here")
    choose.press("Enter")
    tab.get_by_text("is no folder here and no Hub id").wait_for()
    expect(tab.locator("#tokens-view .tokenizer")).to_have_count(1)

    tab.get_by_text("Special tokens", exact=True).click()
    length = len(SAMPLES["Special tokens"])
    tab.locator("#tokens-view .counts").first.get_by_text(f"{length} characters").wait_for()
    tab.set_viewport_size({"width": 360, "height": 740})
    tab.wait_for_function("document.documentElement.scrollWidth <= 360")


def test_the_endpoint(lab_address: str, lab_run: Path) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    tokenizer: Any = load_tokenizer(lab_run / "tokenizer")
    client = Client(lab_address, verbose=False)
    text = f"{STRANGE} naïve 😀\n"
    told = client.predict(text, api_name="/tokenize")
    told = json.loads(told) if isinstance(told, str) else told
    found = pieces(tokenizer, text)
    assert told["tokens"] == [
        {"token_id": p.token_id, "text": p.label, "start": p.start, "end": p.end, "bytes": p.byte_count} for p in found
    ]
    assert (told["count"], told["bytes"]) == (len(found), len(text.encode()))
    assert told["bytes_per_token"] == pytest.approx(told["bytes"] / told["count"])
    assert client.predict("", api_name="/tokenize") == {"tokens": [], "count": 0, "bytes": 0, "bytes_per_token": None}
    for bad, message in ((7, "text: expected text, got int"), ("a" * 100_001, "at most 100,000 characters")):
        with pytest.raises(AppError, match=message):
            client.predict(bad, api_name="/tokenize")
    client.close()
