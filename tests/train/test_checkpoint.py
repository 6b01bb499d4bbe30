"""Checkpoints: what is saved comes back, what does not fit is named with what to do, and which are kept."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from modeling import ScratchGPTForCausalLM
from storage.checksums import damaged_files, write_checksums
from storage.run_folder import RunFolder
from tests.modeling.models import CONTEXT, modern, scratchgpt
from tokenization import ScratchGPTTokenizer, save_tokenizer
from train import checkpoint
from train.checkpoint import TrainState, load, optimizer_tensors, prune, random_states, save, set_random_states

ACCELERATOR = SimpleNamespace(num_processes=1, is_main_process=True, device="cpu")


def trained(seed: int, model: Any = None) -> tuple[Any, list[torch.optim.Optimizer]]:
    """A model after one step of two optimizers; its lm_head has had none, and so has no state."""
    model = model or modern()
    torch.manual_seed(seed)
    matrices = [parameter for name, parameter in model.named_parameters() if "proj" in name]
    others = [parameter for name, parameter in model.named_parameters() if "proj" not in name]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(matrices), torch.optim.SGD(others, momentum=0.9)]
    for index, parameter in enumerate(model.parameters()):
        if index:
            parameter.grad = torch.randn_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
    return model, optimizers


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "tokenizer"
    save_tokenizer(ScratchGPTTokenizer.from_merges([(b"a", b"b")]), folder)
    return folder


def save_at(run: Path, step: int, tokenizer_folder: Path, model: Any, optimizers: Any) -> Path:
    folder = RunFolder(run).checkpoint_folder(step)
    tensors = optimizer_tensors(model, optimizers) | random_states(ACCELERATOR)
    save(folder, model=model, tokenizer_folder=tokenizer_folder, tensors=tensors, state={"step": step})
    return folder


def assert_same(one: Any, other: Any) -> None:
    """Weights and optimizer states are equal, bit for bit."""
    (model, optimizers), (copy, copied) = one, other
    assert all(map(torch.equal, model.state_dict().values(), copy.state_dict().values()))
    before, after = optimizer_tensors(model, optimizers), optimizer_tensors(copy, copied)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_checkpoint_comes_back_whole(tmp_path: Path, tokenizer_folder: Path) -> None:
    original, other = trained(1), trained(2)
    torch.manual_seed(7)
    folder = save_at(tmp_path, 5, tokenizer_folder, *original)
    expected = torch.rand(3)
    assert load(folder, *other) == {"step": 5}
    assert torch.equal(torch.rand(3), expected)
    assert_same(original, other)
    names = optimizer_tensors(*original)
    assert {name.partition("/")[0] for name in names} == {"step", "exp_avg", "exp_avg_sq", "momentum_buffer"}
    assert not any(name.endswith("embed_tokens.weight") for name in names)  # it had no gradient, so it has no state
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files >= {"config.json", "model.safetensors", "tokenizer.json", "slow/merges.txt", "SHA256SUMS"}
    assert files >= {"training/state.json", "training/optimizer.safetensors"}
    assert damaged_files(folder) == []
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == CONTEXT
    loaded = ScratchGPTForCausalLM.from_pretrained(folder)
    assert all(map(torch.equal, loaded.state_dict().values(), original[0].state_dict().values()))


def test_a_checkpoint_replaces_one_of_its_step(tmp_path: Path, tokenizer_folder: Path) -> None:
    save_at(tmp_path, 5, tokenizer_folder, *trained(1))
    second, other = trained(2), trained(3)
    (tmp_path / "checkpoints" / "step-000005" / "old").touch()
    folder = save_at(tmp_path, 5, tokenizer_folder, *second)
    load(folder, *other)
    assert_same(second, other)
    assert not (folder / "old").exists()


def test_slices_are_saved(tmp_path: Path, tokenizer_folder: Path) -> None:
    """safetensors takes no tensor that is not contiguous."""
    tensors = {"a/b": torch.arange(6).reshape(2, 3).T} | random_states(ACCELERATOR)
    save(tmp_path / "one", model=modern(), tokenizer_folder=tokenizer_folder, tensors=tensors, state={})
    assert (tmp_path / "one" / "training" / "optimizer.safetensors").is_file()


def test_a_process_that_the_checkpoint_does_not_know_keeps_its_random_numbers(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    one, other = trained(1), trained(2)
    folder = save_at(tmp_path, 5, tokenizer_folder, *one)
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    load(folder, *other, process_index=1)
    assert torch.equal(torch.rand(3), expected)
    assert_same(one, other)


def test_the_random_numbers_of_gpus_and_of_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """On two machines of two GPUs each, seen from one; then on a machine of three."""
    states = [torch.full((2,), 5), torch.full((2,), 6)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(checkpoint, "gather_object", lambda own: [*own, {"cpu": torch.get_rng_state(), "cuda-1": 7}])
    tensors = random_states(SimpleNamespace(num_processes=2))
    assert {*tensors} == {f"random/{name}" for name in ("cpu", "cuda-0", "cuda-1", "process-1/cpu", "process-1/cuda-1")}
    assert {*random_states(ACCELERATOR)} == {"random/cpu", "random/cuda-0", "random/cuda-1"}
    restored: dict[int, Any] = {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, index: restored.update({index: state}))
    set_random_states(tensors, 0)
    assert restored == {0: states[0], 1: states[1]}
    restored.clear()
    set_random_states(tensors, 1)
    assert restored == {1: 7}


def test_tied_weights_are_not_missing(tmp_path: Path, tokenizer_folder: Path) -> None:
    tied = [trained(seed, modern(tie_word_embeddings=True)) for seed in (1, 2)]
    folder = save_at(tmp_path, 5, tokenizer_folder, *tied[0])
    assert "lm_head.weight" not in checkpoint.load_file(folder / "model.safetensors")
    load(folder, *tied[1])
    assert_same(*tied)


def test_what_does_not_fit_is_named_with_what_to_do(tmp_path: Path, tokenizer_folder: Path) -> None:
    folders = [save_at(tmp_path, step, tokenizer_folder, *trained(step)) for step in (1, 2, 3, 4)]
    other = trained(9)

    def message(folder: Path, into: Any = other) -> str:
        with pytest.raises(ValueError, match="expected a complete checkpoint of this run") as caught:
            load(folder, *into)
        return str(caught.value)

    def damage(folder: Path) -> None:
        (folder / "training" / "state.json").write_text("{")

    damage(folders[3])
    assert message(folders[3]) == (
        f"{folders[3]}: expected a complete checkpoint of this run, got one that does not load ({folders[3]}: expected "
        "the files as they were written, but training/state.json does not have the checksum it had when written. It is "
        "damaged. (Where it was changed on purpose, delete SHA256SUMS.)); the last good checkpoint is step-000003: "
        "delete this folder to resume from there"
    )
    damage(folders[2])
    assert message(folders[3]).endswith("from there (and step-000003, which is damaged too)")
    damage(folders[1])
    assert message(folders[3]).endswith("from there (and step-000002, step-000003, which are damaged too)")
    assert "the last good checkpoint is step-000001" in message(folders[1])
    damage(folders[0])
    nothing = "no other checkpoint is good: delete this folder, and the run begins again"
    assert message(folders[3]).endswith(f"; {nothing}")

    (folders[3] / "SHA256SUMS").unlink()  # as an older version, or somebody by hand, left it
    assert "(" + str(folders[3] / "training" / "state.json") in message(folders[3])
    (folders[3] / "training" / "state.json").write_text("{}")
    assert load(folders[3], *other) == {}
    classic = message(folders[3], trained(1, scratchgpt()))
    assert "size mismatch for model." in classic
    assert classic.endswith(nothing)  # the one that does not fit is itself the last good one, without checksums


def test_a_checkpoint_whose_files_are_intact_is_not_to_be_deleted(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [save_at(tmp_path, step, tokenizer_folder, *trained(step)) for step in (1, 2)]
    with pytest.raises(ValueError, match="size mismatch for model") as caught:
        load(folders[1], *trained(1, scratchgpt()))
    assert str(caught.value).endswith(
        "; its files are intact, so do not delete it: see the reason, and start the same command again"
    )

    def run_out(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(checkpoint, "load_optimizer_tensors", run_out)
    with pytest.raises(torch.OutOfMemoryError, match=r"^CUDA out of memory\.$"):
        load(folders[1], *trained(9))


def test_a_fused_optimizer_gets_its_step_where_its_parameters_are() -> None:
    """A fused kernel refuses it elsewhere; where there is no GPU, the device `meta` shows where it went."""
    for fused in (True, False):
        model = torch.nn.Linear(2, 2, device="meta")
        optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
        tensors = {
            f"{key}/{name}": torch.zeros(() if key == "step" else parameter.shape)
            for name, parameter in model.named_parameters()
            for key in ("step", "exp_avg", "exp_avg_sq")
        }
        reference = torch.optim.AdamW(model.parameters(), fused=fused)
        state = {
            index: {key: tensors[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for index, (name, _) in enumerate(model.named_parameters())
        }
        reference.load_state_dict({"state": state, "param_groups": reference.state_dict()["param_groups"]})
        checkpoint.load_optimizer_tensors(model, [optimizer], tensors)
        for parameter in model.parameters():
            devices = {key: tensor.device for key, tensor in optimizer.state[parameter].items()}
            assert devices == {key: tensor.device for key, tensor in reference.state[parameter].items()}
            assert devices["step"].type == ("meta" if fused else "cpu")


def test_missing_and_unexpected_weights_are_each_enough(tmp_path: Path, tokenizer_folder: Path) -> None:
    model, optimizers = trained(1)
    folder = save_at(tmp_path, 5, tokenizer_folder, model, optimizers)
    weights = checkpoint.load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    for changed, said in (
        (
            {key: weight for key, weight in weights.items() if key != name},
            rf"missing weights \['{name}'\], unexpected weights \[\]",
        ),
        (weights | {"more": torch.ones(1)}, r"missing weights \[\], unexpected weights \['more'\]"),
    ):
        checkpoint.save_file(changed, folder / "model.safetensors")
        write_checksums(folder)
        with pytest.raises(ValueError, match=said):
            load(folder, model, optimizers)


def test_a_checkpoint_without_random_states_is_not_complete(tmp_path: Path, tokenizer_folder: Path) -> None:
    model, optimizers = trained(1)
    tensors = optimizer_tensors(model, optimizers)
    save(tmp_path / "a" / "b", model=model, tokenizer_folder=tokenizer_folder, tensors=tensors, state={})
    with pytest.raises(ValueError, match=r"does not load \('random/cpu'\)"):
        load(tmp_path / "a" / "b", model, optimizers)


def test_an_infinite_loss_is_null_in_json_and_everything_else_as_it_is() -> None:
    state = TrainState(step=3, threads=[[0, 2]])
    written = json.loads(json.dumps(state.state_dict(), allow_nan=False))
    assert written["best_validation_loss"] is None
    copy = TrainState(best_validation_loss=1.0, best_step=2)
    copy.load_state_dict(written)
    assert copy == state
    assert (copy.best_step, copy.best_validation_loss) == (None, math.inf)
    assert TrainState() == TrainState(step=0, skipped=0, tokens_seen=0, seconds=0.0, losses=[], threads=[])


def test_only_the_main_process_gathers() -> None:
    tensors = {"a": torch.ones(2)}
    assert checkpoint.gather_tensors(tensors, ACCELERATOR) == tensors
    assert checkpoint.gather_tensors(tensors, SimpleNamespace(is_main_process=False)) == {}
    model = nn.Linear(2, 2)
    assert checkpoint.unsharded_model(model, ACCELERATOR) is model


@pytest.mark.parametrize(
    ("best", "kept"), [(None, [40, 50]), (20, [20, 40, 50]), (50, [40, 50])], ids=["none", "an early one", "the last"]
)
def test_the_latest_and_the_best_are_kept(tmp_path: Path, best: int | None, kept: list[int]) -> None:
    for step in (10, 20, 30, 40, 50):
        folder = tmp_path / "checkpoints" / f"step-{step:06}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    run = RunFolder(tmp_path)
    prune(run, keep=2, best_step=best)
    assert list(run.checkpoints()) == kept
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [f"step-{step:06}" for step in kept]
