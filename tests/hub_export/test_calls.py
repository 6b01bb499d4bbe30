"""Every way in which the network fails under a call of the Hub, over real HTTP: it is tried again, and explained."""

from collections.abc import Iterator
from typing import Any

import pytest

from hub_export.client import Conversation
from tests.network_faults import FAULTS, serve_faults


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serve_faults() as url:
        yield url


def failure(endpoint: str, repo: str) -> tuple[str, int]:
    """The message of a call, and how often it was tried again."""
    from huggingface_hub import HfApi

    api: Any = HfApi(endpoint=endpoint, token=False)
    hub = Conversation(api=api, waits=(0.0,))
    with pytest.raises(ValueError, match="Nothing has been uploaded") as caught:
        hub.call("looking for it", api.model_info, repo, timeout=0.3)
    return str(caught.value), hub.tries


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items())
def test_every_way_in_which_the_network_fails_is_explained(address: str, fault: str, reason: str) -> None:
    message, tries = failure(address, f"alice/{fault}")
    assert message.startswith("looking for it: the Hub cannot be reached (")
    assert reason in message
    assert message.endswith(
        "Check the network. Run the same command again in a while; it goes on where this one stopped."
    )
    assert tries == 1


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_a_hub_that_is_not_there_is_explained(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    message, tries = failure(endpoint, "alice/moons")
    assert message.startswith("looking for it: the Hub cannot be reached (")
    assert tries == 1


def test_an_answer_that_is_no_json_is_explained(address: str) -> None:
    message, tries = failure(address, "alice/portal")
    assert message.startswith("looking for it: the Hub answered something that is no JSON.")
    assert tries == 1
