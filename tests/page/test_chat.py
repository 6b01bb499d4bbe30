"""The Chat tab in the browser: questions, answers as they grow, Stop, mistakes, the keyboard, what is kept."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from docs.screenshot import open_tab
from panels.models import load_model
from panels.tabs.chat.conversation import answer
from tests.page.test_kills import crash
from tests.panels.test_chat import context_of, save_chat_checkpoint
from tests.panels.tiny_model import PROMPTS
from tests.serving import Window, button, equals, free_port, serving, wait_until

STORED = """
() => Object.keys(localStorage).filter((key) => key.startsWith("scratchgpt.chat.text."))
  .map((key) => JSON.parse(localStorage.getItem(key)))
"""
TURN, WORDS = "#chat-log .turn", "#chat-log .turn > .words"


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template, slow enough to be stopped, which never ends an answer."""
    return save_chat_checkpoint(tmp_path_factory.mktemp("chat") / "chat", layers=64)


@pytest.fixture(scope="module")
def chat_address(chat_model: Path) -> Iterator[str]:
    """Address of its page."""
    with serving(chat_model, cwd=chat_model.parent) as (address, _):
        yield address


@pytest.fixture(scope="module")
def chat_window(browser: Any, chat_address: str) -> Iterator[Window]:
    """Its page in a window."""
    window = Window(browser, chat_address)
    yield window
    window.page.close()


@pytest.fixture
def page(chat_window: Window) -> Iterator[Any]:
    """The tab with a new chat, seed 5 and 8 tokens an answer."""
    with chat_window.lent() as page:
        open_tab(page, "Chat")
        ready(page)
        button(page, "New chat").click()
        expect(page.locator(TURN)).to_have_count(0)
        set_up(page)
        yield page


def ready(page: Any) -> None:
    page.locator("#chat-send:not([disabled])").wait_for(timeout=120_000)


def opened(browsing: Any, address: str) -> Any:
    """The tab in a new tab of the browser, with its chat."""
    page = browsing.new_page()
    page.goto(address, timeout=120_000)
    open_chat(page)
    return page


def open_chat(page: Any) -> None:
    page.get_by_text("Ready.", exact=True).first.wait_for(timeout=120_000)
    open_tab(page, "Chat")
    ready(page)


def set_up(page: Any, tokens: int = 8, seed: str = "5") -> None:
    """Length and seed, in the settings, which are folded again."""
    fold(page, is_open=True)
    page.locator("#chat-seed :is(input, textarea)").fill(seed)
    length = page.locator("#chat-max_new_tokens input[type=number]")
    length.fill(str(tokens))
    length.blur()
    fold(page, is_open=False)


def fold(page: Any, *, is_open: bool) -> None:
    """Open or fold the settings, whatever they are; the page folds them itself when it is laid out."""

    def is_so() -> bool:
        if page.locator("#chat-seed").is_visible() == is_open:
            return True
        page.locator("#chat-settings > button.label-wrap").click()
        page.wait_for_timeout(300)
        return False

    wait_until(is_so)


def field(page: Any) -> Any:
    return page.get_by_label("Your message")


def status(page: Any) -> Any:
    return page.locator("#chat-status")


def words(page: Any) -> list[str]:
    """What is said, turn by turn."""
    return page.locator(WORDS).evaluate_all("(all) => all.map((each) => each.textContent)")


def ask(page: Any, question: str) -> list[str]:
    """Ask, and wait for the end of the answer; what is said by then."""
    field(page).fill(question)
    page.keyboard.press("Enter")
    over(page)
    return words(page)


def over(page: Any) -> None:
    """Wait until an answer that was asked for is over."""
    expect(status(page)).to_contain_text("The answer has the length that was set")
    page.locator("#chat-retry:not([disabled])").wait_for()


def begin(page: Any) -> None:
    """Ask for a long answer, and wait for its first words."""
    set_up(page, tokens=1000)
    turns = len(words(page)) + 2
    button(page, "Send").click()
    wait_until(lambda: len(said := words(page)) == turns and len(said[-1]) > 3)


def stored(page: Any) -> list[list[str]]:
    """What the browser keeps: the name of each chat and what is said in it."""
    chats = page.evaluate(STORED)
    return sorted([chat["name"], *(message["content"] for message in chat["messages"])] for chat in chats)


def answer_of(model: Path, messages: list[dict[str, str]], seed: int = 5) -> str:
    """What the model answers, asked without the page."""
    *_, last = answer(context_of(load_model(model)), messages, seed=seed, max_new_tokens=8)
    return last.text.strip()


