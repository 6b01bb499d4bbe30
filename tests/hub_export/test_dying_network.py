"""The network, or the Hub, dies at each request of the whole command in turn; the same command again completes it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_double import Fault, Hub
from tests.hub_export.hub_processes import Publisher

REQUESTS = {False: 18, True: 27}
"""Of a first push of the tests' bundle, without and with its Space, when of what was uploaded only the config is
fetched. A test counts them."""
LOADING = range(16, 53)
"""The requests, with a Space, by which transformers loads all that was uploaded, instead of the config alone."""
ALONE = [(number, False) for number in range(REQUESTS[False])]
WITH_SPACE = [(number, True) for number in range(REQUESTS[True])]
NOTHING = r"Nothing has been uploaded\."
EMPTY = r"The repository alice/moons is there, without its files\."
UNKNOWN = r" Whether the commit arrived is not known; the same command finds out\."
UNTAGGED = r"alice/moons is on the Hub, whole, at commit [0-9a-f]{40}, but without the tag of its version\."
TAGGED = r"alice/moons is on the Hub, whole, at commit [0-9a-f]{40}, as v1\. "
NO_SPACE = r"Its Space is not there yet\."
SPACE_EMPTY = r"The repository spaces/alice/moons is there, without its files\."
AGAIN = r"Run the same command again( in a while; it goes on where this one stopped|: it loads it once more, .*)\.$"
CREATE, COMMIT, TAG = (
    "POST /api/repos/create",
    "POST /api/models/alice/moons/commit",
    "POST /api/models/alice/moons/tag",
)


@pytest.fixture(scope="module")
def served() -> Iterator[Hub]:
    with Hub().serve() as hub:
        yield hub


@pytest.fixture
def hub(served: Hub) -> Hub:
    served.repair()
    served.repositories.clear()
    served.large_files.clear()
    return served


@pytest.fixture(scope="module")
def publisher(served: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    publisher = Publisher(served.url, tmp_path_factory.mktemp("publisher"), "look")
    yield publisher
    publisher.close()


@pytest.fixture(scope="module")
def loading_publisher(served: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    publisher = Publisher(served.url, tmp_path_factory.mktemp("publisher"), "load")
    yield publisher
    publisher.close()


def standing(obeyed: list[str], request: str) -> str:
    """What the message has to say of the Hub when it obeyed some requests and died at the next one."""
    unknown = UNKNOWN if re.search(r"/validate-yaml$|/commit/", request) else ""
    if obeyed.count(CREATE) == 0:
        return NOTHING
    if not any(request.startswith(COMMIT) for request in obeyed):
        return EMPTY + unknown
    if not any(request.startswith(TAG) for request in obeyed):
        return UNTAGGED
    return TAGGED + (NO_SPACE if obeyed.count(CREATE) == 1 else SPACE_EMPTY + unknown)


def check_death(
    hub: Hub, publisher: Publisher, bundle: Path, number: int, *, space: bool = True, status: int | None = None
) -> None:
    """The command dies at a request, tells what is there, and completes it when it is run again."""
    task = {"run": str(bundle), "repo": "moons", "space": space}
    hub.dies_at, hub.dies_with = number, status
    error = publisher.ask(**task)["error"]
    request = hub.requests[number]
    happening = "the Hub cannot be reached (" if status is None else f"the Hub answered {status} ("
    if status and re.search(r"/validate-yaml$|/commit/", request):  # where huggingface_hub reads before it looks
        happening = "the Hub answered something that is no JSON."
    assert happening in error or error.startswith("loading alice/moons from the Hub by commit ")
    expected = standing(hub.requests[:number], request)
    assert re.search(rf": .+ {expected} .*{AGAIN}", error), (expected, error)

    model, page = (hub.repositories.get(name) for name in ("alice/moons", "spaces/alice/moons"))
    assert [repository and len(repository.commits) for repository in (model, page)] == [
        None if expected == NOTHING else 1 if expected.startswith(EMPTY) else 2,
        1 if SPACE_EMPTY in expected else None,
    ]
    assert model is None or model.tags == ({"v1": model.head} if expected.startswith(TAGGED) else {})

    hub.repair()
    said = publisher.ask(**task)["said"]
    model = hub.repositories["alice/moons"]
    assert said.splitlines()[0] == f"published: {hub.url}/alice/moons/commit/{model.head} (v1)"
    assert (model.tags, len(model.commits)) == ({"v1": model.head}, 2)
    assert len(hub.repositories) == 1 + space
    if space:
        assert said.splitlines()[1] == f"published: {hub.url}/spaces/alice/moons"
        page = hub.repositories["spaces/alice/moons"]
        assert len(page.commits) == 2
        assert json.loads(page.files["model.json"]) == {"repo": "alice/moons", "revision": model.head}


@pytest.mark.parametrize("space", [False, True])
def test_the_requests_are_counted(hub: Hub, publisher: Publisher, pristine_bundle: Path, space: bool) -> None:
    publisher.ask(run=str(pristine_bundle), repo="moons", space=space)
    assert len(hub.requests) == REQUESTS[space]
    assert hub.requests[0] == "GET /api/whoami-v2"
    assert len([request for request in hub.requests if "/resolve/" in request]) == 2
    assert hub.requests[-1].startswith("POST /api/spaces/alice/moons/commit" if space else TAG)


@pytest.mark.parametrize(("number", "space"), [*ALONE, *WITH_SPACE[REQUESTS[False] + 2 :]])
def test_the_network_dies(hub: Hub, publisher: Publisher, pristine_bundle: Path, number: int, space: bool) -> None:
    """At every request for the model, and, with a Space, at every one after the model is there."""
    check_death(hub, publisher, pristine_bundle, number, space=space)


def test_a_space_that_the_token_may_not_change(hub: Hub, publisher: Publisher, pristine_bundle: Path) -> None:
    task = {"run": str(pristine_bundle), "repo": "moons", "space": True}
    hub.faults.append(Fault(request="POST /api/spaces/alice/moons/commit", answer=403))
    error = publisher.ask(**task)["error"]
    model = hub.repositories["alice/moons"]
    assert error.startswith("committing to spaces/alice/moons: the Hub answered 403 (a fault on demand).")
    assert f"alice/moons is on the Hub, whole, at commit {model.head}, as v1." in error
    assert "The repository spaces/alice/moons is there, without its files." in error
    hub.repair()
    assert f"published: {hub.url}/spaces/alice/moons" in publisher.ask(**task)["said"]
    assert (len(model.commits), model.tags) == (2, {"v1": model.head})


@pytest.mark.slow
@pytest.mark.parametrize(("number", "space"), [*ALONE, *WITH_SPACE])
def test_the_hub_answers_503_from_there_on(
    hub: Hub, publisher: Publisher, pristine_bundle: Path, number: int, space: bool
) -> None:
    check_death(hub, publisher, pristine_bundle, number, space=space, status=503)


@pytest.mark.slow
def test_loading_makes_these_requests(hub: Hub, loading_publisher: Publisher, pristine_bundle: Path) -> None:
    loading_publisher.ask(run=str(pristine_bundle), repo="moons", space=True)
    fetching = [index for index, request in enumerate(hub.requests) if "/resolve/" in request]
    assert (fetching[0], fetching[-1]) == (LOADING[0], LOADING[-1])


@pytest.mark.slow
@pytest.mark.parametrize("status", [None, 503], ids=["cut", "503"])
@pytest.mark.parametrize("number", LOADING)
def test_the_hub_dies_while_all_of_it_is_loaded_from_there(
    hub: Hub, loading_publisher: Publisher, pristine_bundle: Path, number: int, status: int | None
) -> None:
    check_death(hub, loading_publisher, pristine_bundle, number, status=status)
