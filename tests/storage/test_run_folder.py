"""A run folder: its checkpoints by name, and its records when a run resumes."""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.checksums import write_checksums
from storage.corpus_facts import describe_corpus
from storage.records import write_json
from storage.run_folder import RunFolder, step_of


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with the checkpoints 3 and 20, of which 3 is the best."""
    run = RunFolder(tmp_path / "runs" / "one")
    for step in (20, 3):
        run.checkpoint_folder(step).mkdir(parents=True)
        (run.checkpoint_folder(step) / "config.json").write_text("{}")
    run.write_state({"best_checkpoint": "checkpoints/step-000003", "latest_checkpoint": "checkpoints/step-000020"})
    run.write_recipe({"config": {"corpus": {"source": "stories", "stories": 2000}}})
    return run


def test_checkpoints_by_name(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    for name, step in {"best": 3, "latest": 20, "step-000020": 20}.items():
        assert step_of(RunFolder.open(run.path).checkpoint(name)) == step
    run.write_state({"best_checkpoint": None})
    assert step_of(RunFolder.open(run.path).checkpoint()) == 20
    assert "no evaluation has named a best checkpoint yet" in caplog.text
    run.write_state({"best_checkpoint": "checkpoints/step-000005"})
    with pytest.raises(ValueError, match="expected a checkpoint called step-000005, but this run has step-000003"):
        RunFolder.open(run.path).checkpoint()


@pytest.mark.parametrize("name", ["../x", "../../elsewhere", "/etc", "step-000030", "", "."])
def test_a_checkpoint_that_the_run_has_not_is_named_with_those_it_has(run: RunFolder, name: str) -> None:
    (run.path / "x").mkdir()
    (run.path / "x" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"called {name}, but this run has step-000003, step-000020\. Choose one"):
        run.checkpoint(name)
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(ValueError, match="expected at least one checkpoint, but this run has none yet"):
        run.checkpoint(name)


def test_what_is_no_run_is_named(tmp_path: Path, run: RunFolder) -> None:
    with pytest.raises(ValueError, match="expected a run folder, but there is no such folder"):
        RunFolder.open(tmp_path / "nope")
    with pytest.raises(ValueError, match=r"but run\.json and recipe\.json are missing"):
        RunFolder.open(run.path / "checkpoints")
    (run.path / "recipe.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"recipe\.json: expected a JSON object, got a list"):
        RunFolder.open(run.path)


def test_two_that_record_an_evaluation_at_once_lose_none(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one begins when the first has read the file and not yet written it."""
    second = threading.Thread(target=run.record_evaluation, args=("step-000003", {"texts": {"b": 2}}))

    def write_later(path: Path, value: object) -> None:
        if threading.current_thread() is not second:
            second.start()
            second.join(timeout=0.5)  # without a lock it has ended by then
        write_json(path, value)

    run.record_evaluation("step-000020", {"memorization": 1})
    run.record_evaluation("step-000003", {"memorization": 3})
    monkeypatch.setattr("storage.run_folder.write_json", write_later)
    run.record_evaluation("step-000003", {"texts": {"a": 1}})
    second.join()
    assert run.evaluations("step-000003") == {"memorization": 3, "texts": {"a": 1, "b": 2}}
    assert run.evaluations("step-000020") == {"memorization": 1}


def test_the_run_of_a_checkpoint(tmp_path: Path, run: RunFolder) -> None:
    for folder in (run.path, run.checkpoint_folder(3)):
        assert RunFolder.containing(folder) == RunFolder(folder if folder == run.path else run.path.resolve())
    (run.checkpoint_folder(3) / "training").mkdir()
    for folder in (tmp_path, run.checkpoint_folder(3) / "training"):
        assert RunFolder.containing(folder) is None


def test_the_runs_of_a_folder(tmp_path: Path, run: RunFolder) -> None:
    shutil.copytree(run.path, tmp_path / "runs" / ".one.0123456789ab.tmp")
    (tmp_path / "runs" / "notes").mkdir()
    assert RunFolder.all_in(tmp_path) == [run]
    for name in ("run.json", "recipe.json", ".lock", "page.json"):
        path = tmp_path / "runs" / "beginning" / name
        path.parent.mkdir()
        path.touch()
        assert RunFolder.all_in(tmp_path) == [RunFolder(path.parent), run]
        shutil.rmtree(path.parent)


