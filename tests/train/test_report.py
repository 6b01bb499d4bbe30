"""When loss.png is drawn."""

from pathlib import Path

import pytest

from train import run_log as report
from train.run_log import Report

LINE = {"step": 1, "tokens_seen": 100, "train_loss": 2.0, "validation_loss": 2.5}


def test_the_picture_waits_for_its_time_or_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Report(tmp_path, quiet=True)
    told.metrics(**LINE)
    picture = tmp_path / "loss.png"

    def checkpoint(status: str) -> bool:
        told.picture(floor=1.0, nats_to_bits_per_byte=1.5)
        told.run(status=status)
        return picture.exists()

    assert not checkpoint("running")
    assert checkpoint("stopped")
    picture.unlink()
    told.run(status="finished")
    assert not picture.exists()
    monkeypatch.setattr(report, "PICTURE_PAUSE", 0.0)
    assert checkpoint("running")
