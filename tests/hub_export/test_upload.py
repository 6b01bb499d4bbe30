"""What one commit changes, and every way in which the network or the Hub can fail while it does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_double import Fault, Hub
from tests.hub_export.hub_processes import Pusher

REQUESTS = (  # of a first push, in order
    "GET /api/models/alice/moons",
    "POST /api/repos/create",
    "GET /api/models/alice/moons",
    "GET /api/models/alice/moons/tree/",
    "POST /api/models/alice/moons/preupload/main",
    "POST /alice/moons.git/info/lfs/objects/batch",
    "PUT /lfs/",
    "POST /lfs-verify",
    "POST /api/validate-yaml",
    "POST /api/models/alice/moons/commit/main",
    "GET /api/models/alice/moons/refs",
    "POST /api/models/alice/moons/tag/",
)
COMMIT = "POST /api/models/alice/moons/commit"
NOTHING, EMPTY = "Nothing has been uploaded.", "The repository alice/moons is there, without its files."
UNKNOWN = f"{EMPTY} Whether the commit arrived is not known; the same command finds out."
ALL_BUT_TAG = r"alice/moons is on the Hub, whole, at commit "
STANDING = (NOTHING, NOTHING, EMPTY, EMPTY, EMPTY, EMPTY, EMPTY, EMPTY, UNKNOWN, UNKNOWN, ALL_BUT_TAG, ALL_BUT_TAG)
AGAIN = "Run the same command again in a while; it goes on where this one stopped."


@pytest.fixture(scope="module")
def served() -> Iterator[Hub]:
    with Hub().serve() as hub:
        yield hub


@pytest.fixture(scope="module")
def pusher(served: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pusher]:
    pusher = Pusher(served.url, tmp_path_factory.mktemp("pusher"))
    yield pusher
    pusher.close()


@pytest.fixture
def hub(served: Hub) -> Hub:
    served.repair()
    served.repositories.clear()
    served.large_files.clear()
    return served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what matters of a bundle: a card, code, large and small files, a subfolder."""
    made = tmp_path / "bundle"
    (made / "slow").mkdir(parents=True)
    (made / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (made / "modeling_scratchgpt.py").write_text("layers = 2\n")
    (made / "model.safetensors").write_bytes(bytes(range(256)) * 9)
    (made / "slow" / "vocab.json").write_text('{"a": 0}')
    return made


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_complete(hub: Hub, folder: Path) -> bool:
    """Whether the Hub holds exactly the folder, in one commit, under the tag v1."""
    repository = hub.repositories["alice/moons"]
    assert repository.files == files_of(folder) | {".gitattributes": b""}
    assert repository.messages == ["initial commit", "Upload a ScratchGPT model"]
    return repository.tags == {"v1": repository.head}


def test_a_first_push_makes_these_requests(hub: Hub, pusher: Pusher, folder: Path) -> None:
    answer = pusher.push(folder, "alice/moons")
    assert is_complete(hub, folder)
    assert answer == {"commit": hub.repositories["alice/moons"].head, "tag": "v1", "tries": 0}
    assert len(hub.requests) == len(REQUESTS)
    for request, expected in zip(hub.requests, REQUESTS, strict=True):
        assert request.startswith(expected)


def test_the_same_push_again_only_looks(hub: Hub, pusher: Pusher, folder: Path) -> None:
    first = pusher.push(folder, "alice/moons")
    hub.repair()
    assert pusher.push(folder, "alice/moons") == first
    assert {request.split()[0] for request in hub.requests} == {"GET"}
    assert is_complete(hub, folder)


@pytest.mark.parametrize(
    "number", range(len(REQUESTS)), ids=lambda number: f"{number}-{REQUESTS[number].split('/')[-1]}"
)
def test_the_network_dies_at_every_request_in_turn(hub: Hub, pusher: Pusher, folder: Path, number: int) -> None:
    hub.dies_at = number
    error = pusher.push(folder, "alice/moons")["error"]
    assert "the Hub cannot be reached (" in error
    assert STANDING[number] in error
    assert error.endswith(f"Check the network. {AGAIN}")
    repository = hub.repositories.get("alice/moons")
    if STANDING[number] == NOTHING:
        assert repository is None
    else:
        assert repository is not None
        assert len(repository.commits) == (2 if STANDING[number] == ALL_BUT_TAG else 1)
    hub.repair()
    assert "error" not in pusher.push(folder, "alice/moons")
    assert is_complete(hub, folder)


@pytest.mark.parametrize("answer", [500, 502, 503, 504, 429, "cut", "lost", "half"])
@pytest.mark.parametrize(
    "number", range(len(REQUESTS)), ids=lambda number: f"{number}-{REQUESTS[number].split('/')[-1]}"
)
def test_one_fault_at_any_request_is_passed_over(
    hub: Hub, pusher: Pusher, folder: Path, number: int, answer: int | str
) -> None:
    hub.faults.append(Fault(request=f"^{REQUESTS[number]}", answer=answer, times=1))  # type: ignore[arg-type]
    assert "error" not in pusher.push(folder, "alice/moons")
    assert hub.faults[0].times == 0
    assert is_complete(hub, folder)


def test_a_commit_whose_answer_is_always_lost_is_recognised_at_once(hub: Hub, pusher: Pusher, folder: Path) -> None:
    hub.faults.append(Fault(request=COMMIT, answer="lost"))
    assert "error" not in pusher.push(folder, "alice/moons")
    assert len([request for request in hub.requests if request.startswith(COMMIT)]) == 1
    assert is_complete(hub, folder)


def test_a_lost_answer_before_the_network_dies_is_recognised_by_the_next_command(
    hub: Hub, pusher: Pusher, folder: Path
) -> None:
    hub.faults.append(Fault(request=COMMIT, answer="lost"))
    hub.dies_at = len(REQUESTS) - 2
    error = pusher.push(folder, "alice/moons")["error"]
    assert error.startswith("committing to alice/moons: the Hub cannot be reached (")
    assert UNKNOWN in error
    assert len(hub.repositories["alice/moons"].commits) == 2
    hub.repair()
    assert "error" not in pusher.push(folder, "alice/moons")
    assert not [request for request in hub.requests if request.startswith(COMMIT)]
    assert is_complete(hub, folder)


REFUSALS = {
    401: "The token was not accepted. Make a token that may write at",
    403: "The token has no right to do that. Make a token that may write at",
    404: AGAIN,
    409: "Something else changed the repository at the same time. Run the same command again.",
}


@pytest.mark.parametrize(
    ("number", "status"),
    [(1, 401), (1, 403), (1, 404), (9, 401), (9, 403), (9, 404), (9, 409), (11, 401), (11, 403), (11, 404)],
)
def test_what_the_hub_refuses_is_not_tried_again(
    hub: Hub, pusher: Pusher, folder: Path, number: int, status: int
) -> None:
    hub.faults.append(Fault(request=REQUESTS[number], answer=status))
    error = pusher.push(folder, "alice/moons")["error"]
    assert f": the Hub answered {status} (a fault on demand). " in error
    assert STANDING[number] in error
    assert REFUSALS[status] in error
    assert len([request for request in hub.requests if request.startswith(REQUESTS[number])]) == 1
    hub.repair()
    assert "error" not in pusher.push(folder, "alice/moons")
    assert is_complete(hub, folder)


@pytest.mark.parametrize(("number", "status", "advice"), [(9, 401, REFUSALS[401]), (9, 404, AGAIN), (10, 404, AGAIN)])
def test_a_repository_that_vanishes_or_a_token_that_is_revoked_meanwhile(
    hub: Hub, pusher: Pusher, folder: Path, number: int, status: int, advice: str
) -> None:
    vanished = {"X-Error-Code": "RepoNotFound"}
    hub.faults.append(Fault(request=REQUESTS[number], answer=status, headers=vanished))
    error = pusher.push(folder, "alice/moons")["error"]
    assert f": the Hub answered {status} (a fault on demand). {STANDING[number]}" in error
    assert advice in error


def test_a_hub_that_stays_busy_is_given_up(hub: Hub, pusher: Pusher, folder: Path) -> None:
    hub.faults.append(Fault(request=COMMIT, answer=503))
    error = pusher.push(folder, "alice/moons")["error"]
    assert error.startswith("committing to alice/moons: the Hub answered 503 (")
    assert error.endswith(f"{UNKNOWN} {AGAIN}")
    assert len([request for request in hub.requests if request.startswith(COMMIT)]) == 5


def test_a_hub_that_asks_for_a_long_pause_is_left_in_peace(hub: Hub, pusher: Pusher, folder: Path) -> None:
    hub.faults.append(Fault(request=COMMIT, answer=429, headers={"Retry-After": "3600"}))
    assert "the Hub answered 429" in pusher.push(folder, "alice/moons")["error"]
    assert len([request for request in hub.requests if request.startswith(COMMIT)]) == 1


def test_somebody_else_commits_at_the_same_time(hub: Hub, pusher: Pusher, folder: Path) -> None:
    repository = hub.create("alice/moons", files={"modeling_scratchgpt.py": b"layers = 1\n"})
    head, commits = repository.head, repository.commits
    hub.faults.append(Fault(request="POST /api/validate-yaml", answer=503, times=1))

    class Hasty(list):
        """Another commit arrives when ours is about to be sent."""

        def append(self, item: str) -> None:
            super().append(item)
            if item.startswith("POST /api/validate-yaml") and len(commits) == 1:
                commits.append({**commits[0], "notes.txt": b"by hand"})
                repository.messages.append("by hand")

    hub.requests = Hasty()
    error = pusher.push(folder, "alice/moons")["error"]
    hub.requests = []
    assert "the Hub answered 412 (A commit has happened since). " in error
    assert f"alice/moons is there as it was, at commit {head[:8]}." in error
    assert "Something else changed the repository at the same time." in error
    hub.repair()
    assert "error" not in pusher.push(folder, "alice/moons")
    assert repository.files["notes.txt"] == b"by hand"


def test_an_update_is_one_commit_that_takes_old_files_of_ours_away(hub: Hub, pusher: Pusher, folder: Path) -> None:
    first = pusher.push(folder, "alice/moons")["commit"]
    repository = hub.repositories["alice/moons"]
    repository.commits[-1]["notes.txt"] = b"of the owner"
    (folder / "slow" / "vocab.json").rename(folder / "vocab.json")
    (folder / "modeling_scratchgpt.py").write_text("layers = 3\n")
    second = pusher.push(folder, "alice/moons")
    assert repository.files == files_of(folder) | {".gitattributes": b"", "notes.txt": b"of the owner"}
    assert len(repository.commits) == 3
    assert repository.tags["v2"] == second["commit"] == repository.head
    assert second["commit"] != first


def test_a_repository_that_is_not_ours_is_replaced_only_by_force(hub: Hub, pusher: Pusher, folder: Path) -> None:
    before = {"novel.txt": b"once", "README.md": b"A novel"}
    repository = hub.create("alice/moons", files=before)
    error = pusher.push(folder, "alice/moons")["error"]
    assert "it holds 1 other file (novel.txt). Nothing has been uploaded. Choose another --repo name" in error
    assert repository.files == before | {".gitattributes": b""}
    pusher.push(folder, "alice/moons", force=True)
    assert is_complete(hub, folder)
    assert repository.commits[0] == before | {".gitattributes": b""}  # the history stays


def test_a_public_repository_is_not_taken_for_a_private_one(hub: Hub, pusher: Pusher, folder: Path) -> None:
    hub.create("alice/moons")
    error = pusher.push(folder, "alice/moons", private=True)["error"]
    assert "alice/moons: expected a private repository, but it is there already and public." in error
    assert len(hub.repositories["alice/moons"].commits) == 1


def test_a_card_that_the_hub_refuses(hub: Hub, pusher: Pusher, folder: Path) -> None:
    (folder / "README.md").write_text("no front matter")
    error = pusher.push(folder, "alice/moons")["error"]
    assert "committing to alice/moons: Invalid metadata in README.md. - no front matter." in error
    assert error.endswith("Mend that and run the same command again.")


def test_a_name_that_the_hub_refuses(hub: Hub, pusher: Pusher, folder: Path) -> None:
    error = pusher.push(folder, "alice/admin")["error"]
    assert error == (
        "making the repository alice/admin: the Hub answered 400 (This name is reserved). Nothing has been uploaded. "
        "Change what it names, and run the same command again."
    )


def test_a_space_that_the_account_may_not_have(hub: Hub, pusher: Pusher, folder: Path) -> None:
    hub.pays = False
    error = pusher.push(folder, "alice/moons", kind="space", hardware="cpu-basic")["error"]
    hub.pays = True
    assert "making the repository spaces/alice/moons: the Hub answered 402 (A subscription is needed" in error
    assert "choose other hardware (--hardware), or leave out --space" in error
