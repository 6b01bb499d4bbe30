"""When loss.png is drawn."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from storage.run_folder import RunFolder
from train.run_log import RunLog

SCALE: Any = SimpleNamespace(loss_label="loss", floor=1.0, bits_per_byte=1.5)


def test_the_picture_waits_for_its_time_or_the_end(tmp_path: Path) -> None:
    log, folder = RunLog(RunFolder(tmp_path), quiet=True, picture_pause=60), RunFolder(tmp_path)
    log.metrics(step=1, tokens_seen=100, train_loss=2.0, validation_loss=2.5)

    def is_drawn(status: str) -> bool:
        log.picture(SCALE)
        log.state(status=status)
        return folder.picture.exists()

    assert not is_drawn("running")
    assert is_drawn("stopped")
    folder.picture.unlink()
    log.state(status="finished")
    assert not folder.picture.exists()
    log.picture_pause = 0.0
    assert is_drawn("running")
