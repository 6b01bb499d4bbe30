"""The command that publishes, over real HTTP, in processes of their own with an empty HF_HOME."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Literal

import pytest
from huggingface_hub import ModelCard

from hub_export.__main__ import main
from hub_export.client import HubClient, Target, plan_upload
from hub_export.push import publish_model
from tests.hub_double import BOBS_TOKEN, FINE_TOKEN, READ_TOKEN, WRITE_TOKEN, Fault, Hub
from tests.hub_export.conftest import SECRET_TEXT
from tests.hub_export.hub_processes import ROOT, run_python
from tests.hub_export.test_bundle import BUNDLE_FILES

LOADED = "ScratchGPTTokenizer ScratchGPTForCausalLM (1, 3, 300)"
PUSHER = """
import sys
from hub_export.__main__ import main
from modeling import ScratchGPTForCausalLM
from tokenization import ScratchGPTTokenizer
folder, run = sys.argv[1:]
ScratchGPTForCausalLM.from_pretrained(folder).push_to_hub("alice/plain")
ScratchGPTTokenizer.from_pretrained(folder + "/slow").push_to_hub("alice/plain")
main(["push", run, "--repo", "moons", "--private"])
"""
CLEAN = """
from transformers import AutoModelForCausalLM, AutoTokenizer
def load(repo, slow, **revision):
    tokenizer = AutoTokenizer.from_pretrained(repo, trust_remote_code=True, **slow, **revision)
    model = AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True, **revision)
    ids = tokenizer("The robot", return_tensors="pt")
    print(type(tokenizer).__name__, type(model).__name__, tuple(model(**ids).logits.shape))
    return ids["input_ids"][0].tolist()
