"""Nothing that was written is lost: reload, a second tab, undo, files, a storage that is full, off or broken."""

import json
from pathlib import Path

from tests.page.test_write import TOKEN, over
from tests.page.writing import begin, field, keeps, name, open_list, opened, ready, shown_text, stay, trouble, write
from tests.serving import SEED, button, set_length, wait_until


def test_a_reload_and_another_tab_later_bring_text_tokens_history_and_settings_back(browsing, lab_address):
    from playwright.sync_api import expect

    page = opened(browsing, lab_address)
    expect(name(page)).to_have_text("Untitled 1")
    keeps(page)
    text = write(page, "About Ada")
    button(page, "Wild").click()
    page.get_by_label("Stop text").fill("\\n")
    field(page).press("Control+End")
    page.keyboard.type(" by hand")
    longer = text + " by hand"
    count = page.locator(TOKEN).count()
    page.wait_for_function("document.querySelector('button[aria-pressed=true][data-preset]')?.textContent === 'Wild'")
    page.wait_for_timeout(500)  # settings are looked at five times a second
    page.reload()
    for again in (page, None):
        if again is None:  # the tab is closed, and another one opened later
            page.close()
            page = opened(browsing, lab_address)
        ready(page)
        expect(field(page)).to_have_value(longer)
        expect(name(page)).to_have_text("Untitled 1")
        assert page.locator(TOKEN).count() == count
        assert page.locator(SEED).input_value() == "5"
        assert page.get_by_label("Stop text").input_value() == "\\n"
        assert page.get_by_label("number input for Length", exact=True).input_value() == "20"
        page.locator("button[aria-pressed='true'][data-preset]", has_text="Wild").wait_for()
    page.locator(TOKEN).nth(2).focus()
    assert page.get_by_role("dialog").get_by_role("option").count() >= 10
    page.keyboard.press("Escape")
    while field(page).input_value() != text:
        button(page, "Undo").click()
    button(page, "Undo").click()
    expect(field(page)).to_have_value("About Ada")
    button(page, "Redo").click()
    expect(field(page)).to_have_value(text)
    assert page.locator(TOKEN).count() == count
    keeps(page, ["Untitled 1", text])


def test_undo_goes_back_over_typing_and_writing_in_one_order(browsing, lab_address):
    from playwright.sync_api import expect

    page = opened(browsing, lab_address)
    document = field(page)
    document.press_sequentially("About")
    texts = ["About"]
    for step in (" by hand", " and more"):
        document.press("Control+End")
        page.locator(SEED).fill("5")
        set_length(page, 4)
        page.locator("#generate").click()
        wait_until(lambda: document.input_value() != texts[-1])
        over(page)
        texts.append(document.input_value())
        document.press("Control+End")
        page.evaluate("(text) => document.execCommand('insertText', false, text)", step)
        texts.append(document.input_value())
    assert texts[-1].endswith(" and more")
    for text in texts[-2::-1]:
        document.press("Control+z")
        expect(document).to_have_value(text)
    for keys, text in zip(("Control+Shift+z", "Control+y") * 2, texts[1:], strict=True):
        document.press(keys)
        expect(document).to_have_value(text)
    document.press("Control+y")
    expect(document).to_have_value(texts[-1])
    undo = "(field) => field.dispatchEvent(new InputEvent('beforeinput', {inputType: 'historyUndo', cancelable: true}))"
    document.evaluate(undo)  # the browser's own menu
    expect(document).to_have_value(texts[-2])
    page.keyboard.type("X")
    expect(button(page, "Redo")).to_be_disabled()


