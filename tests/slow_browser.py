"""A slow computer and a slow network for the tests of the page, to find what waits for too little:
`python -m pytest -p tests.slow_browser tests/page`. SLOW_CPU is how many times slower scripts run, SLOW_NETWORK the
milliseconds of each request, SLOW_JITTER the most that an event of Gradio's is late, at random: two of them may
change places."""

import os
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, BrowserContext

CPU = float(os.environ.get("SLOW_CPU", "4"))
NETWORK = float(os.environ.get("SLOW_NETWORK", "150"))
JITTER = float(os.environ.get("SLOW_JITTER", "300"))
LATE_EVENTS = """
const send = window.fetch;
window.fetch = async (request, ...rest) => {
  if (String(request?.url ?? request).includes("/queue/join"))
    await new Promise((sent) => setTimeout(sent, Math.random() * JITTER));
  return send(request, ...rest);
};
"""


def slowed(new_page: Callable[..., Any]) -> Callable[..., Any]:
    """The same method, whose page is slow, through the DevTools protocol's emulation."""

    def new_slow_page(self: Browser | BrowserContext, **settings: Any) -> Any:
        page = new_page(self, **settings)
        page.add_init_script(LATE_EVENTS.replace("JITTER", str(JITTER)))
        devtools = page.context.new_cdp_session(page)
        devtools.send("Emulation.setCPUThrottlingRate", {"rate": CPU})
        devtools.send("Network.enable")
        limits = {"offline": False, "latency": NETWORK, "downloadThroughput": -1, "uploadThroughput": -1}
        devtools.send("Network.emulateNetworkConditions", limits)
        return page

    return new_slow_page


Browser.new_page = slowed(Browser.new_page)
BrowserContext.new_page = slowed(BrowserContext.new_page)