ids = load("alice/moons", {"subfolder": "slow"}, revision="v1")
fast = AutoTokenizer.from_pretrained("alice/moons", revision="v1", trust_remote_code=False)
assert fast("The robot")["input_ids"] == ids
load("alice/plain", {})
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A repository by the command, `alice/moons`, and one by `push_to_hub` of the classes, `alice/plain`."""

    hub: Hub
    pushed: CompletedProcess[str]  # that made both
    loaded: CompletedProcess[str]  # that loaded both, and knows nothing of this project
    home: Path  # working directory of the first


@pytest.fixture(scope="module")
def published(pristine_run: Path, pristine_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    home, elsewhere = (tmp_path_factory.mktemp(name) for name in ("home", "elsewhere"))
    folder = shutil.copytree(pristine_bundle, home / "model")
    with Hub().serve() as hub:
        pushed = run_python("-c", PUSHER, folder, pristine_run, hub=hub.url, home=home)
        loaded = run_python("-c", CLEAN, hub=hub.url, home=elsewhere, ours=False)
    return Published(hub=hub, pushed=pushed, loaded=loaded, home=home)


def changes(hub: Hub) -> list[str]:
    """What was asked of the Hub besides looking."""
    return [request for request in hub.requests if not request.startswith(("GET ", "HEAD "))]


@pytest.mark.slow  # the quick suite pushes a run, and loads it, as the README says
def test_a_run_is_published(published: Published, pristine_run: Path) -> None:
    hub, pushed = published.hub, published.pushed
    assert pushed.returncode == 0, pushed.stderr
    repository = hub.repositories["alice/moons"]
    assert repository.private
    assert repository.messages == ["initial commit", "Upload a ScratchGPT model"]
    assert repository.tags == {"v1": repository.head}
    assert f"published: {hub.url}/alice/moons/commit/{repository.head} (v1)" in pushed.stdout
    assert set(repository.files) == BUNDLE_FILES | {".gitattributes"}
    assert not [request for request in hub.requests if "xet" in request]

    logged, _, after = pushed.stderr.partition(
        "it loads from there: config, logits, bit for bit, generation, tokenizer, from-scratch"
    )
    assert after
    assert f"to be uploaded:\nalice/moons (new, private): one commit of {len(BUNDLE_FILES)} files, " in logged
    for name in BUNDLE_FILES:
        assert re.search(rf"^ +[\d,]+  {re.escape(name)}$", logged, flags=re.MULTILINE), name

    text = repository.files["README.md"].decode()
    assert ModelCard(text).data.to_dict()["model-index"][0]["name"] == "moons"
    assert 'from_pretrained("alice/moons", trust_remote_code=True)' in text
    uploaded = b"".join(repository.files.values())
    private = (WRITE_TOKEN, str(pristine_run), str(Path.home()), str(ROOT), SECRET_TEXT, "momentum")
    assert not [secret for secret in private if secret.encode() in uploaded]
    assert published.loaded.returncode == 0, published.loaded.stderr
    assert published.loaded.stdout.split("\n")[0] == LOADED


@pytest.mark.slow
def test_the_plain_classes_push_a_repository_that_loads(published: Published) -> None:
    assert published.loaded.stdout.split("\n")[1] == LOADED
    uploaded = b"".join(published.hub.repositories["alice/plain"].files.values())
    assert str(published.home).encode() not in uploaded


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's upload of large files
@pytest.mark.usefixtures("only_the_config_is_loaded")
def test_a_bundle_is_published_with_its_space(
    hub: Hub, pristine_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    push = ["push", str(pristine_bundle), "--repo", "alice/moons", "--space"]
    main([*push, "--dry-run"])
    assert capsys.readouterr().out == "nothing was uploaded (--dry-run)\n"
    assert "would be uploaded:\nalice/moons (new, public): one commit of" in caplog.text
    assert "spaces/alice/moons (new, public, on zero-a10g): one commit of" in caplog.text
    assert (changes(hub), hub.repositories) == ([], {})

    main(push)
    model = hub.repositories["alice/moons"]
    assert (len(model.commits), model.tags) == (2, {"v1": model.head})
    space = hub.repositories["spaces/alice/moons"]
    assert (space.hardware, len(space.commits)) == ("zero-a10g", 2)
    assert json.loads(space.files["model.json"]) == {"repo": "alice/moons", "revision": model.head}
    assert {"app.py", "requirements.txt", "panels/page.py", "modeling/modeling_scratchgpt.py"} <= set(space.files)
    assert f"published: {hub.url}/spaces/alice/moons" in capsys.readouterr().out
    card = model.files["README.md"].decode()
    assert 'from_pretrained("alice/moons", trust_remote_code=True)' in card
    assert "your-name" not in card


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's upload of large files
@pytest.mark.usefixtures("only_the_config_is_loaded")
def test_where_new_repositories_are_private_by_default_the_space_gets_a_copy(
    hub: Hub, pristine_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    caplog.set_level("INFO", logger="hub_export")
    hub.is_private_by_default = True
    main(["push", str(pristine_bundle), "--repo", "the-lab/moons", "--space"])
    assert hub.repositories["the-lab/moons"].private
    space = hub.repositories["spaces/the-lab/moons"]
    assert space.private
    assert "model.json" not in space.files
    assert "bundle/model.safetensors" in space.files
    assert "the-lab/moons is private, and a Space could not load it: the Space gets a copy of the model" in caplog.text


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's upload of large files
@pytest.mark.usefixtures("only_the_config_is_loaded")
def test_a_private_model_gets_no_public_space(
    hub: Hub, pristine_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    push = ["push", str(pristine_bundle), "--repo", "alice/moons"]
    main([*push, "--private"])
    before = len(changes(hub))
    with pytest.raises(SystemExit, match="alice/moons: expected --private with --space, since this repository is "):
        main([*push, "--space"])
    assert len(changes(hub)) == before
    main([*push, "--space", "--private"])
    assert hub.repositories["spaces/alice/moons"].private
    main([*push, "--space"])  # a Space that is private already stays so
    assert hub.repositories["spaces/alice/moons"].private
    assert "published" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's upload of large files
@pytest.mark.parametrize(
    ("request_kind", "answer", "reason"),
    [
        pytest.param("^(GET|HEAD) /lfs/", 503, "503", marks=pytest.mark.slow),  # the weights, which another host sends
        pytest.param("^GET /alice/moons/resolve/[0-9a-f]+/tokenizer.json", "cut", "reached", marks=pytest.mark.slow),
    ],
)
def test_a_fault_while_the_commit_is_loaded_is_reported_and_the_same_push_completes_it(
    hub: Hub,
    pristine_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    request_kind: str,
    answer: int | Literal["cut"],
    reason: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    client, target = HubClient(waits=(0.0,)), Target(repo="alice/moons")

    def publish() -> tuple[str, str]:
        return publish_model(client, plan_upload(client, pristine_bundle, target), pristine_bundle)

    hub.faults.append(Fault(request=request_kind, answer=answer))
    with pytest.raises(ValueError, match="downloading alice/moons at commit ") as caught:
        publish()
    repository = hub.repositories["alice/moons"]
    assert reason in str(caught.value)
    state = f"alice/moons is on the Hub, complete, at commit {repository.head}, but without the tag of its version. "
    assert state in str(caught.value)
    assert str(caught.value).endswith("Run the same command again in a while; it continues where this one stopped.")
    assert (len(repository.commits), repository.tags) == (2, {})
    hub.repair()
    hub.faults.append(Fault(request=request_kind, answer=answer, times=1))  # once: it is loaded again by itself
    assert publish() == (repository.head, "v1")
    assert (len(repository.commits), hub.faults[0].times) == (2, 0)


def refused(*arguments: object) -> str:
    """The message with which a command of `hub_export` ends."""
    with pytest.raises(SystemExit) as caught:
        main([*map(str, arguments)])
    return str(caught.value)


def test_a_bundle_that_is_dirty_or_was_not_proved_is_refused(
    hub: Hub, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    with (made / "README.md").open("a", encoding="utf-8") as card:
        card.write("Edited.\n")
    (made / "notes.txt").write_text("a stray file")
    push = ("push", made, "--repo", "moons")
    dirty = refused(*push)
    assert "expected the files that were checked, but README.md, notes.txt are not as then." in dirty
    assert f"Check it as it is now with `python -m hub_export verify {made}`, or make it again." in dirty
    (made / "proof.json").unlink()
    assert "expected a checked bundle, but it has no proof.json." in refused(*push)
    (made / "notes.txt").unlink()
    main(["verify", str(made)])
    main([*map(str, push), "--dry-run"])
    assert capsys.readouterr().out.endswith("nothing was uploaded (--dry-run)\n")
    assert changes(hub) == []
    options = refused(*push, "--license", "apache-2.0")
    assert "expected a run folder for --checkpoint, --license and --language, but this is a bundle" in options


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
@pytest.mark.usefixtures("only_the_config_is_loaded")
def test_publishing_again_keeps_license_and_language_unless_others_are_given(
    hub: Hub, pristine_run: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    push = ["push", str(pristine_run), "--repo", "alice/moons"]
    main([*push, "--license", "cc-by-nc-4.0", "--language", "de"])
    assert "the card says license: cc-by-nc-4.0, language: de (" in caplog.text
    caplog.clear()
    main([*push, "--dry-run"])  # as docs/publish.md says, and `train … --push` does
    assert "the card says license: cc-by-nc-4.0, language: de (" in caplog.text
    main([*push, "--dry-run", "--license", "apache-2.0"])
    assert "the card says license: apache-2.0, language: de (" in caplog.text


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [
        (None, "moons", "expected an access token of the Hugging Face Hub, but there is none.*hf auth login.*HF_TOKEN"),
        ("hf_wrong", "moons", "asking the Hub who you are: the Hub answered 401 .*The token was not accepted"),
        (READ_TOKEN, "moons", "expected a token with the right to write, got a read-only one of alice"),
        (FINE_TOKEN, "moons", "expected a token with the right to write, got a read-only one of alice"),
        (WRITE_TOKEN, "bob/moons", "expected a name under alice or the-lab, which .* got 'bob/moons'"),
        (BOBS_TOKEN, "alice/moons", "expected a name under bob, which .* got 'alice/moons'. Log in as that user"),
        (WRITE_TOKEN, "alice/the/moons", "expected `name` or `user/name` as the Hub allows it, got 'alice/the/moons'"),
        (WRITE_TOKEN, "the-lab/books", r"it holds 1 other file \(novel.txt\). Nothing has been uploaded. Choose"),
        (WRITE_TOKEN, "moons", "no-run: expected a run folder, but there is no such folder"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_any_work(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, repo: str, message: str
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    hub.create("the-lab/books", files={"novel.txt": b"once"})
    assert re.match(f"error: (--repo: )?.*{message}", refused("push", tmp_path / "no-run", "--repo", repo), re.DOTALL)
    assert changes(hub) == []
    assert list(hub.repositories) == ["the-lab/books"]


def test_a_dry_run_tells_the_files_even_without_a_token(
    hub: Hub, pristine_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    error = refused("push", pristine_bundle, "--repo", "moons", "--dry-run")
    assert re.search(r"would be uploaded:\n +[\d,]+  README.md\n", caplog.text)
    assert error.startswith("error: expected an access token of the Hugging Face Hub, but there is none.")


def test_a_hub_that_is_switched_off_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refused("push", tmp_path / "no-run", "--repo", "moons") == (
        "error: asking the Hub who you are: HF_HUB_OFFLINE is set. Nothing has been uploaded. "
        "Unset it and run the same command again."
    )


def test_the_account_is_asked_without_any_change(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    main(["account", "--repo", "moons"])
    assert capsys.readouterr().out == "alice/moons may be published: it is not there yet.\n"
    assert "expected a name under alice or the-lab" in refused("account", "--repo", "bob/moons")
    assert changes(hub) == []
