"""`python -m train RECIPE --push NAME`, in a process of its own, against the Hub double."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_double import READ_TOKEN, WRITE_TOKEN, Fault, Hub
from tests.hub_export.hub_processes import environment
from train import publishing


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub().serve() as served:
        yield served


def train(hub: Hub, home: Path, *, token: str = WRITE_TOKEN, steps: int = 2) -> subprocess.CompletedProcess[str]:
    flags = ["--run-dir", str(home / "run"), "--steps", str(steps), "--push", "moons"]
    return subprocess.run(
        [sys.executable, "-m", "train", "debug", *flags],
        cwd=home,
        env=environment(hub.url, home, token=token),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_a_run_is_pushed_at_its_end_and_is_whole_when_the_hub_refuses_it(hub: Hub, tmp_path: Path) -> None:
    """The Hub is asked before the training, and by the push at its end; what a push does is tested where it lives."""
    asked = ["GET /api/whoami-v2", "GET /api/models/alice/moons"]
    hub.faults.append(Fault(request=asked[1], answer=403, spared=1))
    done = train(hub, tmp_path)
    assert done.returncode == 1
    assert hub.requests == asked * 2
    assert "alice/moons may be published: it is not there yet." in done.stdout
    assert "error: looking at alice/moons: the Hub answered 403" in done.stderr
    assert "run: the run is finished and complete, but was not published. When that is fixed: `" in done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["step"] == 2


@pytest.mark.slow
def test_a_run_is_published_at_its_end(hub: Hub, tmp_path: Path) -> None:
    done = train(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["alice/moons"]
    assert repository.tags == {"v1": repository.head}
    uploaded = b"".join(repository.files.values())
    assert str(tmp_path).encode() not in uploaded
    assert "alice/moons may be published: it is not there yet." in done.stdout


def test_who_may_not_publish_hears_it_before_the_training(hub: Hub, tmp_path: Path) -> None:
    done = train(hub, tmp_path, token=READ_TOKEN)
    assert done.returncode == 1
    assert "error: expected a token with the right to write, got a read-only one of alice." in done.stderr
    assert "error: --push moons: cannot be published, as the line above says." in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_stopped_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"status": "interrupted"}))
    monkeypatch.setattr(publishing, "_run", lambda *_: pytest.fail("it was published"))
    publishing.publish(tmp_path, "moons")
    assert "not published, since the run is not finished (interrupted)" in capsys.readouterr().out


def test_a_push_that_fails_leaves_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"status": "finished"}))
    monkeypatch.setattr(publishing, "_run", lambda *_: 1)
    with pytest.raises(
        ValueError, match=r"finished and complete, but was not published.*hub_export push .* --repo moons`"
    ):
        publishing.publish(tmp_path, "moons")


def test_only_the_first_of_several_processes_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert not publishing.is_first_process()
    monkeypatch.delenv("RANK")
    assert publishing.is_first_process()
