"""The Hub client: what one commit changes, and every way in which the network or the Hub can fail, over real HTTP."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from hub_export.client import HubClient, Target, plan_upload, publish, tag_version
from hub_export.push import push
from tests.hub_double import WRITE_TOKEN, Fault, Hub
from tests.hub_export.conftest import contents
from tests.network_faults import FAULTS, serve_faults

NOTHING, EMPTY = "Nothing has been uploaded.", "The repository alice/moons is there, without its files."
UNKNOWN = f"{EMPTY} Whether the commit arrived is not known; the same command finds out."
UNTAGGED = "alice/moons is on the Hub, complete, at commit "
COMMIT, TAG = "POST /api/models/alice/moons/commit", "POST /api/models/alice/moons/tag"
STEPS = {  # requests of an upload, in order, and what a failure there leaves on the Hub
    "GET /api/models/alice/moons$": NOTHING,
    "POST /api/repos/create": NOTHING,
    "GET /api/models/alice/moons/tree/": EMPTY,
    "POST /api/models/alice/moons/preupload/": EMPTY,
    "POST /alice/moons.git/info/lfs/objects/batch": EMPTY,
    "PUT /lfs/": EMPTY,
    "POST /lfs-verify": EMPTY,
    "POST /api/validate-yaml": UNKNOWN,
    COMMIT: UNKNOWN,
    "GET /api/models/alice/moons/refs": UNTAGGED,
    TAG: UNTAGGED,
}
AGAIN = "Run the same command again in a while; it continues where this one stopped."


pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's upload


@pytest.fixture(autouse=True)
def _an_account_and_no_waiting(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # neither huggingface_hub nor we wait between two tries


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


def upload(folder: Path, **target: Any) -> tuple[str, str]:
    """Upload a folder and tag it; the commit and the tag."""
    fields: dict[str, Any] = {"repo": "alice/moons"} | target
    client, place = HubClient(), Target(**fields)
    commit = publish(client, plan_upload(client, folder, place))
    return commit, tag_version(client, place, commit)


def error_of(action: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (each test has its own message)
        action(*arguments, **options)
    return str(caught.value)


def is_complete(hub: Hub, folder: Path) -> bool:
    """Whether the Hub holds exactly the folder, in one commit, under the tag v1."""
    repository = hub.repositories["alice/moons"]
    assert repository.files == contents(folder) | {".gitattributes": b""}
    assert repository.messages == ["initial commit", "Upload a ScratchGPT model"]
    return repository.tags == {"v1": repository.head}


def commits_asked(hub: Hub) -> int:
    return len([request for request in hub.requests if request.startswith(COMMIT)])


@pytest.mark.parametrize(("fault", "reason"), [*FAULTS.items(), ("portal", "")])
def test_every_failure_of_the_network_is_retried_and_explained(
    fault: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="hub_export")
    timeout = 0.3 if fault == "silence" else 30.0  # a busy machine may be slow to answer
    with serve_faults() as url:
        api = HfApi(endpoint=url, token=False)
        with pytest.raises(ValueError, match=NOTHING) as caught:
            HubClient(api=api, waits=(0.0,)).call("looking", api.model_info, f"alice/{fault}", timeout=timeout)
    happened = "the Hub answered something that is no JSON." if fault == "portal" else "the Hub cannot be reached ("
    assert str(caught.value).startswith(f"looking: {happened}")
    assert reason in str(caught.value)
    assert str(caught.value).endswith(f"Check the network. {AGAIN}")
    assert [message.endswith("trying again") for message in caplog.messages] == [True]


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_a_hub_that_is_not_there_is_explained(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    api = HfApi(endpoint=endpoint, token=False)
    with pytest.raises(ValueError, match=r"^looking: the Hub cannot be reached \("):
        HubClient(api=api, waits=()).call("looking", api.model_info, "alice/moons", timeout=0.3)


def test_the_same_upload_again_only_looks(hub: Hub, folder: Path) -> None:
    first = upload(folder)
    assert first == (hub.repositories["alice/moons"].head, "v1")
    assert is_complete(hub, folder)
    hub.repair()
    assert upload(folder) == first
    assert {request.split()[0] for request in hub.requests} == {"GET"}
    assert is_complete(hub, folder)


@pytest.mark.parametrize("step", STEPS)
def test_an_upload_that_fails_is_completed_by_the_next(hub: Hub, folder: Path, step: str) -> None:
    hub.faults.append(Fault(request=f"^{step}", answer="cut"))
    error = error_of(upload, folder)
    assert "the Hub cannot be reached (" in error
    assert STEPS[step] in error
    assert error.endswith(f"Check the network. {AGAIN}")
    repository = hub.repositories.get("alice/moons")
    commits = len(repository.commits) if repository else 0
    assert commits == {NOTHING: 0, UNTAGGED: 2}.get(STEPS[step], 1)
    hub.repair()
    upload(folder)
    assert is_complete(hub, folder)


@pytest.mark.parametrize("answer", [503, 429, "cut", "lost", "half"])
@pytest.mark.parametrize("step", STEPS)
def test_one_fault_at_any_request_is_retried(hub: Hub, folder: Path, step: str, answer: int | str) -> None:
    hub.faults.append(Fault(request=f"^{step}", answer=answer, times=1))  # type: ignore[arg-type]
    upload(folder)
    assert hub.faults[0].times == 0
    assert is_complete(hub, folder)


def test_a_commit_whose_answer_is_lost_is_recognised(hub: Hub, folder: Path) -> None:
    hub.faults.append(Fault(request=COMMIT, answer="lost"))
    upload(folder)
    assert commits_asked(hub) == 1
    assert is_complete(hub, folder)
    hub.clear()  # and when the network is gone from there on, by the next command
    hub.faults += [Fault(request=COMMIT, answer="lost"), Fault(request="^GET /api/models/alice/moons$", answer="cut")]
    hub.faults[1].spared = 2
    error = error_of(upload, folder)
    assert error.startswith("committing to alice/moons: ")
    assert UNKNOWN in error
    assert len(hub.repositories["alice/moons"].commits) == 2
    hub.repair()
    upload(folder)
    assert commits_asked(hub) == 0
    assert is_complete(hub, folder)


REFUSALS = {
    401: "The token was not accepted. Make a token that may write at",
    403: "The token has no right to do that. Make a token that may write at",
    404: AGAIN,
    409: "Something else changed the repository at the same time. Run the same command again.",
}


@pytest.mark.parametrize(
    ("step", "status", "absent"),
    [
        *((step, status, False) for step in ("POST /api/repos/create", COMMIT, TAG) for status in (401, 403, 404)),
        (COMMIT, 409, False),
        (COMMIT, 401, True),  # the token was revoked meanwhile
        (COMMIT, 404, True),  # the repository was deleted meanwhile
        ("GET /api/models/alice/moons/refs", 404, True),
    ],
)
def test_a_refusal_is_not_retried(hub: Hub, folder: Path, step: str, status: int, absent: bool) -> None:
    headers = {"X-Error-Code": "RepoNotFound"} if absent else {}
    hub.faults.append(Fault(request=step, answer=status, headers=headers))
    error = error_of(upload, folder)
    assert f": the Hub answered {status} (a fault on demand). {STEPS[step]}" in error
    assert REFUSALS[status] in error
    assert len([request for request in hub.requests if request.startswith(step)]) == 1


@pytest.mark.parametrize(("status", "retry_after", "tries"), [(503, "0", 5), (429, "3600", 1)])
def test_the_client_gives_up(hub: Hub, folder: Path, status: int, retry_after: str, tries: int) -> None:
    hub.faults.append(Fault(request=COMMIT, answer=status, headers={"Retry-After": retry_after}))
    error = error_of(upload, folder)
    assert error.startswith(f"committing to alice/moons: the Hub answered {status} (")
    assert error.endswith(f"{UNKNOWN} {AGAIN}")
    assert commits_asked(hub) == tries


def test_somebody_else_commits_at_the_same_time(hub: Hub, folder: Path) -> None:
    repository = hub.create("alice/moons", files={"modeling_scratchgpt.py": b"layers = 1\n"})
    head, commits = repository.head, repository.commits

    class Requests(list):
        """Another commit arrives when ours is about to be sent."""

        def append(self, item: str) -> None:
            super().append(item)
            if item.startswith("POST /api/validate-yaml") and len(commits) == 1:
                commits.append({**commits[0], "notes.txt": b"of the owner"})
                repository.messages.append("of the owner")

    hub.requests = Requests()
    error = error_of(upload, folder)
    hub.requests = []
    assert "the Hub answered 412 (A commit has happened since). " in error
    assert f"alice/moons is there as it was, at commit {head[:8]}." in error
    assert "Something else changed the repository at the same time." in error
    upload(folder)
    assert repository.files["notes.txt"] == b"of the owner"


def test_an_update_is_one_commit_that_deletes_old_files_of_ours(hub: Hub, folder: Path) -> None:
    upload(folder)
    repository = hub.repositories["alice/moons"]
    repository.commits[-1]["notes.txt"] = b"of the owner"
    (folder / "slow" / "vocab.json").rename(folder / "vocab.json")
    (folder / "modeling_scratchgpt.py").write_text("layers = 3\n")
    second = upload(folder)
    assert repository.files == contents(folder) | {".gitattributes": b"", "notes.txt": b"of the owner"}
    assert len(repository.commits) == 3
    assert repository.tags["v2"] == second[0] == repository.head


def test_an_update_keeps_what_the_owner_put_beside_and_into_folders(hub: Hub, folder: Path) -> None:
    upload(folder)
    repository = hub.repositories["alice/moons"]
    old = ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "slow/merges.txt", "tokenizer.json")
    owners = (
        "native/model.safetensors", "lora/adapter_model.safetensors", "adapter_model.safetensors",
        "tokenizer_notes.md", "tokenizer_notes/x.md", "slow/notes/x.md", "old/modeling_scratchgpt.py",
    )  # fmt: skip
    repository.commits[-1].update(dict.fromkeys([*old, *owners], b"x"))
    upload(folder)
    assert repository.files == contents(folder) | {".gitattributes": b""} | dict.fromkeys(owners, b"x")


def test_an_update_of_a_space_deletes_old_files_of_all_its_folders(hub: Hub, folder: Path) -> None:
    (folder / "modeling").mkdir()
    (folder / "modeling_scratchgpt.py").rename(folder / "modeling" / "modeling_scratchgpt.py")
    client, page = HubClient(), Target(repo="alice/moons", kind="space")
    publish(client, plan_upload(client, folder, page))
    files = hub.repositories["spaces/alice/moons"].commits[-1]
    files |= {"panels/tabs/old/tab.py": b"x", "bundle/slow/vocab.json": b"x", "notes/app.py": b"x"}
    assert plan_upload(client, folder, page).deleted == ("bundle/slow/vocab.json", "panels/tabs/old/tab.py")


def test_a_repository_that_is_not_ours_is_replaced_only_by_force(hub: Hub, folder: Path) -> None:
    before = {"novel.txt": b"once", "README.md": b"A novel"}
    repository = hub.create("alice/moons", files=before)
    error = error_of(upload, folder)
    assert "it holds 1 other file (novel.txt). Nothing has been uploaded. Choose another --repo name" in error
    assert repository.files == before | {".gitattributes": b""}
    upload(folder, force=True)
    assert is_complete(hub, folder)
    assert repository.commits[0] == before | {".gitattributes": b""}  # the history stays


def test_what_the_hub_or_the_plan_refuses(hub: Hub, folder: Path) -> None:
    assert error_of(upload, folder, repo="alice/admin") == (
        "making the repository alice/admin: the Hub answered 400 (This name is reserved). Nothing has been uploaded. "
        "Change what it names, and run the same command again."
    )
    hub.pays = False
    error = error_of(upload, folder, kind="space", hardware="cpu-basic")
    hub.pays = True
    assert "making the repository spaces/alice/moons: the Hub answered 402 (A subscription is needed" in error
    assert "choose other hardware (--hardware), or leave out --space" in error
    hub.create("alice/moons")
    error = error_of(upload, folder, private=True)
    assert "alice/moons: expected a private repository, but it is there already and public." in error
    (folder / "README.md").write_text("no front matter")
    error = error_of(upload, folder)
    assert "committing to alice/moons: Invalid metadata in README.md. - no front matter." in error
    assert error.endswith("Fix that and run the same command again.")
    assert len(hub.repositories["alice/moons"].commits) == 1


NO_SPACE = "Its Space is not there yet."
SPACE_EMPTY = "The repository spaces/alice/moons is there, without its files."


@pytest.mark.parametrize(
    ("request_kind", "answer", "states"),
    [
        ("GET /api/whoami", "cut", [NOTHING]),
        pytest.param(COMMIT, 403, [UNKNOWN], marks=pytest.mark.slow),
        ("(GET|HEAD) /alice/moons/resolve/", "cut", ["complete, at commit", "but without the tag of its version."]),
        pytest.param(
            TAG, "cut", ["complete, at commit", "but without the tag of its version."], marks=pytest.mark.slow
        ),
        # Of the Space: the model's is spared.
        pytest.param("POST /api/repos/create", 403, ["as v1.", NO_SPACE], marks=pytest.mark.slow),
        ("POST /api/spaces/alice/moons/commit", "cut", ["as v1.", SPACE_EMPTY]),
    ],
)
@pytest.mark.usefixtures("only_the_config_is_loaded")
def test_a_push_that_fails_is_completed_by_the_next(
    hub: Hub, pristine_bundle: Path, request_kind: str, answer: Any, states: list[str]
) -> None:
    hub.faults.append(Fault(request=request_kind, answer=answer, spared=NO_SPACE in states))
    error = error_of(push, pristine_bundle, "moons", space=True)
    assert [state for state in states if state not in error] == []
    hub.repair()
    published = push(pristine_bundle, "moons", space=True)
    model, page = hub.repositories["alice/moons"], hub.repositories["spaces/alice/moons"]
    assert published == (
        f"published: {hub.url}/alice/moons/commit/{model.head} (v1)\npublished: {hub.url}/spaces/alice/moons"
    )
    assert (model.tags, len(model.commits), len(page.commits)) == ({"v1": model.head}, 2, 2)
    assert json.loads(page.files["model.json"]) == {"repo": "alice/moons", "revision": model.head}


@pytest.mark.slow
@pytest.mark.usefixtures("only_the_config_is_loaded")
def test_a_run_whose_samples_hold_line_separators_is_published(hub: Hub, run: Path) -> None:
    text = "First line.\u2028Second line.\x85Third line.\u2029And so on."
    sample = json.dumps({"step": 10, "prompt": "First", "text": text, "seed": 0}, ensure_ascii=False)
    (run / "samples.jsonl").write_text(f"{sample}\n", encoding="utf-8", newline="\n")
    assert "published: " in push(run, "moons")
    card = hub.repositories["alice/moons"].files["README.md"].decode()
    assert "\n```text\nFirst line. Second line. Third line. And so on.\n```\n" in card
