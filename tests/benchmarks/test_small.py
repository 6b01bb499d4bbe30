"""Benchmarks in small: they run, and what their goals are about is in the result."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bpe, encoding, hostile_texts, memory, scale, start, threads
from benchmarks.__main__ import main as benchmarks
from benchmarks._report import tables
from benchmarks._text import write_words

TEXT = "The lamp burned low, and the captain drew a line on the map from the harbour to the stars. "


def run_scale(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    small = {"VOCABULARIES": (300, 400), "CONTEXTS": (8, 16), "WIDTHS": (32, 64), "BATCHES": (1, 2), "BPE_MEGABYTES": 1}
    for name, value in (small | {"TOKENS": 16}).items():
        monkeypatch.setattr(scale, name, value)
    result = scale.run(megabytes=(1,))
    assert [*result["megabytes of text"]] == [*scale.STAGES, "exponent"]
    assert all(result["megabytes of text"][stage]["1"] > 0 for stage in scale.STAGES)
    return result


SMALL: dict[Any, Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]] = {
    bpe: lambda text, _: bpe.run([text], merges=20, repeats=1),
    encoding: lambda text, _: encoding.run([text], merges=20, repeats=1),
    hostile_texts: lambda *_: hostile_texts.run(sizes=(300, 600)),
}
SLOWER: dict[Any, Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]] = {
    memory: lambda *_: memory.run(1_000_000, batches=300),
    start: lambda *_: start.run(rounds=1),
    scale: lambda _, monkeypatch: run_scale(monkeypatch),
    threads: lambda *_: threads.run(rounds=1, seconds=0.3),
}


MODULES = [*SMALL, *(pytest.param(module, marks=pytest.mark.slow) for module in SLOWER)]


@pytest.mark.parametrize("module", MODULES, ids=lambda one: one.__name__)
def test_it_runs(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text(TEXT * 100)
    result = (SMALL | SLOWER)[module](tmp_path / "text.txt", monkeypatch)
    assert json.loads(json.dumps(result)) is not None
    goals = [goal.judged(result) for goal in getattr(module, "GOALS", ())]
    assert all(judged.endswith("reached") for _, judged in goals)
    table = module.as_table(result) if hasattr(module, "as_table") else tables(result)
    assert table.count("|---") >= 1


def test_the_terminal_writes_a_token() -> None:
    seconds, cpu = start.first_token(start.commands(start.PRETRAINED)[start.TERMINAL])
    assert seconds > 0 < cpu


def test_every_stage_is_measured_on_the_text_of_a_folder(tmp_path: Path) -> None:
    write_words(tmp_path / "text.txt", 100_000)
    assert all(scale.stage_costs(stage, tmp_path) > 0 for stage in scale.STAGES)


def test_a_text_larger_than_the_disk_is_refused() -> None:
    with pytest.raises(ValueError, match="expected room for 1,000,000,000 MB of text, got "):
        scale.text_costs((1, 10**9))


def test_documents_are_the_text_in_pieces(tmp_path: Path) -> None:
    lines = [f"{number} {TEXT}\n" for number in range(30_000)]
    (tmp_path / "text.txt").write_text("".join(lines))
    pieces = list(scale.documents(tmp_path / "text.txt"))
    assert "".join(pieces) == "".join(lines)
    assert len(pieces) == 3
    assert all(piece.endswith("\n") for piece in pieces)


def test_a_start_that_writes_nothing_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="expected a token, got 'nothing"):
        start.first_token(["-c", "print('nothing')"])


def test_an_unknown_benchmark_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "starting"])
    with pytest.raises(SystemExit):
        benchmarks()
    assert "unknown benchmark starting: expected some of" in capsys.readouterr().err
