"""Trackers, for real and offline: what they keep is what metrics.jsonl has."""

import errno
import importlib.util
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from accelerate import Accelerator

from storage.records import read_jsonl
from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from tests.train.test_loop import TIMED, stop_after
from train.__main__ import main
from train.config import Config
from train.loop import train
from train.run_log import RunLog
from train.trackers import tracking, wandb_mode

Values = dict[int, dict[str, float]]


def expected(run_dir: Path) -> Values:
    """The numbers of metrics.jsonl by step."""
    return {
        line["step"]: {key: value for key, value in line.items() if key != "step" and value is not None}
        for line in read_jsonl(run_dir / "metrics.jsonl")
    }


def without_times(values: Values) -> Values:
    return {step: {key: value for key, value in line.items() if key not in TIMED} for step, line in values.items()}


def run_broken(config: Config, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that is interrupted after step 6 and resumed, its last checkpoint lost in between: 5 and 6 come twice."""
    with monkeypatch.context() as patch:
        stop_after(6, patch)
        run_dir = train(config, recipe="debug")
    (run_dir / "checkpoints/step-000006").rename(run_dir / "lost")
    return train(with_fields(config, run__resume=True), recipe="debug")


def tensorboard_values(folder: Path) -> Values:
    """What TensorBoard shows of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=True)
    events.Reload()
    found: Values = {}
    for key in events.Tags()["scalars"]:
        for event in events.Scalars(key):
            line = found.setdefault(event.step, {})
            assert key not in line, f"{key} of step {event.step} is there twice"
            line[key] = event.value
    return found


def test_tensorboard(tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = fresh_run_dir("run")
    run_broken(with_fields(tiny, run__dir=run_dir, run__tracker="tensorboard"), monkeypatch)
    folder = run_dir / "tracking/scratchgpt"
    found, known = tensorboard_values(folder), expected(run_dir)
    assert found.keys() == known.keys() == set(range(1, 13))
    for step, line in known.items():
        assert found[step] == pytest.approx(line, rel=1e-6)  # events are float32
    (hyperparameters,) = folder.glob("*/hparams.yml")
    assert "model.num_hidden_layers: 2" in hyperparameters.read_text()


def wandb_records(folder: Path) -> Iterator[Any]:
    """The records of an offline run: protobuf messages in the block format of LevelDB's log, after a 7 byte header."""
    from wandb.proto import wandb_internal_pb2 as protocol

    messages: Any = protocol  # generated when it is imported

    (path,) = folder.glob("run-*.wandb")
    content = path.read_bytes()
    place, pending, block = 7, b"", 32768
    while place + 7 <= len(content):
        if block - place % block < 7:
            place += block - place % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        pending += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = messages.Record()
            record.ParseFromString(pending)
            yield record
            pending = b""


def wandb_values(folder: Path) -> tuple[Values, dict[str, Any], Any]:
    """History, config and run of an offline run."""
    values: Values = {}
    config: dict[str, Any] = {}
    run: Any = None
    for record in wandb_records(folder):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            values[items["_step"]] = {key: value for key, value in items.items() if not key.startswith("_")}
        elif kind in ("run", "config"):
            run = record.run if kind == "run" else run
            update = record.run.config.update if kind == "run" else record.config.update
            config |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in update}
    return values, config, run


def test_wandb(tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run_dir = fresh_run_dir("my run")
    run_broken(with_fields(tiny, run__dir=run_dir, run__tracker="wandb"), monkeypatch)
    folders = sorted(run_dir.glob("tracking/wandb/offline-run-*"))
    (first, _, run), (second, config, again) = map(wandb_values, folders)
    assert (run.project, run.display_name) == ("scratchgpt", "my run")
    assert run.run_id == again.run_id == (run_dir / "tracking/wandb-id").read_text()
    assert config["model.num_hidden_layers"] == 2
    known = expected(run_dir)
    assert second == {step: known[step] for step in range(5, 13)}
    assert without_times(first) == without_times({step: known[step] for step in range(1, 7)})


def test_trackio(
    tiny: Config,
    fresh_run_dir: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from trackio.sqlite_storage import SQLiteStorage

    run_dir = fresh_run_dir("my run")
    run_broken(with_fields(tiny, run__dir=run_dir, run__tracker="trackio"), monkeypatch)
    run = SQLiteStorage.get_latest_run_record_by_name("scratchgpt", "my run")
    assert run is not None
    assert len(SQLiteStorage.get_runs("scratchgpt")) == 1
    logs = SQLiteStorage.get_logs("scratchgpt", "my run", run_id=run["id"])
    found = {
        log["step"]: {key: value for key, value in log.items() if key not in ("step", "timestamp")} for log in logs
    }
    assert len(found) == len(logs) == 12
    assert without_times(found) == without_times(expected(run_dir))
    kept = SQLiteStorage.get_run_config("scratchgpt", "my run", run_id=run["id"])
    assert kept is not None
    assert kept["model.num_hidden_layers"] == 2


@pytest.mark.parametrize("name", ["trackio", "tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_is_named(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == name else find_spec(module))
    message = f"error: --tracker {name}: expected the package {name}, got none installed; install it with `pip install"
    with pytest.raises(SystemExit, match=message):
        main(["debug", "--tracker", name, "--run-dir", str(tmp_path)])
    assert not (tmp_path / "tokens").exists()


def test_a_tracker_for_which_there_is_no_room_is_named(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    config = with_fields(tiny, run__tracker="tensorboard")
    accelerator, log = Accelerator(cpu=True), RunLog(RunFolder(tmp_path), quiet=True)
    context = tracking(config, tmp_path, accelerator, log, step=0, steps=9)
    with pytest.raises(OSError, match="tensorboard-id: the disk has no room for it"), context:
        pass
    assert list((tmp_path / "tracking").iterdir()) == []


def test_no_tracker_is_the_default(finished_run: Path, tiny: Config) -> None:
    assert tiny.run.tracker == "none"
    assert not (finished_run / "tracking").exists()


@pytest.mark.slow
def test_wandb_is_online_where_it_finds_a_key_and_never_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def mode() -> str:
        wandb.teardown()  # it keeps the key that it found
        return wandb_mode()

    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert mode() == "offline"
    (tmp_path / "netrc").write_text(f"machine wandb.example.org login user password {'0' * 40}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert mode() == "disabled"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    with pytest.raises(ValueError, match="--tracker wandb: expected an API key that W&B takes, got another"):
        mode()
    wandb.teardown()
