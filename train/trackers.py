"""Experiment trackers: the lines of metrics.jsonl, with their steps, to TensorBoard, Weights & Biases or trackio.

All go through accelerate. What a tracker writes lies in `tracking/` of the run folder and stays there: nothing is sent
anywhere unless the user's own settings say so (a W&B login, WANDB_MODE, TRACKIO_DIR, TRACKIO_SPACE_ID).
"""

import importlib.util
import io
import netrc
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from accelerate import Accelerator

from train.config import Config, as_json
from train.run_log import RunLog

PROJECT = "scratchgpt"
FOLDER = "tracking"


def check_tracker(name: str) -> None:
    """Check that a tracker can be used here.

    Raises:
        ValueError: for one whose package is not installed.
    """
    if name != "none" and importlib.util.find_spec(name) is None:
        raise ValueError(
            f"--tracker {name}: expected the package {name}, got none installed; "
            f"install it with `pip install {name}`, or leave --tracker out"
        )


def accelerator_arguments(name: str, run_dir: Path) -> dict[str, Any]:
    """What `Accelerator` is told of the tracker."""
    return {} if name == "none" else {"log_with": name, "project_dir": run_dir / FOLDER}


@contextmanager
def tracking(
    config: Config, run_dir: Path, accelerator: Accelerator, log: RunLog, *, step: int, steps: int
) -> Iterator[None]:
    """While the block runs, the run's metrics go to the tracker too.

    The run is called like its folder, in the project `scratchgpt`, and has the config with it. A run that is resumed
    goes on in the tracker's run: TensorBoard forgets the points after `step`, the others leave out what they know
    already (a resumed run repeats it).

    Args:
        step: steps that the run has done; its next line belongs to a later one.
        steps: steps that it will have done; where these are none, there is nothing to track.
    """
    name = config.run.tracker
    if name == "none" or step >= steps:
        yield
        return
    folder = run_dir / FOLDER
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
    run_name = run_dir.resolve().name
    known = (folder / f"{name}-id").is_file()
    kwargs, where = _INIT[name](folder, run_name, step, log.quiet) if accelerator.is_main_process else ({}, "")
    # TensorBoard keeps every config it is told as one more run, so it is told once.
    values = None if known and name == "tensorboard" else flat_config(config)
    with redirect_stdout(io.StringIO()) if log.quiet else nullcontext():
        accelerator.init_trackers(PROJECT, config=values, init_kwargs={name: kwargs})
    log.info(f"tracking with {name}{' (resumed)' if known else ''}: {where}")
    first = step + 1
    if accelerator.is_main_process:
        identity(folder, name)
        if name == "trackio":
            first = max(first, trackio_last_step(accelerator) + 1)

    def send(values: dict[str, Any]) -> None:
        if values["step"] >= first:
            numbers = {key: value for key, value in values.items() if key != "step" and value is not None}
            accelerator.log(numbers, step=values["step"])

    log.track = send
    try:
        yield
    finally:
        log.track = None
        with redirect_stdout(io.StringIO()) if log.quiet else nullcontext():
            for tracker in accelerator.trackers:
                tracker.finish()


def flat_config(config: Config) -> dict[str, Any]:
    """The config as `section.field`: numbers, truth values and texts."""
    return {
        f"{section}.{key}": value if isinstance(value, bool | int | float | str) else str(value)
        for section, values in as_json(config).items()
        for key, value in values.items()
    }


def identity(folder: Path, name: str) -> str:
    """The id by which a tracker knows this run, made once and kept in the folder."""
    path = folder / f"{name}-id"
    if not path.is_file():
        path.write_text(secrets.token_hex(8), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def trackio_last_step(accelerator: Accelerator) -> int:
    """The last step that trackio's run has, or -1."""
    from trackio.sqlite_storage import SQLiteStorage

    run: Any = accelerator.get_tracker("trackio", unwrap=True)
    last = SQLiteStorage.get_max_step_for_run(PROJECT, run.name, run_id=run.id)
    return -1 if last is None else last


def wandb_has_login() -> bool:
    """Whether Weights & Biases would find an API key without asking for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _init_tensorboard(folder: Path, _: str, step: int, __: bool) -> tuple[dict[str, Any], str]:
    return {"purge_step": step + 1}, f"see it with `tensorboard --logdir {folder}`"


def _init_wandb(folder: Path, run_name: str, _: int, quiet: bool) -> tuple[dict[str, Any], str]:
    import wandb

    mode = os.environ.get("WANDB_MODE") or ("online" if wandb_has_login() else "offline")
    kwargs = dict(
        name=run_name,
        id=identity(folder, "wandb"),
        resume="allow" if mode == "online" else None,
        dir=folder,
        mode=mode,
        settings=wandb.Settings(console="off", silent=quiet),
    )
    if mode == "online":
        return kwargs, f"project {PROJECT}, run {run_name}"
    return kwargs, f"kept in {folder / 'wandb'}; send it with `wandb sync {folder / 'wandb'}/offline-run-*`"


def _init_trackio(folder: Path, run_name: str, _: int, __: bool) -> tuple[dict[str, Any], str]:
    os.environ.setdefault("TRACKIO_DIR", str(folder.resolve()))
    import trackio.utils

    place = trackio.utils.TRACKIO_DIR  # fixed when trackio is first imported
    known = (folder / "trackio-id").is_file()
    kwargs = dict(name=run_name, resume="allow" if known else "never", embed=False, auto_log_cpu=False)
    return kwargs, f"see it with `TRACKIO_DIR={place} trackio show --project {PROJECT}`"


_INIT: dict[str, Callable[[Path, str, int, bool], tuple[dict[str, Any], str]]] = {
    "tensorboard": _init_tensorboard,
    "wandb": _init_wandb,
    "trackio": _init_trackio,
}
