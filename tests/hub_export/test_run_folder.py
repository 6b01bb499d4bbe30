import json
import logging
from pathlib import Path

import pytest

from hub_export.run_folder import RunFolder, step_of


def edit_state(run: Path, **changes: object) -> None:
    state = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(state | changes))


def test_best_and_latest_are_those_of_run_json(run: Path) -> None:
    folder = RunFolder.read(run)
    assert step_of(folder.checkpoint()) == 10
    assert step_of(folder.checkpoint("latest")) == 20
    assert step_of(folder.checkpoint("step-000020")) == 20


def test_without_an_evaluation_the_latest_is_taken_and_said_aloud(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit_state(run, best_checkpoint=None)
    with caplog.at_level(logging.WARNING):
        assert step_of(RunFolder.read(run).checkpoint("best")) == 20
    assert "no evaluation has named a best checkpoint yet" in caplog.text


def test_a_recorded_checkpoint_that_is_gone_is_an_error(run: Path) -> None:
    edit_state(run, best_checkpoint="checkpoints/step-000005")
    with pytest.raises(ValueError, match="expected a checkpoint called step-000005, but this run has step-000010"):
        RunFolder.read(run).checkpoint()


def test_a_name_cannot_leave_the_run(run: Path) -> None:
    with pytest.raises(ValueError, match="expected a checkpoint called"):
        RunFolder.read(run).checkpoint("../../elsewhere")


def test_a_line_that_is_being_written_is_left_out(run: Path) -> None:
    whole = RunFolder.read(run).metrics()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "tok')
    assert RunFolder.read(run).metrics() == whole


def test_a_broken_line_in_the_middle_is_an_error(run: Path) -> None:
    (run / "samples.jsonl").write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"samples\.jsonl: expected JSON in line 1, got '\{\"step\": 1'"):
        RunFolder.read(run).samples()


def test_an_object_is_expected(run: Path) -> None:
    (run / "recipe.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"recipe\.json: expected a JSON object, got a list"):
        RunFolder.read(run)