def test_two_turns_are_those_of_the_model_and_a_new_chat_is_empty(page: Any, chat_model: Path) -> None:
    said = ask(page, "The lamp?\n<b>Who?</b>")
    messages = [{"role": "user", "content": "The lamp?\n<b>Who?</b>"}]
    assert said == ["The lamp?\n<b>Who?</b>", answer_of(chat_model, messages)]
    expect(field(page)).to_have_value("")
    expect(field(page)).to_be_focused()
    messages += [{"role": "assistant", "content": said[1]}, {"role": "user", "content": "And the sea?"}]
    assert ask(page, "And the sea?") == [*said, "And the sea?", answer_of(chat_model, messages)]
    expect(page.locator("#chats summary .name")).to_have_text("The lamp?")
    button(page, "New chat").click()
    expect(page.locator(TURN)).to_have_count(0)
    expect(field(page)).to_be_focused()
    expect(page.locator("#chat-log .empty")).to_be_visible()
    expect(button(page, "Answer again")).to_be_disabled()


def test_stop_keeps_what_is_there_and_the_question_can_be_asked_again(page: Any) -> None:
    field(page).fill("The lamp?")
    begin(page)
    expect(button(page, "Send")).to_be_disabled()
    expect(button(page, "Stop")).to_be_focused()  # Send, which had the focus, cannot be pressed
    field(page).fill("typed meanwhile")
    page.keyboard.press("Escape")
    expect(status(page)).to_contain_text("Stopped.")
    ready(page)
    first = words(page)
    assert (len(first), field(page).input_value()) == (2, "typed meanwhile")
    assert first[1]
    set_up(page, seed="6")  # another text, wherever the first one was stopped
    button(page, "Answer again").click()
    over(page)
    second = words(page)
    assert second[0] == "The lamp?"
    assert second[1] != first[1]
    earlier = page.locator(f"{TURN} details")
    earlier.get_by_text("1 earlier answer").click()
    assert earlier.locator(".words").all_text_contents() == [first[1]]
    assert field(page).input_value() == "typed meanwhile"


def test_the_old_answer_is_kept_until_the_new_one_begins(browsing: Any, chat_address: str) -> None:
    page = opened(browsing, chat_address)
    set_up(page)
    said = ask(page, "The lamp?")
    equals(lambda: stored(page), [["The lamp?", *said]])
    page.route("**/queue/join*", lambda route: None)  # the request stays on its way
    button(page, "Answer again").click()
    expect(button(page, "Stop")).to_be_enabled()
    field(page).fill("typed meanwhile")
    assert stored(page) == [["The lamp?", *said]]
    set_up(page, tokens=9)  # a moved setting is stored as well
    equals(lambda: page.evaluate(STORED)[0]["settings"]["max_new_tokens"], "9")
    assert stored(page) == [["The lamp?", *said]]
    page.on("dialog", lambda dialog: dialog.accept())  # it asks before an answer is lost
    page.unroute("**/queue/join*")
    page.reload()
    open_chat(page)
    assert words(page) == said
    expect(field(page)).to_have_value("typed meanwhile")


def test_a_mistake_is_said_and_the_chat_stays(page: Any) -> None:
    said = ask(page, "The lamp?")
    set_up(page, seed="x")
    field(page).fill("And the sea?")
    button(page, "Send").click()
    expect(status(page)).to_contain_text("seed: expected")
    expect(field(page)).to_have_value("And the sea?")
    assert words(page) == said
    button(page, "Answer again").click()
    expect(status(page)).to_contain_text("seed: expected")
    expect(field(page)).to_have_value("And the sea?")
    wait_until(lambda: words(page) == said)
    field(page).fill("  ")
    button(page, "Send").click()
    expect(status(page)).to_contain_text("Write a message first.")


def test_a_message_from_right_to_left_is_laid_out_so(page: Any) -> None:
    direction = "(element) => getComputedStyle(element).direction"
    field(page).fill("שלום עולם")
    assert field(page).evaluate(direction) == "rtl"
    page.keyboard.press("Enter")
    over(page)
    assert page.locator(WORDS).first.evaluate(direction) == "rtl"
    assert page.locator(WORDS).first.evaluate("(element) => getComputedStyle(element).unicodeBidi") == "plaintext"


def test_the_keyboard_alone_asks_and_chooses_an_example(page: Any) -> None:
    field(page).focus()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    assert field(page).input_value() == "one\ntwo"
    page.keyboard.press("Control+Enter")
    over(page)
    assert words(page)[0] == "one\ntwo"
    page.keyboard.press("Tab")
    expect(button(page, "Send")).to_be_focused()
    for name in ("Answer again", "New chat"):  # Stop cannot be pressed
        page.keyboard.press("Tab")
        expect(button(page, name)).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(field(page)).to_have_value(PROMPTS[0])
    expect(field(page)).to_be_focused()
    page.keyboard.press("Control+z")
    expect(field(page)).to_have_value("")


