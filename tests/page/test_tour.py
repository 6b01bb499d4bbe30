"""The guided tour in a browser: one link starts it, the keyboard leads through it, its links open the other tabs."""

from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from panels.formats import percent
from panels.models import load_model
from panels.sampling import settings_from
from panels.tabs.tour.tour import take_tour
from panels.tabs.tour.view import STEPS
from tests.page.test_look import LOOK


def test_the_tour_by_keyboard(lab_page: Any, lab_run: Path) -> None:
    page = lab_page
    page.get_by_role("link", name="Take the tour").focus()
    page.keyboard.press("Enter")
    tour = page.locator(".tour")
    heading = page.locator(".tour h2:focus")
    expect(heading).to_have_text(f"1. {STEPS[0]}")
    text = page.locator("#tour-text textarea").input_value()
    seed = int(tour.get_attribute("data-seed"))
    expected = take_tour(load_model(lab_run.parents[1] / "bundle"), text, settings_from(seed=seed))
    assert page.locator(".tour .tokens .token").all_text_contents() == [
        f"{each.label}{each.token_id}" for each in expected.tokens
    ]
    for number, name in list(enumerate(STEPS, 1))[1:]:
        page.keyboard.press("ArrowRight")
        expect(heading).to_have_text(f"{number}. {name}")
        assert page.locator(".tour .step:visible").count() == 1
        assert page.locator('.tour [aria-current="step"]').inner_text().split() == [str(number), *name.split()]
        assert page.evaluate(LOOK) == []
    expect(page.locator(".tour .step:visible")).to_contain_text(f"{expected.draw.uniform:.4f}")
    page.keyboard.press("ArrowRight")  # there is no further step
    expect(heading).to_have_text(f"6. {STEPS[5]}")
    page.keyboard.press("ArrowLeft")
    shown = page.locator(".tour .odds tbody tr").all_inner_texts()
    assert [row.split("\t")[2] for row in shown] == [percent(each.probability) for each in expected.following]

    page.get_by_role("button", name="6 Next token").click()
    page.get_by_role("button", name="Draw again").click()
    expect(tour).not_to_have_attribute("data-seed", str(seed))
    expect(page.get_by_role("button", name="Draw again")).to_be_focused()  # it draws on, at the same step
    seed = tour.get_attribute("data-seed")
    page.get_by_role("button", name="Draw again").dblclick()
    expect(tour).not_to_have_attribute("data-seed", str(seed))
    page.wait_for_timeout(1000)  # for a second answer
    expect(page.locator(".tour .step:visible h2")).to_have_text(f"6. {STEPS[5]}")
    page.keyboard.press("Escape")
    expect(page.locator("#tour-text textarea")).to_be_focused()
    assert page.locator(".tour .step:visible").count() == 0
    page.get_by_role("button", name="Back to the tour, step 6").click()
    expect(heading).to_have_text(f"6. {STEPS[5]}")


def test_each_step_leads_to_its_tab(lab_page: Any) -> None:
    page = lab_page
    page.get_by_role("tab", name="Tour").click()
    page.locator("#tour-text textarea").fill("the cat saw")
    page.locator("#tour-text textarea").press("Control+Enter")
    page.locator('.tour[data-text="the cat saw"]').wait_for()
    for number, tab in ((4, "Inside"), (3, "Inside"), (1, "Tokens"), (2, "About"), (6, "Write")):
        page.get_by_role("tab", name="Tour").click()
        page.locator(f'.tour nav [data-step="{number - 1}"]').click()
        page.locator(".tour .step:visible a").click()
        page.get_by_role("tab", name=tab, selected=True).wait_for()
        if tab == "Inside":
            page.get_by_role("region", name="Attention" if number == 4 else "Logit lens").wait_for()
            assert page.locator("#inside-text textarea").input_value() == "the cat saw"
        elif tab == "Tokens":
            expect(page.locator("#tokens-view .counts").first).to_contain_text("11 characters")
        elif tab == "Write":
            expect(page.locator("#document textarea")).to_have_value("the cat saw")
    page.get_by_role("tab", name="Tour").click()
    page.locator("#tour-text textarea").fill("x" * 301)
    page.locator("#tour-start").click()
    page.locator("#tour-status").get_by_text("text: expected at most 300 characters, got 301.").wait_for()
    expect(page.locator(".tour")).to_have_count(0)
