"""The benchmark of sizes and the text that it makes, in small."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._text import spell, write_words
from benchmarks.scale import Step, bpe_costs, cpu_seconds, draw, exponent, step_costs
from modeling.sizing import count_parameters
from tokenization.bpe import count_pretokens
from tokenization.tokenization_scratchgpt import GPT4_SPLIT_PATTERN, Splitter


@given(st.sets(st.integers(0, 2**62), min_size=2, max_size=2))
def test_no_two_words_are_the_same(ranks: set[int]) -> None:
    assert len({spell(rank) for rank in ranks}) == 2


def test_a_text_has_its_size_and_meets_new_words_for_ever(tmp_path: Path) -> None:
    counts = []
    for size in (100_000, 1_000_000):
        write_words(tmp_path / "text.txt", size)
        assert (tmp_path / "text.txt").stat().st_size == size
        counts.append(len(count_pretokens([(tmp_path / "text.txt").read_text()], Splitter(GPT4_SPLIT_PATTERN))))
    assert 2.5 < counts[1] / counts[0] < 8  # Heaps' law; English has about 4


def test_the_exponent_is_that_of_the_last_two_sizes() -> None:
    assert exponent({1: 5.0, 10: 3.0, 100: 300.0}) == 2.0
    assert exponent({7: 5.0}) is None


def test_a_step_is_measured_beside_its_operations() -> None:
    costs = step_costs([8, 16], lambda size: Step(context=size, width=32, vocabulary=64, windows=2))
    assert costs["a step"][16] == costs["a step by its operations"][16] > 0
    assert 0.4 < costs["a step by its operations"][8] / costs["a step by its operations"][16] < 0.5
    assert count_parameters(Step(width=32, vocabulary=64).shape) > 64 * 32


def test_one_training_of_a_vocabulary_tells_the_time_of_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.scale.make_text", lambda megabytes: " ".join(map(spell, range(900))))
    (seconds,) = bpe_costs([300, 500]).values()
    assert list(seconds) == [300, 500]
    assert 0 < seconds[300] < seconds[500]


def test_the_picture_has_a_panel_for_each_axis(tmp_path: Path) -> None:
    by_size = {"1": 0.1, "1,000": 0.2}
    result = {axis: {"a step": by_size, "exponent": {"a step": 0.1}} for axis in ("context", "width")}
    draw(result, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")


def test_cpu_seconds_are_those_of_the_work() -> None:
    product, seconds = cpu_seconds(lambda: torch.ones(300, 300) @ torch.ones(300, 300))
    assert product[0, 0] == 300
    assert seconds > 0
