"""Checkpoints: a folder that `from_pretrained` loads as it is, and beside the weights what a resume needs.

checkpoints/step-000500/    config, weights, generation config, remote code, tokenizer
checkpoints/step-000500/training/state.json, optimizer.safetensors (optimizer and random states; no pickle)
checkpoints/step-000500/training/recipe.json    a copy of the run's, in case that one is damaged
checkpoints/step-000500/SHA256SUMS    checksums of all of it

With FSDP2 (`accelerate launch --use_fsdp --fsdp_version 2`) weights are sharded over the processes. Checkpoints hold
complete tensors, which only the main process gathers; `gather_tensors` and `unsharded_model` communicate, so every
process has to call them, in the same order.
"""

import math
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from storage.checksums import SUMS, check_folder, write_checksums
from storage.files import atomic_folder, remove_folder
from storage.records import read_json_object, write_json
from storage.run_folder import TRAINING, RunFolder
from tokenization.saving import complete_config
from train.device import is_out_of_memory
from train.optimizer import shard_like, unshard


@dataclass(kw_only=True, slots=True)
class TrainState:
    """Counters of a run; saved with each checkpoint."""

    step: int = 0  # optimizer steps done
    skipped: int = 0  # batches left out; the batch of the next step is number step + skipped + 1
    tokens_seen: int = 0  # target tokens trained on
    seconds: float = 0.0  # wall time of the loop, over all sessions
    best_step: int | None = None  # step of the lowest validation loss that has a checkpoint
    best_validation_loss: float = math.inf  # nats per token
    losses: list[float] = field(default_factory=list)  # training losses since the last line of metrics.jsonl
    threads: list[list[int]] = field(default_factory=list)  # [step, CPU threads from there on]: see `ThreadCount`
    compiled: bool | None = None  # whether the steps go through torch.compile; None: the run has not begun

    def state_dict(self) -> dict[str, Any]:
        """As JSON values (an infinite loss is None)."""
        best = self.best_validation_loss
        return asdict(self) | {"best_validation_loss": None if math.isinf(best) else best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        for key, value in state.items():
            setattr(self, key, math.inf if key == "best_validation_loss" and value is None else value)


def save(
    folder: Path, *, model: Any, tokenizer_folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]
) -> None:
    """Write a checkpoint: complete, or not at all.

    Args:
        folder: its final name.
        model: a `PreTrainedModel`.
        tokenizer_folder: its content is copied beside the weights.
        tensors: those of `optimizer_tensors` and `random_states`.
        state: JSON values, written to training/state.json.
    """
    with atomic_folder(folder, replace=True) as temporary:
        model.save_pretrained(temporary)
        shutil.copytree(tokenizer_folder, temporary, dirs_exist_ok=True)
        complete_config(temporary)
        training = temporary / TRAINING
        training.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, training / "optimizer.safetensors")
        write_json(training / "state.json", state)
        if (recipe := RunFolder(folder.parents[1]).recipe_file).is_file():
            shutil.copyfile(recipe, training / recipe.name)
        write_checksums(temporary)


def load(
    folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], *, process_index: int = 0
) -> dict[str, Any]:
    """Restore weights, optimizer and random states; return the state that was saved beside them.

    Raises:
        ValueError: for a checkpoint that is broken or belongs to another model; the message names the file, where a
            checksum tells which, and the last good checkpoint.
    """
    try:
        check_folder(folder, "It is damaged.")
        weights = load_file(folder / "model.safetensors")
        tensors = load_file(folder / TRAINING / "optimizer.safetensors")
        state = read_json_object(folder / TRAINING / "state.json")
        parameters = model.state_dict()
        weights = {name: shard_like(weight, parameters.get(name, weight)) for name, weight in weights.items()}
        missing, unexpected = model.load_state_dict(weights, strict=False)
        tied = set(getattr(model, "_tied_weights_keys", None) or {})
        if unexpected or set(missing) - tied:
            raise ValueError(f"missing weights {sorted(set(missing) - tied)}, unexpected weights {unexpected}")
        load_optimizer_tensors(model, optimizers, tensors)
        set_random_states(tensors, process_index)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise  # says nothing about the checkpoint
        good = RunFolder(folder.parents[1]).good_checkpoint()
        if good == folder and (folder / SUMS).is_file():
            advice = "its files are intact, so do not delete it: see the reason, and start the same command again"
        elif good in (None, folder):
            advice = "no other checkpoint is good: delete this folder, and the run begins again"
        else:
            advice = f"the last good checkpoint is {good.name}: delete this folder to resume from there"
            newer = [path.name for path in RunFolder(folder.parents[1]).checkpoints().values() if good < path < folder]
            advice += (
                f" (and {', '.join(newer)}, which {'is' if len(newer) == 1 else 'are'} damaged too)" if newer else ""
            )
        raise ValueError(
            f"{folder}: expected a complete checkpoint of this run, got one that does not load ({error}); {advice}"
        ) from error
    return state


