"""Nothing that was written is lost when the page or its server is killed, or left while the model writes."""

import json
import random
import time
from typing import Any

import pytest

from tests.page.test_write import TOKEN
from tests.page.writing import begin, field, open_list, opened, ready, shown_text, stay, trouble
from tests.serving import button, free_port, serving, set_length, wait_until


@pytest.mark.slow
def test_leaving_while_the_model_writes_asks(browsing, slow_address):
    from playwright.sync_api import expect

    page = opened(browsing, slow_address)
    field(page).fill("The lamp")
    set_length(page, 1000)
    page.locator("#generate").click()
    wait_until(lambda: page.locator(TOKEN).count() > 0)
    open_list(page)
    button(page, "New text").click()
    expect(trouble(page)).to_have_text("The model is writing: stop it first.")
    stay(page)
    expect(page.locator("#status")).to_contain_text("The attempt to leave ended the connection")
    text = shown_text(page)
    assert text.startswith("The lamp")
    page.reload()  # nothing is asked any more
    ready(page)
    expect(field(page)).to_have_value(text)


@pytest.mark.slow
def test_a_killed_server_or_page_loses_no_character(browsing, slow_model):
    from playwright.sync_api import expect

    port = free_port()
    with serving(slow_model, cwd=slow_model.parent, port=port) as (address, process):
        page = opened(browsing, address)
        field(page).fill("The lamp")
        begin(page)
        page.wait_for_timeout(300)
        shown = shown_text(page)
        process.kill()
        expect(page.locator("#status")).to_contain_text("The connection to the server is lost. The text is kept")
        text = field(page).input_value()
        assert text.startswith(shown)
        assert len(shown) > len("The lamp")
        button(page, "Undo").click()
        expect(field(page)).to_have_value("The lamp")
        field(page).press("Control+Shift+z")
        expect(field(page)).to_have_value(text)
        page.keyboard.type(" typed without a server")
    with serving(slow_model, cwd=slow_model.parent, port=port):
        page.wait_for_event("load", timeout=120_000)  # Gradio's page loads again by itself
        ready(page)
        expect(field(page)).to_have_value(text + " typed without a server")
        begin(page)
        shown = shown_text(page)
        crash(page)
        page = opened(browsing, f"http://127.0.0.1:{port}")
        assert field(page).input_value().startswith(shown)
        assert len(shown) > len(text + " typed without a server")
        button(page, "Undo").click()
        expect(field(page)).to_have_value(text + " typed without a server")


def crash(page: Any) -> None:
    """End the page's process, without a word to the page."""
    target = page.context.new_cdp_session(page).send("Target.getTargetInfo")["targetInfo"]["targetId"]
    session = page.context.browser.new_browser_cdp_session()
    attached = session.send("Target.attachToTarget", {"targetId": target})["sessionId"]
    message = json.dumps({"id": 1, "method": "Page.crash"})
    with page.expect_event("crash"):  # the command itself is never answered
        session.send("Target.sendMessageToTarget", {"sessionId": attached, "message": message})
    page.close()


KILLS = 50


@pytest.mark.slow
def test_fifty_kills_of_page_or_server_lose_no_character(browsing, slow_model):
    choice, port = random.Random(2026), free_port()
    server = serving(slow_model, cwd=slow_model.parent, port=port)
    address, process = server.__enter__()
    page, lost, kinds = opened(browsing, address), 0, []
    for number in range(KILLS):
        field(page).fill("") if number % 10 == 0 else None
        field(page).press("Control+End")
        page.keyboard.type(f" {number}:")
        if choice.random() < 0.8:
            begin(page)
        else:
            page.keyboard.type("typed")
        time.sleep(choice.random())
        kind = choice.choice(["server", "crash", "close"])
        shown = shown_text(page)
        if kind == "server":
            process.kill()
            process.wait()
            server.__exit__(None, None, None)
            time.sleep(choice.random())
            shown = shown_text(page)
            page.evaluate("window.isOld = true")
            server = serving(slow_model, cwd=slow_model.parent, port=port)
            address, process = server.__enter__()
            if choice.random() < 0.5:
                page.goto(address, timeout=120_000)
            else:  # Gradio's page loads again by itself
                page.wait_for_function("!window.isOld", timeout=120_000)
            ready(page)
        else:
            crash(page) if kind == "crash" else page.close()
            page = opened(browsing, address)
        found = field(page).input_value()
        lost += 0 if found.startswith(shown) else len(shown)
        kinds.append(kind)
        assert lost == 0, (number, kind, shown, found)
        print(f"kill {number + 1} of {KILLS}: {kind}, {len(shown)} characters shown, {lost} lost in all", flush=True)
    server.__exit__(None, None, None)
    assert set(kinds) == {"server", "crash", "close"}
