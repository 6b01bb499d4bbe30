"""Experiment trackers: the records of metrics.jsonl, with their steps, to TensorBoard, Weights & Biases or trackio.

All go through accelerate. What a tracker writes is in `tracking/` of the run folder; nothing is sent anywhere unless
the user's own settings say so (a W&B login, WANDB_MODE, TRACKIO_DIR, TRACKIO_SPACE_ID).
"""

import importlib.util
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from storage.files import atomic_file
from storage.records import flatten
from train.config import Config, as_json
from train.run_log import RunLog

PROJECT = "scratchgpt"
FOLDER = "tracking"


def check_tracker(name: str) -> None:
    """Raise ValueError when the tracker's package is not installed, or W&B does not take the login."""
    if name != "none" and importlib.util.find_spec(name) is None:
        raise ValueError(
            f"--tracker {name}: expected the package {name}, got none installed; "
            f"install it with `pip install {name}`, or leave --tracker out"
        )
    if name == "wandb":
        wandb_mode()


def accelerator_arguments(name: str, run_dir: Path) -> dict[str, Any]:
    """The arguments of `Accelerator` that select a tracker."""
    return {} if name == "none" else {"log_with": name, "project_dir": run_dir / FOLDER}


@contextmanager
def tracking(
    config: Config, run_dir: Path, accelerator: Accelerator, log: RunLog, *, step: int, steps: int
) -> Iterator[None]:
    """While the block runs, the records of metrics.jsonl go to the tracker too.

    The tracker's run has the folder's name, in the project `scratchgpt`, and the config. A resumed run, which repeats
    the steps after its checkpoint, continues the tracker's run: TensorBoard drops its points after `step`, W&B and
    trackio are not sent a step that they have.

    Args:
        step: steps done so far.
        steps: steps at the end; nothing is tracked where none are left.
    """
    name, folder = config.run.tracker, run_dir / FOLDER
    if name == "none" or step >= steps:
        yield
        return
    quietly = redirect_stdout(io.StringIO()) if log.quiet else nullcontext()
    identity, known = folder / f"{name}-id", (folder / f"{name}-id").is_file()
    arguments, hint = {}, ""
    if accelerator.is_main_process:
        if not known:
            with atomic_file(identity) as stream:
                stream.write(secrets.token_hex(8))
        arguments, hint = _init_arguments(name, folder, identity.read_text(encoding="utf-8"), known, step, log.quiet)
    # TensorBoard shows every config it gets as one more run, so it gets the config once.
    hyperparameters = None if known and name == "tensorboard" else flat_config(config)
    with quietly:
        accelerator.init_trackers(PROJECT, config=hyperparameters, init_kwargs={name: arguments})
    log.info(f"tracking with {name}{' (resumed)' if known else ''}: {hint}")
    first = step + 1
    if name == "trackio" and accelerator.is_main_process:
        from trackio.sqlite_storage import SQLiteStorage

        run: Any = accelerator.get_tracker("trackio", unwrap=True)
        last = SQLiteStorage.get_max_step_for_run(PROJECT, run.name, run_id=run.id)
        first = max(first, 0 if last is None else last + 1)

    def send(record: dict[str, Any]) -> None:
        if record["step"] >= first:
            numbers = {key: value for key, value in record.items() if key != "step" and value is not None}
            accelerator.log(numbers, step=record["step"])

    log.track = send
    try:
        yield
    finally:
        log.track = None
        with quietly:
            for tracker in accelerator.trackers:
                tracker.finish()


def flat_config(config: Config) -> dict[str, bool | int | float | str]:
    """The config by `section.field`; what is no number, truth value or text becomes text."""
    fields = flatten(as_json(config)).items()
    return {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in fields}


def _init_arguments(
    name: str, folder: Path, identity: str, known: bool, step: int, quiet: bool
) -> tuple[dict[str, Any], str]:
    """The arguments of the tracker's own init, and how to see what it keeps."""
    run_name = folder.resolve().parent.name
    if name == "tensorboard":
        return {"purge_step": step + 1}, f"see it with `tensorboard --logdir {folder}`"
    if name == "trackio":
        os.environ.setdefault("TRACKIO_DIR", str(folder.resolve()))
        from trackio.utils import TRACKIO_DIR  # fixed when trackio is first imported

        arguments = {"name": run_name, "resume": "allow" if known else "never", "embed": False, "auto_log_cpu": False}
        return arguments, f"see it with `TRACKIO_DIR={TRACKIO_DIR} trackio show --project {PROJECT}`"
    import wandb

    arguments = {"name": run_name, "id": identity, "dir": folder, "mode": wandb_mode()}
    arguments["settings"] = wandb.Settings(console="off", silent=quiet)
    if arguments["mode"] == "online":
        return arguments | {"resume": "allow"}, f"project {PROJECT}, run {run_name}"
    return arguments, f"kept in {folder / 'wandb'}; send it with `wandb sync {folder / 'wandb'}/offline-run-*`"


def wandb_mode() -> str:
    """WANDB_MODE; without it `online` where W&B finds a login, else `offline`: it never asks for a key."""
    import wandb
    from wandb.errors import AuthenticationError

    if mode := os.environ.get("WANDB_MODE"):
        return mode
    try:
        return "online" if wandb.login(prompt=False, verify=False) else "offline"
    except AuthenticationError as error:
        raise ValueError(f"--tracker wandb: expected an API key that W&B takes, got another ({error})") from error