def test_a_reload_and_a_second_tab_keep_their_chats(browsing: Any, chat_address: str, tmp_path: Path) -> None:
    first = opened(browsing, chat_address)
    set_up(first)
    said = ask(first, "The lamp?")
    field(first).fill("not sent")
    second = opened(browsing, chat_address)
    assert words(second) == []
    expect(field(second)).to_have_value("")
    set_up(second)
    other = ask(second, "The sea?")
    equals(lambda: stored(first), [["The lamp?", *said], ["The sea?", *other]])
    for page, expected, typed in ((first, said, "not sent"), (second, other, "")):
        page.reload()
        open_chat(page)
        equals(partial(words, page), expected)
        expect(field(page)).to_have_value(typed)
        expect(page.locator("#chat-seed :is(input, textarea)")).to_have_value("5")
    first.close()
    second.locator("#chats summary").click()
    rows = second.locator("#chats li")
    expect(rows).to_have_count(2)
    second.wait_for_function(
        "navigator.locks.query().then(({ held }) => held.filter(({ name }) => name.includes('.chat.')).length === 1)"
    )
    rows.get_by_role("button", name="The lamp?").first.click()
    expect(field(second)).to_have_value("not sent")
    equals(lambda: words(second), said)
    files = {}
    for kind in ("txt", "json"):
        with second.expect_download() as download:
            second.locator("#chats").get_by_role("button", name=f"Export .{kind}").click()
        assert download.value.suggested_filename == f"The lamp_.{kind}"
        files[kind] = tmp_path / f"chat.{kind}"
        download.value.save_as(files[kind])
    assert files["txt"].read_text(encoding="utf-8") == f"You: The lamp?\n\nModel: {said[1]}\n\nnot sent"
    exported = json.loads(files["json"].read_text(encoding="utf-8"))
    assert [message["content"] for message in exported["messages"]] == said
    button(second, "New chat").click()
    expect(second.locator(TURN)).to_have_count(0)
    chooser = second.locator("#chats input[type=file]")
    chooser.set_input_files(files["json"])
    expect(second.locator("#chats summary .name")).to_have_text("The lamp? (copy)")
    equals(lambda: words(second), said)
    wrong = exported | {"messages": [{"role": "tool", "content": "x"}]}
    for name, content, message in (
        ("x.json", json.dumps(wrong), "expected messages of user and assistant"),
        ("x.txt", "x", "expected a .json file"),
    ):
        chooser.set_input_files({"name": name, "mimeType": "text/plain", "buffer": content.encode()})
        expect(second.locator("#chats .trouble")).to_have_text(f"{name} was not imported: {message}.")
    assert words(second) == said


@pytest.mark.slow
def test_a_killed_server_or_page_loses_no_character(browsing: Any, chat_model: Path) -> None:
    port = free_port()
    with serving(chat_model, cwd=chat_model.parent, port=port) as (address, process):
        page = opened(browsing, address)
        field(page).fill("The lamp?")
        begin(page)
        shown = words(page)
        process.kill()
        expect(status(page)).to_contain_text("The connection to the server is lost. The chat is kept")
        said = words(page)
        assert [said[0], said[1][: len(shown[1])]] == shown
        field(page).fill("typed without a server")
    with serving(chat_model, cwd=chat_model.parent, port=port) as (address, _):
        page.wait_for_event("load", timeout=120_000)  # Gradio's page loads again by itself
        open_chat(page)
        assert words(page) == said
        assert field(page).input_value() == "typed without a server"
        begin(page)
        shown = words(page)
        crash(page)
        page = opened(browsing, address)
        found = words(page)
        assert found[:3] == [*said, "typed without a server"]
        assert found[3].startswith(shown[3])


def test_what_is_stored_broken_is_left_out_with_a_line(browsing: Any, chat_address: str) -> None:
    page = browsing.new_page()
    page.goto(f"{chat_address}/gradio_api/app_id")
    records = [
        {"version": 1, "name": "a", "messages": 5},
        {"version": 1, "name": "b", "messages": [{"role": "system", "content": "x"}]},
        {"version": 1, "name": "c", "messages": [{"role": "user", "content": None}]},
        {"version": 1, "name": "d", "messages": [{"role": "user", "content": "kept"}]},
    ]
    page.evaluate(
        "(all) => all.forEach((one) => localStorage.setItem(`scratchgpt.chat.text.${one.name}`, JSON.stringify(one)))",
        records,
    )
    page.goto(chat_address)
    open_chat(page)
    wait_until(lambda: words(page) == ["kept"])
    expect(page.locator("#chats .trouble")).to_contain_text(
        "3 stored chats cannot be read and are left out: it is broken"
    )
    expect(button(page, "Answer again")).to_be_enabled()


def test_enter_that_ends_a_composition_sends_nothing(page: Any) -> None:
    field(page).fill("ランプ")
    press = "(field, more) => field.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true, ...more}))"
    field(page).evaluate(press, {"isComposing": True})
    field(page).evaluate(press, {"keyCode": 229})  # Safari's
    page.wait_for_timeout(300)
    assert (words(page), field(page).input_value()) == ([], "ランプ")