def test_every_path_of_a_run(run: RunFolder) -> None:
    paths = (run.tokenizer, run.tokens, run.log, run.picture, run.output, run.recipe_file, run.vocabulary)
    paths = (*paths, run.started_by_page, run.page_log)
    assert " ".join(path.relative_to(run.path).as_posix() for path in paths) == (
        "tokenizer tokens train.log loss.png output.txt recipe.json vocab.txt page.json page.log"
    )


def test_what_binds_the_runs_that_resume(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not run.is_begun
    for path in (run.tokenizer, run.tokens, run.checkpoint_folder(1)):
        path.mkdir(parents=True)
        (path / "config.json").touch()
        assert run.is_begun
        shutil.rmtree(path)


def test_state_and_recipe_of_this_moment(run: RunFolder) -> None:
    assert run.peek_state()["best_checkpoint"] == "checkpoints/step-000003"
    assert run.corpus_config == {"source": "stories", "stories": 2000} == run.peek_recipe()["config"]["corpus"]
    stamp = run.state_stamp()
    assert stamp is not None
    assert stamp[:2] == ((run.path / "run.json").stat().st_mtime, (run.path / "run.json").stat().st_size)
    assert run.last_change() == stamp[0]
    for name in ("run.json", "recipe.json"):
        (run.path / name).write_text("{")
    assert run.peek_state() == run.peek_recipe() == run.corpus_config == {}
    run.write_recipe({"config": {"corpus": [1]}})
    assert run.corpus_config == {}
    (run.path / "run.json").unlink()
    assert run.state_stamp() is None
    os.utime(run.path / "recipe.json", (5, 5))
    os.utime(run.path, (4, 4))
    assert run.last_change() == 5
    (run.path / "recipe.json").unlink()
    os.utime(run.path, (4, 4))
    assert run.last_change() == 4
    assert RunFolder(run.path / "nowhere").last_change() == 0


def test_the_last_good_checkpoint(run: RunFolder) -> None:
    write_checksums(run.checkpoint_folder(20))
    assert run.good_checkpoint() == run.checkpoint_folder(20)
    (run.checkpoint_folder(20) / "config.json").write_text("{ }")
    assert run.good_checkpoint() == run.checkpoint_folder(3)  # of an older version: without checksums
    shutil.rmtree(run.checkpoint_folder(3))
    assert run.good_checkpoint() is None


def test_records_that_no_longer_begin_as_they_did(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.record_checksums() == {}
    run.append_metrics({"step": 1})
    run.append_sample({"step": 1})
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink()))
    checksums = run.record_checksums()
    assert [path.name for path in synced] == ["metrics.jsonl", "samples.jsonl"]
    assert {name: size for name, (size, _) in checksums.items()} == {"metrics.jsonl": 12, "samples.jsonl": 12}
    run.append_metrics({"step": 2})
    assert run.changed_records(checksums) == []
    (run.path / "metrics.jsonl").write_text('{"step": 3}\n')
    (run.path / "samples.jsonl").unlink()
    assert run.changed_records(checksums) == ["metrics.jsonl", "samples.jsonl"]


def test_an_evaluation_that_is_only_in_the_state(run: RunFolder) -> None:
    run.write_state({"step": 7, "evaluation": {"validation_loss": 3.0}})
    assert run.evaluation_at(7) == {"validation_loss": 3.0}
    assert run.evaluation_at(6) == {}
    run.write_state({"step": 7, "evaluation": None})
    assert run.evaluation_at(7) == {}
    for loss in (1.0, 2.0):
        run.append_metrics({"step": 7, "validation_loss": loss})
    assert run.evaluation_at(7)["validation_loss"] == 2.0
    assert run.record_at(7, "train_loss") == {}


def test_followers_count_lines_without_a_step(run: RunFolder) -> None:
    for append, follow in ((run.append_metrics, run.follow_metrics), (run.append_sample, run.follow_samples)):
        append({"step": 1})
        append({"step": "two"})
        append({"stepXX": 3})
        follower = follow()
        follower.read()
        assert (follower.records, follower.broken) == ([{"step": 1}], 2)


def test_the_log_grows_line_by_line(run: RunFolder) -> None:
    run.append_log("one é")
    run.append_log("two")
    assert run.log.read_bytes() == "one é\ntwo\n".encode()


def test_broken_records_say_what_to_do(run: RunFolder) -> None:
    (run.path / "samples.jsonl").write_text("{\n{}\n")
    with pytest.raises(
        ValueError, match=r"samples\.jsonl.*: move it away \(mv .*samples\.jsonl .*jsonl\.damaged\) and"
    ):
        run.rewind(1)


