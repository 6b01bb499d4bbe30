"""A run folder while another process writes it."""

import json
import os
from pathlib import Path

import pytest
from filelock import FileLock

from panels.context import AppContext
from panels.models import ModelLoader, ModelSource, find_model
from panels.tabs.learn import monitor as runs
from panels.tabs.learn.monitor import Tail, Watch, is_locked, kept_checkpoints, known_runs
from tests.panels.tiny_model import save_run


def line(step: int, **values: object) -> str:
    return json.dumps({"step": step, "tokens_seen": 10 * step, "seconds": step / 2} | values) + "\n"


def lab_of(home: Path, folder: Path | None = None) -> AppContext:
    source = find_model(folder) if folder else ModelSource(given="somebody/else", name="else")
    return AppContext(loader=ModelLoader(source), home=home)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that says that it is running."""
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": "running", "step": 0, "steps": 100}))
    (folder / "recipe.json").write_text("{}")
    return folder


@pytest.fixture(autouse=True)
def _every_look_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "APART", 0.0)
    monkeypatch.setattr(runs, "SILENCE", -1.0)


def test_a_tail_reads_only_what_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert not tail.read()
    path.write_text(line(1) + line(2))
    assert tail.read()
    assert [each["step"] for each in tail.lines] == [1, 2]
    known = path.stat().st_size
    with path.open("r+") as stream:  # what was read already may change without being read again
        stream.write("x" * 10)
        stream.seek(0, os.SEEK_END)
        stream.write(line(3))
    assert tail.read()
    assert [each["step"] for each in tail.lines] == [1, 2, 3]
    assert tail.offset == path.stat().st_size > known
    assert not tail.read()


def test_an_unfinished_last_line_waits_for_its_end_and_a_broken_one_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail, whole = Tail(path), line(2, train_loss=1.5)
    path.write_text(line(1) + '{"step": 1, "tra\x00\n[1]\n{"step": "one"}\n\n' + whole[:9])
    tail.read()
    assert [each["step"] for each in tail.lines] == [1]
    assert tail.broken == 3
    with path.open("a") as stream:
        stream.write(whole[9:])
    assert tail.read()
    assert tail.lines[-1]["train_loss"] == 1.5


@pytest.mark.parametrize("how", ["replaced", "replaced by a longer one", "cut"])
def test_a_rewound_file_is_read_from_its_beginning(tmp_path: Path, how: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(map(line, range(1, 6))))
    tail = Tail(path)
    tail.read()
    new = line(1, train_loss=9.0) + (line(2) * 40 if "longer" in how else "")
    if how == "cut":
        path.write_text(new)
    else:
        (tmp_path / "new").write_text(new)
        (tmp_path / "new").replace(path)
    assert tail.read()
    assert tail.lines[0]["train_loss"] == 9.0
    assert len(tail.lines) == new.count("\n")


def test_a_run_is_running_only_while_its_lock_is_held(run: Path) -> None:
    (run / "metrics.jsonl").write_text(line(10) + line(20))
    watch = Watch(run)
    with FileLock(run / ".lock"):
        assert is_locked(run)
        view = watch.look()
        assert (view.status, view.step, view.steps, view.tokens_seen) == ("running", 20, 100, 200)
        assert view.seconds_left == pytest.approx(40.0)  # half a second a step
        assert view.tokens_per_second == pytest.approx(20.0)
    assert not is_locked(run)
    version = watch.version
    killed = watch.look()
    assert killed.status == "broken off"
    assert not killed.is_going
    assert killed.seconds_left is None
    assert watch.version != version


def test_looking_at_the_lock_leaves_it_free_and_makes_none(run: Path) -> None:
    assert not is_locked(run)
    assert not (run / ".lock").exists()
    FileLock(run / ".lock").acquire().lock.release()
    assert not is_locked(run)
    with FileLock(run / ".lock", timeout=0):
        pass


def test_no_news_is_no_new_version(run: Path) -> None:
    watch = Watch(run)
    with FileLock(run / ".lock"):
        (run / "metrics.jsonl").write_text(line(10))
        watch.look()
        version = watch.version
        watch.look()
        assert watch.version == version
        with (run / "metrics.jsonl").open("a") as stream:
            stream.write('{"step": 2')  # unfinished: no news either
        watch.look()
        assert watch.version == version


def test_what_the_folder_said_before_a_process_began_does_not_count(run: Path) -> None:
    (run / "run.json").write_text(json.dumps({"status": "stopped", "step": 30, "steps": 100}))
    watch = Watch(run)
    written = (run / "run.json").stat().st_mtime
    assert watch.look().status == "stopped"
    assert watch.look(since=written + 5).status == "preparing"
    assert watch.look(since=written - 5).status == "stopped"


def test_a_run_without_run_json_is_preparing_or_has_failed(run: Path) -> None:
    (run / "run.json").unlink()
    assert Watch(run).look().status == "failed"
    with FileLock(run / ".lock"):
        assert Watch(run).look().status == "preparing"
    assert Watch(run).look(since=1.0).status == "preparing"


def test_a_folder_that_vanishes_is_gone(run: Path) -> None:
    (run / "metrics.jsonl").write_text(line(10))
    watch = Watch(run)
    watch.look()
    run.rename(run.with_name("elsewhere"))
    assert watch.look().status == "gone"


def test_a_broken_run_json_is_no_state(run: Path) -> None:
    (run / "run.json").write_text('{"status": "runn')
    assert Watch(run).look().status == "failed"


def test_the_going_run_comes_first_then_the_models_own_then_the_newest(tmp_path: Path) -> None:
    for age, name in enumerate(["going", "own", "newest", "older"]):
        folder = save_run(tmp_path / "runs" / name)
        state = json.loads((folder / "run.json").read_text())
        state["status"] = "running" if name == "going" else "finished"
        (folder / "run.json").write_text(json.dumps(state))
        os.utime(folder / "run.json", (0, 1_000_000 - 100 * (age if name != "going" else 50)))
    (tmp_path / "runs" / "no run").mkdir()
    (tmp_path / "runs" / ".hidden").mkdir()
    context = lab_of(tmp_path, tmp_path / "runs" / "own")
    assert list(known_runs(context)) == ["going", "own", "newest", "older"]
    assert not known_runs(lab_of(tmp_path / "elsewhere"))


def test_a_run_outside_the_runs_folder_is_listed_when_the_model_came_from_it(tmp_path: Path) -> None:
    own = save_run(tmp_path / "far" / "lab")
    save_run(tmp_path / "home" / "runs" / "lab")
    context = lab_of(tmp_path / "home", own)
    assert known_runs(context)["lab"] == own.resolve()
    assert set(known_runs(context)) == {"lab", "lab (2)"}


def test_checkpoints_that_are_not_whole_are_left_out(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    (run / "checkpoints" / ".step-000030.abc.tmp").mkdir()
    (run / "checkpoints" / "step-000010").mkdir()
    assert list(kept_checkpoints(run)) == [20]
