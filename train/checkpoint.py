"""Checkpoints: a folder that `from_pretrained` loads as it is, and beside the weights what a resume needs.

checkpoints/step-000500/    config, weights, generation config, remote code, tokenizer
checkpoints/step-000500/training/state.json, optimizer.safetensors (optimizer and random states; no pickle)
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from storage.files import atomic_folder
from train.distributed import sharded_as

TRAINING = "training"


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return run_dir / "checkpoints" / f"step-{step:06d}"


def checkpoint_steps(run_dir: Path) -> list[int]:
    """The steps that have a checkpoint, in order."""
    names = (re.fullmatch(r"step-(\d+)", path.name) for path in (run_dir / "checkpoints").glob("step-*"))
    return sorted(int(match[1]) for match in names if match)


def save_checkpoint(
    run_dir: Path,
    step: int,
    *,
    model: Any,
    tokenizer_folder: Path,
    optimizer_state: dict[str, torch.Tensor],
    state: dict[str, Any],
) -> Path:
    """Write a checkpoint, whole or not at all; return its folder.

    Args:
        model: a `PreTrainedModel`.
        tokenizer_folder: its content is copied beside the weights.
        optimizer_state: what `optimizer_tensors` returned.
        state: JSON values, written to training/state.json.
    """
    folder = checkpoint_folder(run_dir, step)
    with atomic_folder(folder, replace=True) as temporary:
        model.save_pretrained(temporary)
        shutil.copytree(tokenizer_folder, temporary, dirs_exist_ok=True)
        training = temporary / TRAINING
        training.mkdir()
        tensors = optimizer_state | random_states()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, training / "optimizer.safetensors")
        (training / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    return folder


def load_checkpoint(folder: Path, *, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any]:
    """Put weights, optimizer and random states back; return the state that was saved beside them.

    Raises:
        ValueError: for a checkpoint that is broken or belongs to another model.
    """
    try:
        weights = load_file(folder / "model.safetensors")
        tensors = load_file(folder / TRAINING / "optimizer.safetensors")
        state = json.loads((folder / TRAINING / "state.json").read_text(encoding="utf-8"))
        parameters = model.state_dict()
        weights = {name: sharded_as(weight, parameters.get(name, weight)) for name, weight in weights.items()}
        missing, unexpected = model.load_state_dict(weights, strict=False)
        tied = set(getattr(model, "_tied_weights_keys", None) or {})
        if unexpected or set(missing) - tied:
            raise ValueError(f"missing weights {sorted(set(missing) - tied)}, unexpected weights {unexpected}")
        load_optimizer_tensors(model, optimizers, tensors)
        set_random_states(tensors)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder}: expected a whole checkpoint of this run, got one that does not load ({error}); "
            "delete this folder to go on from the checkpoint before it"
        ) from error
    return state


def prune_checkpoints(run_dir: Path, *, keep: int, best_step: int | None) -> None:
    """Delete all but the latest `keep` checkpoints and the best one."""
    for step in checkpoint_steps(run_dir)[:-keep]:
        if step != best_step:
            shutil.rmtree(checkpoint_folder(run_dir, step))


def optimizer_tensors(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    """Every state tensor of the optimizers, named by its parameter: `exp_avg/model.norm.weight`."""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{key}/{names[parameter]}": value
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def load_optimizer_tensors(
    model: nn.Module, optimizers: list[torch.optim.Optimizer], tensors: dict[str, torch.Tensor]
) -> None:
    """Put back what `optimizer_tensors` took; a parameter without state had no step yet."""
    states: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        key, _, parameter = name.partition("/")
        states.setdefault(parameter, {})[key] = tensor
    names = {parameter: name for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                state = states.get(names[parameter], {})
                optimizer.state[parameter] = {
                    key: tensor if key == "step" else sharded_as(tensor.to(parameter.device), parameter)
                    for key, tensor in state.items()
                }


def random_states() -> dict[str, torch.Tensor]:
    """The states of torch's random generators."""
    states = {"random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"random/cuda-{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def set_random_states(tensors: dict[str, torch.Tensor]) -> None:
    """Put back what `random_states` took (a GPU that is not here now is left out)."""
    torch.set_rng_state(tensors["random/cpu"])
    for index in range(torch.cuda.device_count()):
        if (state := tensors.get(f"random/cuda-{index}")) is not None:
            torch.cuda.set_rng_state(state, index)
