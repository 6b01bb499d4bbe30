"""A run folder: its checkpoints by name, and its records when a run resumes."""

import json
import shutil
from pathlib import Path

import pytest

from storage.run_folder import RunFolder, describe_corpus, step_of


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


def test_the_run_of_a_checkpoint(tmp_path: Path, run: RunFolder) -> None:
    for folder in (run.path, run.checkpoint_folder(3)):
        assert RunFolder.containing(folder) == RunFolder(folder if folder == run.path else run.path.resolve())
    assert RunFolder.containing(tmp_path) is None
    assert RunFolder.all_in(tmp_path) == [run]


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
        ({"source": "gutenberg", "books": "scifi"}, "books of early science fiction from Project Gutenberg"),
        ({"source": "gutenberg", "books": "any"}, "Project Gutenberg books"),
        ({"source": "local", "paths": ["/home/alice/diary"]}, "its maker's own text files"),
        ({"source": "local", "books": "scifi", "paths": [__file__]}, "its maker's own text files"),
        (
            {"source": "local", "books": "scifi", "paths": [str(Path(__file__).parent)]},
            "books of early science fiction from Project Gutenberg",
        ),
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
