"""Two pushes to one repository at the same time, over real HTTP: no version is lost, and none is somebody else's."""

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hub_export.client import CHANGED_MEANWHILE, TAG_TRIES, HubClient, Target, plan_upload, tag_version
from hub_export.push import publish_model
from tests.hub_double import WRITE_TOKEN, Hub
from tests.hub_export.hub_processes import environment

REPO = "alice/moons"


def variant(bundle: Path, folder: Path, line: str) -> Path:
    """A copy of a bundle with another card, as another run would have."""
    shutil.copytree(bundle, folder)
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write(f"{line}\n")
    return folder


def push_together(folders: list[Path]) -> list[tuple[str, str] | str]:
    """Publish the folders at the same moment, each by a client of its own: commits and tags, or errors."""
    start = threading.Barrier(len(folders))

    def push(folder: Path) -> tuple[str, str] | str:
        hub = HubClient(waits=())
        upload = plan_upload(hub, folder, Target(repo=REPO))
        start.wait()  # all have planned on what is there now
        try:
            return publish_model(hub, upload, folder)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(len(folders)) as pool:
        return list(pool.map(push, folders))


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's upload of large files
@pytest.mark.usefixtures("only_the_config_is_loaded")
def test_of_two_different_models_one_is_published_and_the_other_is_told(
    hub: Hub, pristine_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    folders = [variant(pristine_bundle, tmp_path / name, name) for name in ("one", "two")]
    for round_ in range(1, 5):
        for folder in folders:
            with (folder / "README.md").open("a", encoding="utf-8") as card:
                card.write(f"Round {round_}.\n")
        outcomes = push_together(folders)
        (done,) = (outcome for outcome in outcomes if not isinstance(outcome, str))
        (error,) = (outcome for outcome in outcomes if isinstance(outcome, str))
        repository = hub.repositories[REPO]
        assert done == (repository.head, f"v{round_}")
        assert repository.tags[f"v{round_}"] == repository.head
        assert len(repository.commits) == 1 + round_
        assert error.startswith(f"committing to {REPO}: the Hub answered 412")
        assert error.endswith(CHANGED_MEANWHILE)
        winner = folders[0 if isinstance(outcomes[1], str) else 1]
        files = {path.relative_to(winner).as_posix(): path.read_bytes() for path in winner.rglob("*") if path.is_file()}
        assert {name: repository.files[name] for name in files} == files  # all of one, nothing of the other


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
@pytest.mark.usefixtures("only_the_config_is_loaded")
def test_the_same_model_twice_is_one_commit_and_one_version(
    hub: Hub, pristine_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    outcomes = push_together([pristine_bundle] * 3)
    repository = hub.repositories[REPO]
    assert outcomes == [(repository.head, "v1")] * 3
    assert (len(repository.commits), repository.tags) == (2, {"v1": repository.head})


def test_a_version_that_another_push_takes_first_is_not_mistaken_for_ones_own(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have read that there is no version yet, each for a commit of its own."""
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    repository = hub.create(REPO)
    for number in range(5):
        repository.commits.append({"README.md": bytes([number])})
    start = threading.Barrier(5)

    def tag(commit: str) -> str:
        start.wait()
        return tag_version(HubClient(waits=()), Target(repo=REPO), commit)

    commits = repository.ids[1:]
    with ThreadPoolExecutor(5) as pool:
        names = list(pool.map(tag, commits))
    assert sorted(names) == ["v1", "v2", "v3", "v4", "v5"]
    assert repository.tags == dict(zip(names, commits, strict=True))


def test_a_push_whose_versions_are_all_taken_by_others_ends_with_what_is_on_the_hub(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    repository = hub.create(REPO)
    repository.commits.append({"README.md": b"ours"})
    others, ours = repository.ids
    client = HubClient(waits=(), hub_state="The commit is there.")
    read = client.api.list_repo_refs

    def read_before_another_push(*args: Any, **kwargs: Any) -> Any:
        refs = read(*args, **kwargs)
        repository.tags[f"v{len(repository.tags) + 1}"] = others
        return refs

    monkeypatch.setattr(client.api, "list_repo_refs", read_before_another_push)
    with pytest.raises(ValueError, match="others take each next version") as caught:
        tag_version(client, Target(repo=REPO), ours)
    assert str(caught.value).endswith(f"The commit is there. {CHANGED_MEANWHILE}")
    assert repository.tags == {f"v{number + 1}": others for number in range(TAG_TRIES)}


@pytest.mark.slow
def test_two_commands_push_at_once(pristine_bundle: Path, pristine_run: Path, tmp_path: Path) -> None:
    with Hub().serve() as hub:
        words = [sys.executable, "-m", "hub_export", "push"]
        started = []
        for number, source in enumerate((pristine_bundle, pristine_run)):
            home = tmp_path / str(number)
            home.mkdir()
            extra = [] if source == pristine_bundle else ["--checkpoint", "latest"]
            started.append(
                subprocess.Popen(
                    [*words, str(source), "--repo", "moons", *extra],
                    cwd=home,
                    env=environment(hub.url, home),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        ended = [(process.communicate(timeout=600), process.returncode) for process in started]
        repository = hub.repositories[REPO]
        good = [out for (out, _), code in ended if code == 0]
        assert good
        assert len(repository.commits) == 1 + len(good)
        assert sorted(repository.tags) == [f"v{number + 1}" for number in range(len(good))]
        assert len({*repository.tags.values()}) == len(good)
        for (_, error), code in ended:
            assert "Traceback" not in error
            assert code == 0 or error.rstrip().endswith(CHANGED_MEANWHILE)
