"""Pushes and loads over real HTTP, each in a process of its own with an empty HF_HOME."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.hub_export.hub_double import READ_TOKEN, WRITE_TOKEN, Hub
from tests.hub_export.test_bundle import MODEL_FILES, SLOW_FILES

PUSH = ("-m", "hub_export", "push")
UPLOAD = """
import sys
from pathlib import Path
from huggingface_hub import HfApi
from hub_export.push import upload
try:
    print(upload(HfApi(), Path(sys.argv[1]), sys.argv[2]))
except ValueError as error:
    sys.exit(str(error))
"""
LOAD = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
repo = sys.argv[1]
fast = AutoTokenizer.from_pretrained(repo, trust_remote_code=False)
slow = AutoTokenizer.from_pretrained(repo, subfolder="slow", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True)
ids = fast("The robot", return_tensors="pt")
assert slow("The robot")["input_ids"] == ids["input_ids"][0].tolist()
print(type(slow).__name__, type(model).__name__, tuple(model(**ids).logits.shape))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub().serve() as served:
        yield served


def run_python(
    *arguments: str | Path, hub: str, home: Path, token: str | None = WRITE_TOKEN, ours: bool = True
) -> subprocess.CompletedProcess[str]:
    """Runs Python elsewhere, against the Hub at `hub`; only with `ours` can it import this project."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    environment |= {"HF_ENDPOINT": hub, "HF_HOME": str(home / "hf_home"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    environment |= {"HF_TOKEN": token} if token else {}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2])} if ours else {}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_push_is_one_commit_that_loads_from_the_hub(hub: Hub, pristine_run: Path, tmp_path: Path) -> None:
    pushed = run_python(*PUSH, pristine_run, "--repo", "moons", "--private", hub=hub.url, home=tmp_path)
    assert pushed.returncode == 0, pushed.stderr
    repository = hub.repositories["alice/moons"]
    assert repository.private
    assert repository.messages == ["initial commit", "Upload a ScratchGPT model"]
    assert f"{hub.url}/alice/moons/commit/" in pushed.stdout
    assert set(repository.files) == MODEL_FILES | {f"slow/{name}" for name in SLOW_FILES} | {".gitattributes"}
    assert not [request for request in hub.requests if "xet" in request]
    text = repository.files["README.md"].decode()
    assert ModelCard(text).data.model_name == "moons"
    assert 'from_pretrained("alice/moons", trust_remote_code=True)' in text
    everything = b"".join(repository.files.values())
    assert WRITE_TOKEN.encode() not in everything
    assert str(pristine_run).encode() not in everything

    loaded = run_python("-c", LOAD, "alice/moons", hub=hub.url, home=tmp_path, ours=False)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split("\n")[0] == "ScratchGPTTokenizer ScratchGPTForCausalLM (1, 3, 300)"


def test_a_commit_that_fails_is_completed_by_the_same_upload(hub: Hub, pristine_bundle: Path, tmp_path: Path) -> None:
    upload = ("-c", UPLOAD, pristine_bundle, "alice/moons")
    hub.faults["POST /api/models/alice/moons/commit"] = 503
    failed = run_python(*upload, hub=hub.url, home=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith("uploading to alice/moons: the Hub answered 503 (a fault on demand).")
    assert "The repository is there, perhaps without its files. Run the same command again" in failed.stderr
    assert set(hub.repositories["alice/moons"].files) == {".gitattributes"}
    hub.faults.clear()
    done = run_python(*upload, hub=hub.url, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert hub.repositories["alice/moons"].messages == ["initial commit", "Upload a ScratchGPT model"]
    assert set(hub.repositories["alice/moons"].files) > MODEL_FILES


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [
        (
            None,
            "moons",
            "expected an access token of the Hugging Face Hub, but there is none.*`hf auth login`.*HF_TOKEN",
        ),
        ("hf_wrong", "moons", "asking the Hub who you are: the Hub answered 401 .*The token was not accepted"),
        (READ_TOKEN, "moons", "expected a token with the right to write, got a read-only one"),
        (
            WRITE_TOKEN,
            "bob/moons",
            "expected a name under alice or the-lab, which .* got 'bob/moons'",
        ),
        (WRITE_TOKEN, "alice/the/moons", "expected `name` or `user/name` as the Hub allows it, got 'alice/the/moons'"),
        (
            WRITE_TOKEN,
            "the-lab/books",
            r"it holds 1 other files \(novel.txt\). Nothing has been uploaded; choose another",
        ),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_any_work(
    hub: Hub, tmp_path: Path, token: str | None, repo: str, message: str
) -> None:
    hub.create("the-lab/books", files={"novel.txt": b"once"})
    done = run_python(*PUSH, tmp_path / "no-run", "--repo", repo, hub=hub.url, home=tmp_path, token=token)
    assert done.returncode == 1
    assert re.match(f"error: (--repo: )?.*{message}", done.stderr, flags=re.DOTALL), done.stderr
    assert "Traceback" not in done.stderr
    assert [request for request in hub.requests if not request.startswith("GET ")] == []
    assert list(hub.repositories) == ["the-lab/books"]


def test_a_hub_that_does_not_answer_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    done = run_python(*PUSH, tmp_path / "no-run", "--repo", "moons", hub=url, home=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: asking the Hub who you are: the Hub cannot be reached (")
    assert "Traceback" not in done.stderr


def test_a_run_that_is_none_is_refused_before_a_repository_is_made(hub: Hub, tmp_path: Path) -> None:
    done = run_python(*PUSH, tmp_path / "no-run", "--repo", "moons", hub=hub.url, home=tmp_path)
    assert (done.returncode, hub.repositories) == (1, {})
    assert "no-run: expected a run folder, but there is no such folder" in done.stderr