def test_two_tabs_have_a_text_each_and_a_list_opens_renames_and_deletes(browsing, lab_address):
    from playwright.sync_api import expect

    first = opened(browsing, lab_address)
    field(first).fill("One")
    second = opened(browsing, lab_address)
    expect(name(second)).to_have_text("Untitled 2")
    expect(field(second)).to_have_value("")
    field(second).fill("Two")
    field(first).press_sequentially(" more")
    for page in (first, second):
        page.reload()
        ready(page)
    expect(field(first)).to_have_value("One more")
    expect(field(second)).to_have_value("Two")

    rows = open_list(second)
    expect(rows).to_have_count(2)
    rows.get_by_role("button", name="Untitled 1 8 characters").click()
    expect(trouble(second)).to_have_text("That text is open in another tab.")
    second.get_by_role("button", name="Delete Untitled 1").click()
    second.locator("[data-act=delete-now]").click()
    expect(trouble(second)).to_have_text("That text is open in another tab: delete it there.")
    second.get_by_role("button", name="Rename Untitled 2").click()
    second.get_by_label("New name").fill("<b>Dos</b>")
    second.keyboard.press("Enter")
    expect(second.locator("#texts summary .name")).to_have_text("<b>Dos</b>")
    keeps(second, ["<b>Dos</b>", "Two"], ["Untitled 1", "One more"])

    first.close()
    second.wait_for_function("navigator.locks.query().then(({ held }) => held.length === 1)")  # the other is closed
    rows.get_by_role("button", name="Untitled 1 8 characters").click()
    expect(field(second)).to_have_value("One more")
    second.get_by_role("button", name="Delete <b>Dos</b>").click()
    expect(second.locator("#texts .question")).to_have_text("Delete “<b>Dos</b>” for good?")
    second.locator("[data-act=cancel]").click()
    second.get_by_role("button", name="New text").click()
    expect(field(second)).to_have_value("")
    expect(name(second)).to_have_text("Untitled 2")
    field(second).fill("Three")
    second.get_by_role("button", name="Delete Untitled 2").click()
    second.locator("[data-act=delete-now]").click()
    expect(field(second)).to_have_value("")
    keeps(second, ["<b>Dos</b>", "Two"], ["Untitled 1", "One more"])


def test_the_same_text_in_two_tabs_becomes_a_copy(browsing, lab_address):
    from playwright.sync_api import expect

    first = opened(browsing, lab_address)
    field(first).fill("One")
    keeps(first, ["Untitled 1", "One"])
    opened_id = first.evaluate("sessionStorage.getItem('scratchgpt.write.open')")
    # As "Duplicate tab" does, which copies the storage of the tab.
    duplicate = browsing.new_page()
    duplicate.add_init_script(f"sessionStorage.setItem('scratchgpt.write.open', '{opened_id}')")
    duplicate.goto(lab_address)
    ready(duplicate)
    expect(field(duplicate)).to_have_value("One")
    expect(name(duplicate)).to_have_text("Untitled 1 (copy)")
    field(duplicate).fill("Two")
    keeps(first, ["Untitled 1", "One"], ["Untitled 1 (copy)", "Two"])
    first.close()
    duplicate.close()

    # Without locks, as over plain http from another computer, the last tab has the text, and the first one notices.
    browsing.add_init_script("Object.defineProperty(Navigator.prototype, 'locks', { value: undefined })")
    first, second = opened(browsing, lab_address), opened(browsing, lab_address)
    expect(field(first)).to_have_value("Two")
    expect(field(second)).to_have_value("Two")
    field(second).fill("Two b")
    keeps(first, ["Untitled 1", "One"], ["Untitled 1 (copy)", "Two b"])
    field(first).fill("Two a")
    expect(trouble(first)).to_contain_text("What you write here is kept as “Untitled 1 (copy) (copy)”.")
    keeps(first, ["Untitled 1", "One"], ["Untitled 1 (copy)", "Two b"], ["Untitled 1 (copy) (copy)", "Two a"])