def test_a_run_that_is_trained_in(run: RunFolder) -> None:
    assert run.is_locked is False  # nobody has made the lock file
    with run.lock():
        assert run.is_locked is True
        with pytest.raises(ValueError, match=r"expected a run folder that is free.* or choose another --run-dir$"):
            run.lock().__enter__()
    assert run.is_locked is False


def test_records_after_the_step_that_a_run_resumes_from_are_removed(run: RunFolder) -> None:
    for step in (1, 2, 3, 4):
        run.append_metrics({"step": step, "train_loss": 1.0})
        run.append_sample({"step": step, "text": "a\u2028b\x85c"})
    run.append_metrics({"step": 4, "validation_loss": 2.0})
    with (run.path / "samples.jsonl").open("ab") as file:
        file.write(b'{"step": 5, "te')
    assert run.evaluation_at(4) == {"step": 4, "validation_loss": 2.0}
    run.rewind(3)
    assert [record["step"] for record in run.metrics()] == [record["step"] for record in run.samples()] == [1, 2, 3]
    assert run.samples()[0]["text"] == "a\u2028b\x85c"
    assert run.evaluation_at(4) == {}


def test_prompts_without_blank_ones(run: RunFolder) -> None:
    assert run.prompts() == []
    run.write_prompts(["Once upon", " ", "a\u2029b"])
    assert run.prompts() == ["Once upon", "a\u2029b"]
    (run.path / "prompts.json").write_text(json.dumps([1, "two"]))
    assert run.prompts() == ["two"]


@pytest.mark.parametrize(
    ("corpus", "words"),
    [
        ({"source": "stories", "stories": 2000}, "2,000 short English stories made by ScratchGPT's own generator"),
        ({"source": "stories"}, "0 short English stories made by ScratchGPT's own generator"),
        ({"source": "hub", "dataset": "wikitext-2.v1"}, "the data set `wikitext-2.v1` of the Hugging Face Hub"),
        ({"source": "hub"}, "its maker's own text files"),
        ({"source": "gutenberg", "books": "scifi"}, "books of early science fiction from Project Gutenberg"),
        ({"source": "gutenberg", "books": "any"}, "Project Gutenberg books"),
        ({"source": "local", "paths": ["/home/alice/diary"]}, "its maker's own text files"),
        ({"source": "local", "books": "scifi", "paths": [__file__]}, "its maker's own text files"),
        ({"source": "local", "books": "scifi", "paths": [str(Path(__file__).parent)]}, "its maker's own text files"),
        (
            {"source": "hub", "dataset": "Salesforce/wikitext"},
            "the data set `Salesforce/wikitext` of the Hugging Face Hub",
        ),
        ({"source": "hub", "dataset": "/home/alice/diary"}, "its maker's own text files"),
        ({"source": "local", "dataset": "Salesforce/wikitext"}, "its maker's own text files"),
        ({}, "its maker's own text files"),
    ],
)
def test_the_corpus_is_named_without_its_place(corpus: dict, words: str) -> None:
    assert describe_corpus(corpus) == words


@pytest.mark.parametrize("is_made_again", [False, True])
def test_a_run_whose_folder_was_deleted_writes_nothing_into_another(tmp_path: Path, is_made_again: bool) -> None:
    """Its lock is on a file that has no name any more, so that another run gets a lock of its own."""
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    writes: list[Callable[[], object]] = [
        lambda: first.append_metrics({"step": 2}),
        lambda: first.append_sample({"step": 2}),
        lambda: first.append_log("step 2"),
        lambda: first.write_state({"status": "running"}),
        first.record_checksums,  # before a checkpoint
    ]
    with first.lock():
        for write in writes:
            write()
        shutil.rmtree(first.path)
        with second.lock() if is_made_again else contextlib.nullcontext():
            if is_made_again:
                second.append_metrics({"step": 1})
            what = "and another process has made one" if is_made_again else "or renamed"
            for write in writes:
                with pytest.raises(OSError, match=rf"run: expected the folder that this .* was deleted.? {what}"):
                    write()
            assert second.metrics() == [{"step": 1}] * is_made_again
            assert (
                sorted(path.name for path in tmp_path.rglob("*"))
                == [".lock", "metrics.jsonl", "run"][: 3 * is_made_again]
            )
