"""Stop that is pressed before the server knows of the request."""

import re
from typing import Any

from playwright.sync_api import expect

from tests.page.writing import field, opened
from tests.serving import button, set_length

LATE = """
() => {
  const send = window.fetch;
  window.fetch = async (address, options) => {
    const isRequest = String(address).includes("queue/join") && String(options?.body).includes("The lamp is late");
    if (isRequest) await new Promise((resolve) => setTimeout(resolve, 1500));
    return send(address, options);
  };
}
"""


def test_it_stops_the_request_when_it_arrives(browsing: Any, slow_address: str) -> None:
    page = opened(browsing, slow_address)
    page.evaluate(LATE)
    field(page).fill("The lamp is late")
    set_length(page, 1000)
    button(page, "Generate").click()
    button(page, "Stop").click()
    expect(page.locator("#status")).to_contain_text(re.compile(r"Stopped\.|Nothing was written\."))
    expect(button(page, "Stop")).to_be_disabled()
