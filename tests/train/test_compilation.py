"""torch.compile in a run: as asked for, as trying finds, and as before a resume."""

import math
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from storage.checksums import SUMS
from storage.records import read_json_object, read_jsonl
from storage.run_folder import RunFolder
from tests.train.conftest import with_fields
from train.config import Config, as_json, from_json, replace_fields
from train.device import C_COMPILERS
from train.loop import Trainer, train
from train.pacing import compilation as compilation_module
from train.pacing.compilation import ROUNDS, SHORTEST_RUN, Compilation, may_try
from train.recipes import get_recipe


class Summed(torch.nn.Module):
    """A layer and a scalar of it, to run backward from."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).sum()


def compilation(given: str = "try", *, may_try: bool = True, backend: Any = "eager") -> Compilation:
    return Compilation(given, Summed(), may_try=may_try, backend=backend)


def test_what_was_asked_for_or_done_before_holds() -> None:
    for given, before, expected in [
        ("yes", None, True), ("no", None, False), ("try", None, False),
        ("try", True, True), ("try", False, False), ("yes", True, True),
    ]:  # fmt: skip
        each = compilation(given)
        assert each.begin(before) is None
        assert each.is_on == expected, (given, before)
    assert compilation("no").begin(True) == "without torch.compile from here on, with until now"
    assert compilation("yes").begin(False) == "with torch.compile from here on, without until now"


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_only_long_runs_that_may_try_it(device_type: str) -> None:
    def tries(given: str, seconds: float, *, may_try: bool = True) -> bool:
        each = Compilation(given, Summed(), may_try=may_try, device_type=device_type)
        return each.tries(lambda: seconds)

    long = SHORTEST_RUN[device_type]
    assert tries("try", long)
    assert not tries("try", long - 1)
    assert not tries("try", long, may_try=False)
    assert not tries("yes", long)
    assert not tries("no", long)


def test_which_runs_may_try_it() -> None:
    """On a CPU those with a time limit, as ever; on CUDA all but masked ones."""
    for device_type, processes, max_seconds, objective, expected in [
        ("cpu", 1, 0.0, "causal", False), ("cpu", 1, 3600.0, "causal", True), ("cpu", 1, 3600.0, "masked", True),
        ("cpu", 2, 3600.0, "causal", False), ("cuda", 1, 0.0, "causal", True), ("cuda", 1, 3600.0, "chat", True),
        ("cuda", 1, 0.0, "masked", False), ("cuda", 2, 0.0, "causal", False), ("mps", 1, 0.0, "causal", False),
    ]:  # fmt: skip
        found = may_try(device_type, processes=processes, max_seconds=max_seconds, objective=objective)
        assert found == expected, (device_type, processes, max_seconds, objective)


def test_the_estimate_is_made_where_it_decides() -> None:
    def never() -> float:
        raise AssertionError

    assert not compilation("no").tries(never)
    assert not compilation(may_try=False).tries(never)


def test_passes_are_timed_without_it() -> None:
    models: list[Any] = []
    chosen = compilation()
    seconds = chosen.pass_seconds(lambda model: lambda: models.append(model))
    assert seconds > 0
    assert models == [chosen.plain] * (ROUNDS + 1)


@pytest.mark.parametrize("slow_one", [True, False], ids=["compiled is slower", "plain is slower"])
def test_the_faster_one_is_kept(slow_one: bool) -> None:
    chosen = compilation()
    passes: list[bool] = []

    def make_pass(model: Any) -> Any:
        is_compiled = model is not chosen.plain

        def run_pass() -> None:
            passes.append(is_compiled)
            model(torch.ones(1, 4)).backward()
            if is_compiled == slow_one:
                torch.ones(400, 400).matmul(torch.ones(400, 8000))

        return run_pass

    line = chosen.look(make_pass)
    assert chosen.is_on == (not slow_one)
    assert line.startswith(
        f"steps {'without' if slow_one else 'with'} torch.compile, found by trying (with it a pass is "
    )
    assert passes == [True, False] * (len(passes) // 2)


def test_a_compiler_that_fails_is_told_and_the_run_goes_on_without() -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no such compiler\nmore of it")

    chosen = compilation(backend=broken)
    line = chosen.look(lambda model: lambda: model(torch.ones(1, 4)).backward())
    assert line.startswith("torch.compile was tried and failed, the run goes on without: ")
    assert "no such compiler" in line
    assert "\n" not in line
    assert not chosen.is_on
    assert all(parameter.grad is None for parameter in chosen.plain.parameters())


def test_the_flag_of_earlier_versions_is_read() -> None:
    config = as_json(get_recipe("debug"))
    assert config["run"]["compile"] == "try"
    for before, now in ((False, "no"), (True, "yes")):
        assert from_json(config | {"run": config["run"] | {"compile": before}}).run.compile == now


@pytest.mark.parametrize("error", [OSError("no gcc"), subprocess.CalledProcessError(1, "gcc")])
def test_a_compiler_that_cannot_be_called_is_told_too(error: Exception) -> None:
    """Triton's own errors where a C compiler or Python's headers are missing."""

    def make_pass(model: Any) -> Any:
        def run_pass() -> None:
            raise error

        return run_pass

    chosen = compilation()
    assert chosen.look(make_pass).startswith("torch.compile was tried and failed, the run goes on without: ")
    assert not chosen.is_on


@pytest.mark.filterwarnings("default")  # torch's own compiler warns of itself
def test_on_cuda_a_run_without_a_limit_tries_it_and_a_resumed_one_does_as_before(
    tiny: Config, fresh_run_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device's kind is simulated. The model is compiled without a code generator: the bits are those of before."""
    build, look, tried = Trainer._build, Compilation.look, []

    def build_as_on_cuda(trainer: Trainer, prepared: Any) -> None:
        build(trainer, prepared)
        assert not trainer.compilation.may_try  # on the CPU, without a limit
        tries = may_try("cuda", processes=1, max_seconds=trainer.config.run.max_seconds, objective="causal")
        trainer.compilation = Compilation(
            trainer.config.run.compile, trainer.model, may_try=tries, device_type="cuda", backend="eager"
        )

    def counted(chosen: Compilation, make_pass: Any) -> str:
        tried.append(chosen)
        return look(chosen, make_pass)

    def run(name: str | Path, *, stop_at: int = 0, **fields: Any) -> RunFolder:
        config = with_fields(tiny, run__dir=name if isinstance(name, Path) else fresh_run_dir(name), **fields)

        def watch(step: int, _: dict[str, float]) -> str | None:
            return "asked" if step == stop_at else None

        return RunFolder(train(config, recipe="debug", quiet=True, watch=watch))

    def compiled(folder: RunFolder) -> Any:
        return read_json_object(folder.checkpoint() / "training" / "state.json")["state"]["compiled"]

    monkeypatch.setattr(Trainer, "_build", build_as_on_cuda)
    monkeypatch.setattr(Compilation, "look", counted)
    short = run("short")  # less than ten minutes
    assert not tried
    assert compiled(short) is False
    monkeypatch.setitem(SHORTEST_RUN, "cuda", 0.0)
    monkeypatch.setattr(compilation_module, "WORTH_IT", math.inf)  # whatever the clock says
    unbroken = run("unbroken")
    assert len(tried) == 1
    assert compiled(unbroken) is True
    stopped = run("stopped", stop_at=8)
    assert len(tried) == 2
    monkeypatch.setattr(compilation_module, "WORTH_IT", 0.0)  # another trial would find the other
    resumed = run(stopped.path, run__resume=True)
    assert len(tried) == 2
    assert compiled(resumed) is True
    one, other = (each.checkpoint_folder(12) / "model.safetensors" for each in (unbroken, resumed))
    assert one.read_bytes() == other.read_bytes()
    assert compiled(run("found slower")) is False
    assert compiled(run("asked for", run__compile="yes")) is True
    assert len(tried) == 3


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, C_COMPILERS)), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("default")  # torch's own compiler warns of itself
def test_compiled_steps_learn_the_same_and_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    recipe = get_recipe("debug")
    config = replace(recipe, run=replace(recipe.run, steps=12, checkpoint_every=6, evaluate_every=6, threads=1))

    def run(name: str, **fields: Any) -> RunFolder:
        chosen: Config = replace_fields(config, {f"run.{key}": value for key, value in fields.items()})
        train(replace_fields(chosen, {"run.dir": tmp_path / name}), recipe="debug", quiet=True)
        return RunFolder(tmp_path / name)

    plain, unbroken = run("plain", compile="no"), run("unbroken", compile="yes")
    for a, b in zip(read_jsonl(plain.path / "metrics.jsonl"), read_jsonl(unbroken.path / "metrics.jsonl"), strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=2e-3)
    run("resumed", compile="yes", steps=6)
    resumed = run("resumed", steps=12, resume=True)  # "try": as before
    state = read_json_object(resumed.checkpoint() / "training" / "state.json")
    assert state["state"]["compiled"] is True
    assert (resumed.checkpoint() / SUMS).read_text().splitlines()[:1] == (
        unbroken.checkpoint() / SUMS
    ).read_text().splitlines()[:1]
