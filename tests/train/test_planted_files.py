"""Files planted into a run: pickles under every name that a library might look at are not opened, and it resumes."""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hub_export.bundle import bundle
from storage.checksums import SUMS
from storage.run_folder import RunFolder
from storage.shards import TokenSplit, read_manifest
from tests.train.conftest import with_fields
from train.config import Config
from train.loop import train

NAMES = (
    "optimizer.pt", "optimizer.bin", "optimizer.pth", "scheduler.pt", "scheduler.bin", "scaler.pt", "rng_state.pth",
    "rng_state_0.pth", "random_states_0.pkl", "pytorch_model.bin", "pytorch_model.pt", "model.pt", "model.pth",
    "pytorch_model_fsdp.bin", "training_args.bin", "trainer_state.bin", "custom_checkpoint_0.pkl", "sampler.bin",
    "dl_state_dict.bin", "tokenizer.pkl", "tf_model.h5", "flax_model.msgpack", "model.ckpt", "adapter_model.bin",
    "data.pkl", "state.pickle", "generation.pt",
)  # fmt: skip
"""What transformers' Trainer, accelerate, PEFT and people have for the state of a run, all of it pickles."""


class Planted:
    """What, unpickled, makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


@pytest.fixture
def planted(finished_run: Path, tmp_path: Path) -> tuple[Path, bytes]:
    """A copy of the finished run with a pickle under each of these names in each of its folders; the pickle."""
    run, evil = shutil.copytree(finished_run, tmp_path / "run"), pickle.dumps(Planted(tmp_path / "opened"))
    for folder in [run, *(path for path in run.rglob("*") if path.is_dir())]:
        for name in NAMES:
            (folder / name).write_bytes(evil)
    return run, evil


def resumed(tiny: Config, run: Path, steps: int) -> Config:
    return with_fields(tiny, run__dir=run, run__resume=True, run__steps=steps)


def test_planted_pickles_are_not_opened_and_the_run_resumes_from_ours(
    tiny: Config, planted: tuple[Path, bytes], finished_run: Path, tmp_path: Path
) -> None:
    clean = shutil.copytree(finished_run, tmp_path / "clean")
    for run in (planted[0], clean):
        train(resumed(tiny, run, 14), recipe="debug")
        assert RunFolder(run).state["step"] == 14
    files = [run / "checkpoints" / "step-000014" / "model.safetensors" for run in (planted[0], clean)]
    ours, expected = map(load_file, files)
    assert all(torch.equal(ours[name], tensor) for name, tensor in expected.items())
    made = bundle(planted[0], tmp_path / "made", checkpoint="step-000012")
    assert not [path for path in made.rglob("*") if path.name in NAMES]
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "training/optimizer.safetensors", "training/state.json"])
def test_a_pickle_in_the_place_of_a_file_of_ours_is_refused(
    tiny: Config, planted: tuple[Path, bytes], tmp_path: Path, name: str
) -> None:
    run, evil = planted
    last = run / "checkpoints" / "step-000012"
    (last / name).write_bytes(evil)
    with pytest.raises(ValueError, match=rf"step-000012: expected a complete checkpoint .*{Path(name).name}"):
        train(resumed(tiny, run, 13), recipe="debug")
    (last / SUMS).unlink()  # who plants a pickle removes the checksums too
    with pytest.raises(ValueError, match=r"step-000012: expected a complete checkpoint of this run, got one that does"):
        train(resumed(tiny, run, 13), recipe="debug")
    (last / name).unlink()  # and there is nothing that is taken in its place
    with pytest.raises(ValueError, match=r"step-000012: expected a complete checkpoint of this run, got one that does"):
        train(resumed(tiny, run, 13), recipe="debug")
    assert not (tmp_path / "opened").exists()


def test_token_shards_of_pickled_objects_are_refused(planted: tuple[Path, bytes], tmp_path: Path) -> None:
    run, evil = planted
    shard = run / "tokens" / "train-00000.npy"
    np.save(shard, np.array([Planted(tmp_path / "opened")], dtype=object), allow_pickle=True)
    assert read_manifest(run / "tokens")
    for content in (shard.read_bytes(), evil):
        shard.write_bytes(content)
        with pytest.raises(ValueError, match=r"train-00000\.npy: expected an array of token ids, got a file that"):
            TokenSplit.open(run / "tokens", "train")
    assert not (tmp_path / "opened").exists()
