"""ONNX files run with onnxruntime. Needs optional packages: `make interop` installs them and runs this."""

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from hub_export.exports.onnx import onnx
from modeling.loading import load_model
from tests.hub_export.families import CLASSIC, MODERN, save_model

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed; `make interop` installs it")

YARN = {"rope_type": "yarn", "factor": 3.0}
TUTORIAL = {**CLASSIC, "num_attention_heads": 5, "lm_head_bias": True, "norm_position": "post"}


def open_session(path: Path) -> Any:
    import onnxruntime  # pyright: ignore[reportMissingImports]  # only `make interop` has it

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "fields", [MODERN, {**MODERN, "rope_parameters": YARN}, TUTORIAL, {**CLASSIC, "position_embedding": "sinusoidal"}]
)
def test_logits_are_equal_for_every_batch_and_length(fields: dict, tmp_path: Path) -> None:
    source = save_model(tmp_path / "model", **fields)
    words = onnx(source, tmp_path / "model.onnx")
    assert words.startswith(f"{tmp_path / 'model.onnx'}: written; onnxruntime computes the same logits, within ")
    session, model = open_session(tmp_path / "model.onnx"), load_model(source, device="cpu")
    assert [(entry.name, entry.shape) for entry in session.get_inputs()] == [
        ("input_ids", ["batch_size", "sequence_length"])
    ]
    for batch, length in ((1, 1), (1, 48), (5, 17)):
        ids_BL = torch.randint(0, model.config.vocab_size, (batch, length))
        with torch.inference_mode():
            expected = model(ids_BL).logits.numpy()
        (logits,) = session.run(["logits"], {"input_ids": ids_BL.numpy()})
        numpy.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fields", [{**MODERN, "num_key_value_heads": 2}, CLASSIC])
def test_writing_with_the_cache_gives_the_greedy_text(fields: dict, tmp_path: Path) -> None:
    source = save_model(tmp_path / "model", **fields)
    onnx(source, tmp_path / "model.onnx", cache=True)
    session, model = open_session(tmp_path / "model.onnx"), load_model(source, device="cpu")
    config = model.config
    prompt_BL = torch.randint(0, config.vocab_size, (2, 5))
    model.generation_config.eos_token_id = None
    expected_BL = model.generate(
        prompt_BL, attention_mask=torch.ones_like(prompt_BL), max_new_tokens=20, do_sample=False
    )

    names = [entry.name for entry in session.get_inputs()]
    assert names[:4] == ["input_ids", "attention_mask", "position_ids", "past_key_values.0.key"]
    empty = numpy.zeros((2, config.num_key_value_heads, 0, config.head_dim), numpy.float32)
    past, text_BL, start = dict.fromkeys(names[3:], empty), prompt_BL.numpy(), 0
    for _ in range(20):
        length = text_BL.shape[1]
        feeds = {
            "input_ids": text_BL[:, start:],
            "attention_mask": numpy.ones((2, length), numpy.int64),
            "position_ids": numpy.tile(numpy.arange(start, length), (2, 1)),
        }
        logits_BLV, *present = session.run(None, {**feeds, **past})
        past, start = dict(zip(names[3:], present, strict=True)), length
        text_BL = numpy.concatenate([text_BL, logits_BLV[:, -1].argmax(-1, keepdims=True)], axis=1)
    assert text_BL.tolist() == expected_BL.tolist()


def test_padding_on_the_left_changes_nothing(tmp_path: Path) -> None:
    source = save_model(tmp_path / "model", **MODERN)
    onnx(source, tmp_path / "model.onnx", cache=True)
    session, config = open_session(tmp_path / "model.onnx"), load_model(source, device="cpu").config
    empty = numpy.zeros((1, config.num_key_value_heads, 0, config.head_dim), numpy.float32)
    past = {entry.name: empty for entry in session.get_inputs()[3:]}
    ids = numpy.arange(7, dtype=numpy.int64)[None]
    plain = {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "position_ids": ids}
    padded = {name: numpy.pad(value, ((0, 0), (3, 0))) for name, value in plain.items()}
    expected, *_ = session.run(["logits"], {**plain, **past})
    got, *_ = session.run(["logits"], {**padded, **past})
    numpy.testing.assert_allclose(got[:, 3:], expected, rtol=1e-4, atol=1e-4)


def test_a_masked_model(tmp_path: Path) -> None:
    source = save_model(tmp_path / "model", masked=True, **MODERN)
    onnx(source, tmp_path / "model.onnx")
    assert [entry.name for entry in open_session(tmp_path / "model.onnx").get_inputs()] == [
        "input_ids",
        "attention_mask",
    ]
    with pytest.raises(ValueError, match="a masked model reads the whole text at once and has no cache"):
        onnx(source, tmp_path / "other.onnx", cache=True)
    with pytest.raises(ValueError, match="a file of type ONNX is there"):
        onnx(source, tmp_path / "model.onnx")


def test_positions_scaled_by_the_length_of_the_text_are_refused(tmp_path: Path) -> None:
    source = save_model(tmp_path / "model", **MODERN, rope_parameters={"rope_type": "dynamic", "factor": 2.0})
    with pytest.raises(ValueError, match=r"scale the positions by the length of the text \(dynamic\), which a graph"):
        onnx(source, tmp_path / "model.onnx")