def prune(run: RunFolder, *, keep: int, best_step: int | None) -> None:
    """Delete all but the latest `keep` checkpoints and the best one."""
    for step, folder in list(run.checkpoints().items())[:-keep]:
        if step != best_step:
            remove_folder(folder)


def optimizer_tensors(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Every state tensor of the optimizers, named by its parameter: `exp_avg/model.norm.weight`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{key}/{names[parameter]}": value
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def load_optimizer_tensors(
    model: nn.Module, optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]
) -> None:
    """Restore what `optimizer_tensors` returned; a parameter without state had no step yet."""
    states: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        key, _, parameter = name.partition("/")
        states.setdefault(parameter, {})[key] = tensor
    names = {parameter: name for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            # As in torch's `Optimizer.load_state_dict`: a fused kernel takes `step` from the parameters' device.
            steps_on_device = group.get("fused") or group.get("capturable")
            for parameter in group["params"]:
                optimizer.state[parameter] = {
                    key: (tensor.to(parameter.device) if steps_on_device else tensor)
                    if key == "step"
                    else shard_like(tensor.to(parameter.device), parameter)
                    for key, tensor in states.get(names[parameter], {}).items()
                }


def random_states(accelerator: Any) -> dict[str, Tensor]:
    """The states of torch's random generators in every process, which each has a dropout of its own."""
    own = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        own |= {f"cuda-{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    of_all = gather_object([own]) if accelerator.num_processes > 1 else [own]
    return {
        _random_prefix(process) + name: state for process, states in enumerate(of_all) for name, state in states.items()
    }


def set_random_states(tensors: dict[str, Tensor], process_index: int) -> None:
    """Restore the random states of one process.

    A GPU that this machine does not have is left out. A process that the checkpoint does not know (it was saved by
    fewer processes) keeps its generators as they are: they must not repeat those of another process.
    """
    prefix = _random_prefix(process_index)
    if prefix + "cpu" in tensors:
        torch.set_rng_state(tensors[prefix + "cpu"])
    elif process_index == 0:
        raise KeyError(prefix + "cpu")
    for index in range(torch.cuda.device_count()):
        if (state := tensors.get(f"{prefix}cuda-{index}")) is not None:
            torch.cuda.set_rng_state(state, index)


def _random_prefix(process: int) -> str:
    return f"random/process-{process}/" if process else "random/"


def gather_tensors(tensors: dict[str, Tensor], accelerator: Any) -> dict[str, Tensor]:
    """Complete tensors on the main process, those that were sharded in its main memory; nothing on the others."""
    gathered = {}
    for name, tensor in tensors.items():
        complete = unshard(tensor)
        if accelerator.is_main_process:
            gathered[name] = complete.cpu() if isinstance(tensor, DTensor) else tensor
    return gathered


def unsharded_model(model: Any, accelerator: Any) -> Any:
    """The model itself; where it is sharded, a complete copy on the main process and None on the others.

    Args:
        model: a `PreTrainedModel`.
    """
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return model
    weights = gather_tensors(model.state_dict(), accelerator)
    if not accelerator.is_main_process:
        return None
    with torch.random.fork_rng(devices=[]):  # initialising the copy must not advance the run's random numbers
        copy = type(model)(model.config)
    copy.load_state_dict(weights)
    return copy.to(accelerator.device)
