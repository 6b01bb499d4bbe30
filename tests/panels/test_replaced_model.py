"""A model whose files are replaced while it is loaded, or while the page serves it: no crash, no mixture of two."""

import shutil
import threading
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling.loading import refuse_replaced, stamps_of
from panels import models
from panels.models import load_model
from tests.panels.disturbed import DisturbedAt, numbers
from tests.panels.tiny_model import save_checkpoint
from tests.serving import serving


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two models of one shape, whose weights are all 0.25 and all 0.5, with as many layers as take a while to read."""
    folders = []
    for name, value in (("one", 0.25), ("two", 0.5)):
        folder = save_checkpoint(tmp_path / name, layers=24)
        weights = load_file(folder / "model.safetensors")
        filled = {key: torch.full_like(tensor, value) for key, tensor in weights.items()}
        save_file(filled, folder / "model.safetensors", {"format": "pt"})
        folders.append(folder)
    return folders


def swap_folder(served: Path, other: Path) -> None:
    """As a bundle is replaced: by renaming."""
    ready = served.with_name("ready")
    shutil.copytree(other, ready)
    served.rename(served.with_name("aside"))
    ready.rename(served)
    shutil.rmtree(served.with_name("aside"))


def replace_file(served: Path, other: Path) -> None:
    """As `hf download` writes a file: by renaming."""
    shutil.copyfile(other / "model.safetensors", served / "ready")
    (served / "ready").replace(served / "model.safetensors")


def overwrite_file(served: Path, other: Path) -> None:
    """In place, as `dd conv=notrunc` does. `cp` empties the file first, which ends a process that is reading it just
    then with SIGBUS (docs/reliability.md)."""
    with (served / "model.safetensors").open("r+b") as stream:
        stream.write((other / "model.safetensors").read_bytes())


def delete(served: Path, _: Path) -> None:
    shutil.rmtree(served)


def value_of(loaded: Any) -> set[float]:
    return {value for tensor in loaded.model.parameters() for value in tensor.unique().tolist()}


@pytest.mark.parametrize("replace", [swap_folder, replace_file, overwrite_file], ids=lambda replace: replace.__name__)
def test_a_model_that_is_replaced_while_it_is_loaded_is_one_of_the_two(
    folders: list[Path], tmp_path: Path, replace: Callable[[Path, Path], None]
) -> None:
    served, over = shutil.copytree(folders[0], tmp_path / "served"), threading.Event()

    def disturb() -> None:
        for other in cycle(folders[::-1]):
            replace(served, other)
            if over.wait(0.02):
                return

    thread = threading.Thread(target=disturb)
    thread.start()
    outcomes: list[object] = []
    try:
        for _ in range(6):
            try:
                outcomes.append(value_of(load_model(served)))
            except ValueError as error:
                outcomes.append(str(error))
    finally:
        over.set()
        thread.join()
    for outcome in outcomes:
        assert outcome in ({0.25}, {0.5}) or isinstance(outcome, str), outcome  # never both
    assert value_of(load_model(served)) in ({0.25}, {0.5})


@pytest.mark.parametrize("every", [16, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "change", [swap_folder, replace_file, overwrite_file, delete], ids=lambda change: change.__name__
)
def test_a_model_may_be_replaced_or_gone_at_any_call_to_the_file_system(
    folders: list[Path], tmp_path: Path, change: Callable[[Path, Path], None], every: int
) -> None:
    served = tmp_path / "served"

    def load(number: int) -> tuple[object, int]:
        shutil.rmtree(served, ignore_errors=True)
        shutil.copytree(folders[0], served)
        with pytest.MonkeyPatch.context() as patch:
            disturbed = DisturbedAt(patch, served, number, lambda: change(served, folders[1]))
            try:
                return value_of(load_model(served)), disturbed.count
            except ValueError as error:
                return str(error), disturbed.count

    outcome, calls = load(0)  # nothing is done
    assert outcome == {0.25}
    assert calls > 40, "loading asks less than was thought"
    outcomes = [load(number)[0] for number in numbers(calls, every)]
    for outcome in outcomes:
        assert outcome in ({0.25}, {0.5}) or isinstance(outcome, str), outcome  # never both
    assert change is delete or {0.5} in outcomes


def test_a_model_that_was_replaced_once_meanwhile_is_loaded_again(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = shutil.copytree(folders[0], tmp_path / "served")
    times = iter([True, False])
    load = models._load_folder

    def load_and_replace(*given: Any) -> Any:
        loaded = load(*given)
        if next(times):
            replace_file(served, folders[1])
        return loaded

    monkeypatch.setattr(models, "_load_folder", load_and_replace)
    assert value_of(load_model(served)) == {0.5}
    times = iter([True, True, True])
    with pytest.raises(
        ValueError, match=r"served: expected a model that stays while .* but model\.safetensors was repl"
    ):
        load_model(served)


def test_a_file_that_goes_between_a_look_and_its_opening(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    gone = iter([True, False])
    load = models._load_folder

    def load_without(*given: Any) -> Any:
        if next(gone):
            (folders[0] / "gone.safetensors").open()
        return load(*given)

    monkeypatch.setattr(models, "_load_folder", load_without)
    assert value_of(load_model(folders[0])) == {0.25}  # it is tried again
    gone = iter([True, True, True])
    with pytest.raises(
        ValueError, match=r"one: expected a model that stays .* but a file of it went meanwhile; load it"
    ):
        load_model(folders[0])


def test_what_was_removed_after_it_was_read_is_no_harm(folders: list[Path]) -> None:
    stamps = stamps_of(folders[0])
    shutil.rmtree(folders[0])
    refuse_replaced(folders[0], stamps)
    shutil.copytree(folders[1], folders[0])
    with pytest.raises(ValueError, match=r"but config\.json was replaced meanwhile; load it again"):
        refuse_replaced(folders[0], stamps)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str, psutil.Process]]:
    """The folder of a model and the page that serves it."""
    folder = save_checkpoint(tmp_path / "served")
    with serving(folder, cwd=tmp_path) as (address, process):
        yield folder, address, process


def test_a_page_keeps_the_model_that_it_has_loaded(server: tuple[Path, str, psutil.Process]) -> None:
    from gradio_client import Client

    folder, address, process = server
    client = Client(address, verbose=False, httpx_kwargs={"timeout": 120})

    def write() -> str:
        return client.predict("The lamp", max_new_tokens=30, seed=5, api_name="/generate")

    try:
        first, path = write(), folder / "model.safetensors"
        assert len(first) > len("The lamp")
        size = path.stat().st_size
        with path.open("r+b") as stream:  # in place: whoever has it mapped sees other numbers
            stream.seek(size // 3)
            stream.write(b"\x3f" * (size - size // 3))
        assert write() == first
        path.write_bytes(b"cut")  # in place: whoever has it mapped gets SIGBUS beyond the end
        assert write() == first
        (folder / "tokenizer.json").write_text("{}")
        shutil.rmtree(folder)
        assert write() == first
        assert process.is_running()
    finally:
        client.close()
