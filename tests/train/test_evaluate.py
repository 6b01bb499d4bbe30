"""Loss, perplexity, bits per byte of any text."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling.loading import load_causal_lm
from tokenization import load_tokenizer
from train.evaluate import evaluate_text, main, text_windows

ROOT = Path(__file__).parents[2]
TEXT = "One morning a fox went to the market. It was closed."


@given(st.integers(2, 200), st.integers(2, 40))
def test_every_token_but_the_first_is_scored_once(length: int, context: int) -> None:
    ids = list(range(length))
    scored = []
    for window, count in text_windows(ids, context):
        assert len(window) <= context
        assert count < len(window)
        assert window == list(range(window[0], window[0] + len(window)))
        scored += window[-count:]
    assert scored == ids[1:]


def test_the_loss_of_a_short_text_is_the_models_own(finished_run: Path) -> None:
    folder = finished_run / "checkpoints/step-000012"
    model, tokenizer = load_causal_lm(folder), load_tokenizer(folder)
    text = "a b"
    ids = [tokenizer.bos_token_id, *tokenizer.encode_ordinary(text)]
    input_1L = torch.tensor([ids])
    expected = model(input_1L, labels=input_1L).loss.item()
    result = evaluate_text(model, tokenizer, [text])
    assert result["loss"] == pytest.approx(expected, rel=1e-5)
    assert result["tokens"] == len(ids) - 1
    assert result["bytes"] == 3
    assert result["perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)
    assert result["bits_per_byte"] == pytest.approx(expected * (len(ids) - 1) / math.log(2) / 3, rel=1e-5)


def test_the_command_prints_json(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT * 20)
    command = [sys.executable, "-m", "train.evaluate", str(finished_run), "--text", str(tmp_path / "text.txt")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    output = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    result = json.loads(output)
    assert set(result) == {"loss", "perplexity", "bits_per_byte", "tokens", "bytes"}
    assert result["bytes"] == len(TEXT) * 20


@pytest.mark.parametrize(
    ("model", "text", "message"),
    [
        ("no/such/folder", "text.txt", "there is no folder no/such/folder"),
        (".", "text.txt", "holds no model: no config.json"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main([model, "--text", text])