def test_a_text_leaves_as_files_and_comes_back(browsing, browser, lab_address, tmp_path):
    from playwright.sync_api import expect

    page = opened(browsing, lab_address)
    text = write(page, "About é 😀\n<b>")
    button(page, "Careful").click()
    open_list(page)
    files = {}
    for kind in ("txt", "json"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Export .{kind}").click()
        assert download.value.suggested_filename == f"Untitled 1.{kind}"
        files[kind] = tmp_path / f"story.{kind}"
        download.value.save_as(files[kind])
    assert files["txt"].read_text(encoding="utf-8") == text
    exported = json.loads(files["json"].read_text(encoding="utf-8"))
    assert (exported["text"], exported["settings"]["seed"]) == (text, "5")
    assert exported["model"] == page.locator("#masthead h1").inner_text()

    other = browser.new_context()
    page = opened(other, lab_address)
    open_list(page)
    chooser = page.locator("#texts input[type=file]")
    chooser.set_input_files(files["json"])
    expect(field(page)).to_have_value(text)
    expect(name(page)).to_have_text("Untitled 1")
    assert page.locator(TOKEN).count() == 20
    page.locator("button[aria-pressed='true'][data-preset]", has_text="Careful").wait_for()
    button(page, "Undo").click()
    expect(field(page)).to_have_value("About é 😀\n<b>")
    chooser.set_input_files({"name": "poem.txt", "mimeType": "text/plain", "buffer": b"a\r\nb\rc"})
    expect(field(page)).to_have_value("a\nb\nc")
    expect(name(page)).to_have_text("poem")
    wrong = {
        "{": "expected JSON",
        "5": 'expected a file that this page exported, with "format": "scratchgpt-text"',
        json.dumps(exported | {"version": 9}): "expected version 1, got 9",
        json.dumps(exported | {"text": "other"}): "expected the text that its history ends with",
        json.dumps(exported | {"history": {"version": 1}}): "expected a list of states",
    }
    for content, message in wrong.items():
        chooser.set_input_files({"name": "x.json", "mimeType": "application/json", "buffer": content.encode()})
        expect(trouble(page)).to_have_text(f"x.json was not imported: {message}.")
        assert field(page).input_value() == "a\nb\nc"
    other.close()


def test_a_storage_that_is_off_or_full_is_said_and_the_page_goes_on(browser, lab_address):
    from playwright.sync_api import expect

    off = browser.new_context()
    off.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name, "
        "{ get() { throw new DOMException('denied', 'SecurityError'); } });"
    )
    page = opened(off, lab_address)
    expect(trouble(page)).to_contain_text("its storage is switched off. A reload loses the text. Export it to keep it.")
    text = write(page, "About")
    button(page, "Undo").click()
    expect(field(page)).to_have_value("About")
    open_list(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export .txt").click()
    assert Path(download.value.path()).read_text(encoding="utf-8") == "About" != text
    stay(page)
    off.close()

    full = browser.new_context()
    page = opened(full, lab_address)
    field(page).fill("kept")
    page.evaluate(
        """() => {
          for (let size = 4_000_000; size >= 1; size = Math.floor(size / 2)) {
            try {
              for (let n = 0; ; n++) localStorage.setItem(`filler${size}.${n}`, "x".repeat(size));
            } catch { /* full */ }
          }
        }"""
    )
    field(page).fill("too long for what is left, even without its history" * 40)
    expect(trouble(page)).to_contain_text(
        "The browser's storage is full. The text is not kept over a reload. Export it"
    )
    expect(page.locator("#texts .stored")).to_have_text("not kept")
    written = write(page, "About" * 200)
    assert written.startswith("About" * 200)
    keeps(page, ["Untitled 1", "kept"])
    fillers = "Object.keys(localStorage).filter((key) => key.startsWith('filler'))"
    page.evaluate(f"() => {fillers}.forEach((key) => localStorage.removeItem(key))")
    field(page).press("Control+End")
    page.keyboard.type("!")
    expect(trouble(page)).to_be_hidden()
    page.reload()
    ready(page)
    expect(field(page)).to_have_value(written + "!")
    full.close()


def test_what_is_stored_broken_or_by_another_version_is_left_out_with_a_line(browsing, lab_address):
    from playwright.sync_api import expect

    page = opened(browsing, lab_address)
    write(page, "About")
    text = field(page).input_value()
    page.goto(f"{lab_address}/gradio_api/app_id")  # the same storage, and no script that writes to it
    page.evaluate(
        """() => {
          const [history] = Object.keys(localStorage).filter((key) => key.includes(".history."));
          localStorage.setItem(history, "{broken");
          localStorage.setItem("scratchgpt.write.text.a", "{broken");
          localStorage.setItem("scratchgpt.write.text.b", JSON.stringify({version: 7, name: "b", text: "new"}));
          localStorage.setItem("scratchgpt.write.text.c", JSON.stringify({version: 1, name: 5, text: null}));
          localStorage.setItem("scratchgpt.write.text.d", "5");
          localStorage.setItem("other", "{");
        }"""
    )
    page.goto(lab_address)
    ready(page)
    expect(field(page)).to_have_value(text)
    expect(trouble(page)).to_contain_text("4 stored texts cannot be read and are left out: it is ")
    expect(trouble(page)).to_contain_text(
        "The undo history of this text cannot be read (expected JSON) and is left out."
    )
    assert page.locator(TOKEN).count() == 0
    assert write(page, text).startswith(text)
    rows = open_list(page)
    expect(rows).to_have_count(5)
    expect(rows.filter(has_text="it is of version 7, this page knows version 1")).to_have_count(1)
    with page.expect_download() as download:
        rows.filter(has_text="version 7").get_by_role("button", name="Save as file").click()
    assert json.loads(Path(download.value.path()).read_text())["text"] == "new"


def test_beginnings_lie_under_the_text_on_the_first_screen_of_a_phone(browser, slow_address):
    from playwright.sync_api import expect

    phone = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = opened(phone, slow_address)
    box, beginning = page.locator("#document").bounding_box(), page.locator("[data-beginning]").first.bounding_box()
    assert 0 < beginning["y"] - box["y"] - box["height"] < 80
    assert button(page, "Generate").bounding_box()["y"] < 844 - 46
    field(page).fill("mine")
    page.locator("[data-beginning]").last.tap()
    expect(field(page)).to_have_value("She asked, and")
    button(page, "Undo").tap()
    expect(field(page)).to_have_value("mine")
    phone.close()


def test_a_file_that_is_read_slowly_takes_no_place_of_a_text_that_is_being_written(browsing, slow_address):
    from playwright.sync_api import expect

    page = opened(browsing, slow_address)
    open_list(page)
    page.evaluate(
        """() => {
          const read = Blob.prototype.arrayBuffer;
          Blob.prototype.arrayBuffer = async function () {
            await new Promise((resolve) => setTimeout(resolve, 3000));
            return read.call(this);
          };
        }"""
    )
    field(page).fill("The lamp")
    file = {"name": "poem.txt", "mimeType": "text/plain", "buffer": b"a poem"}
    page.locator("#texts input[type=file]").set_input_files(file)
    begin(page)
    expect(trouble(page)).to_have_text("The model is writing: stop it first.")
    assert shown_text(page).startswith("The lamp")
    page.keyboard.press("Escape")


def test_a_name_is_composed_with_an_input_method(browsing, lab_address):
    from playwright.sync_api import expect

    page = opened(browsing, lab_address)
    field(page).fill("One")
    open_list(page)
    page.get_by_role("button", name="Rename Untitled 1").click()
    new = page.get_by_label("New name")
    new.fill("か")
    press = "(field, key) => field.dispatchEvent(new KeyboardEvent('keydown', {key, isComposing: true, bubbles: true}))"
    for key in ("Enter", "Escape"):
        new.evaluate(press, key)
    expect(new).to_be_focused()
    new.press("Enter")
    expect(name(page)).to_have_text("か")


def test_a_file_that_is_not_utf_8_is_read_as_what_it_is(browsing, lab_address):
    from playwright.sync_api import expect

    page = opened(browsing, lab_address)
    importing = page.locator("#texts input[type=file]")
    text = "Bäume und „Lampen“"
    for encoding, said in (
        ("utf-8-sig", ""),
        ("utf-16", ""),
        ("cp1252", "it was read as Windows-1252."),
        ("utf-8", ""),
    ):
        importing.set_input_files(
            {"name": f"{encoding}.txt", "mimeType": "text/plain", "buffer": text.encode(encoding)}
        )
        expect(name(page)).to_have_text(encoding)
        expect(field(page)).to_have_value(text)
        expect(trouble(page)).to_contain_text(said) if said else expect(trouble(page)).to_be_hidden()
    for raw, message in (
        (b"PK\x03\x04\x00\x00", "expected a text, got binary data"),
        (b"\xff\xfe\x00\xdc", "expected utf-16le, as its first bytes say, got bytes that are none"),
    ):
        importing.set_input_files({"name": "x.txt", "mimeType": "text/plain", "buffer": raw})
        expect(trouble(page)).to_have_text(f"x.txt was not imported: {message}.")
        expect(field(page)).to_have_value(text)


def test_a_text_that_another_tab_deletes_while_it_is_renamed_is_gone(browsing, lab_address):
    from playwright.sync_api import expect

    first = opened(browsing, lab_address)
    for words in ("One", "Two", "Three"):
        field(first).fill(words)
        expect(first.locator("#texts .stored")).to_have_text("kept in this browser")
        open_list(first)
        first.locator("#texts [data-act=new]").click()
        expect(field(first)).to_have_value("")
    second = opened(browsing, lab_address)
    for page in (first, second):
        open_list(page)
    row = first.locator("#texts li").filter(has_text="Untitled 2")
    row.get_by_role("button", name="Rename").click()
    first.get_by_label("New name").fill("A ghost")
    row = second.locator("#texts li").filter(has_text="Untitled 2")
    row.get_by_role("button", name="Delete").click()
    second.get_by_role("button", name="Delete", exact=True).click()
    keeps(second, ["Untitled 1", "One"], ["Untitled 3", "Three"])
    first.get_by_label("New name").press("Enter")
    expect(trouble(first)).to_have_text("That text is not stored any more: another tab deleted it.")
    keeps(first, ["Untitled 1", "One"], ["Untitled 3", "Three"])
    expect(first.locator("#texts li")).to_have_count(2)
