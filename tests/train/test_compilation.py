"""torch.compile in a run: as asked for, as trying finds, and as before a resume."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from storage.checksums import SUMS
from storage.records import read_json_object, read_jsonl
from storage.run_folder import RunFolder
from train.config import Config, as_json, from_json, replace_fields
from train.device import C_COMPILERS
from train.loop import train
from train.pacing.compilation import SHORTEST_RUN, Compilation
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


def test_only_long_runs_that_may_try_it() -> None:
    assert compilation().tries(SHORTEST_RUN)
    assert not compilation().tries(SHORTEST_RUN - 1)
    assert not compilation(may_try=False).tries(SHORTEST_RUN)
    assert not compilation("yes").tries(SHORTEST_RUN)
    assert not compilation("no").tries(SHORTEST_RUN)


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
