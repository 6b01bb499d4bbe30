"""GGUF files run with llama.cpp. Needs optional packages: `make interop` installs them and runs this."""

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from hub_export.exports.gguf import TEXTS, gguf, read_vocabulary
from modeling.loading import load_model
from tests.hub_export.families import CLASSIC, GPT2, MODERN, TEXT, save_model
from tokenization import ScratchGPTTokenizer, save_tokenizer, train_bpe
from tokenization.trainers import train_vocabulary

pytest.importorskip("gguf", reason="gguf is not installed; `make interop` installs it")
llama = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed; `make interop` installs it")

STEPS = 60


@pytest.fixture(scope="module", params=["modern", "classic", "grouped"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt a text, so that its greedy text means something."""
    fields = {
        "modern": MODERN,
        "classic": GPT2,
        "grouped": {**MODERN, "num_key_value_heads": 2, "head_dim": 6, "tie_word_embeddings": False},
    }[request.param]
    return save_model(tmp_path_factory.mktemp("trained") / request.param, steps=STEPS, **fields)


def open_llama(path: Path, context: int, **settings: Any) -> Any:
    return llama.Llama(str(path), n_ctx=context, n_threads=1, verbose=False, **settings)


def write(model: Any, prompt: list[int], length: int) -> list[int]:
    text = list(prompt)
    for token in model.generate(prompt, temp=0.0, repeat_penalty=1.0):
        if len(text) == length:
            break
        text.append(token)
    return text


@pytest.mark.parametrize("weights", ["f32", "f16"])
def test_llama_cpp_writes_our_greedy_text(trained: Path, weights: Any, tmp_path: Path) -> None:
    words = gguf(trained, tmp_path / "model.gguf", weights=weights)
    assert "llama.cpp opens it. Its greedy text is ours for 24 of 24 tokens" in words
    assert f"its token ids are ours on all {len(TEXTS)} texts tried." in words
    ours, tokenizer = load_model(trained, device="cpu"), AutoTokenizer.from_pretrained(trained, trust_remote_code=False)
    theirs = open_llama(tmp_path / "model.gguf", ours.config.max_position_embeddings)
    for prompt in ("The robot's three", "The sailor", " moons", "\n\n"):
        ids_1L = tokenizer(prompt, return_tensors="pt")["input_ids"]
        expected = ours.generate(ids_1L, attention_mask=torch.ones_like(ids_1L), max_new_tokens=20, do_sample=False)
        assert write(theirs, ids_1L[0].tolist(), expected.shape[1]) == expected[0].tolist()
        theirs.reset()


def test_logits_are_near(trained: Path, tmp_path: Path) -> None:
    gguf(trained, tmp_path / "model.gguf")
    ours = load_model(trained, device="cpu")
    types = {"type_k": llama.GGML_TYPE_F32, "type_v": llama.GGML_TYPE_F32}
    theirs = open_llama(tmp_path / "model.gguf", ours.config.max_position_embeddings, logits_all=True, **types)
    ids = list(range(40, 70))
    theirs.eval(ids)
    with torch.inference_mode():
        expected = ours(torch.tensor([ids])).logits[0].numpy()
    # llama.cpp looks gelu up in a table of 16-bit numbers; qwen3 is exact.
    tolerance = 2e-2 if ours.config.position_embedding == "learned" else 1e-4
    numpy.testing.assert_allclose(theirs.scores[: len(ids)], expected, rtol=tolerance, atol=tolerance)


def test_eight_bits_are_small_and_open(trained: Path, tmp_path: Path) -> None:
    for weights in ("f32", "q8_0"):
        assert "llama.cpp opens it" in gguf(trained, tmp_path / f"{weights}.gguf", weights=weights)
    assert (tmp_path / "q8_0.gguf").stat().st_size < (tmp_path / "f32.gguf").stat().st_size


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (CLASSIC, "hidden_act is 'relu', and llama.cpp's gpt2 computes gelu_new whatever a file says"),
        ({**GPT2, "hidden_act": "gelu"}, "hidden_act is 'gelu', and llama.cpp's gpt2 computes gelu_new"),
        ({**MODERN, "hidden_act": "relu"}, "hidden_act is 'relu', and llama.cpp's qwen3 computes silu"),
        (
            {**MODERN, "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
            "rope_parameters scale the positions (linear), which this export does not write into the file",
        ),
        ({**MODERN, "attention_output_bias": True}, "attention_output_bias is True, and llama.cpp's qwen3 has no bias"),
        ({**CLASSIC, "num_attention_heads": 5}, "5 x 6 = 30 and must be hidden_size"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(fields: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        gguf(save_model(tmp_path / "model", **fields), tmp_path / "model.gguf")
    assert words in str(caught.value)
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize("kind", ["characters", "wordpiece", "sentencepiece", "bpe with another pattern"])
def test_a_tokenizer_that_llama_cpp_has_not_is_refused(kind: str, tmp_path: Path) -> None:
    message = r"tokenizer\.kind: expected a byte-level BPE .* Train with --tokenizer.kind bpe"
    if kind == "bpe with another pattern":
        message, pattern = r"tokenizer\.pattern: expected the split pattern of GPT-4 or of GPT-2", r"\S+|\s+"
        tokenizer = ScratchGPTTokenizer.from_merges(train_bpe([TEXT], 280, pattern=pattern), pattern=pattern)
    else:
        tokenizer = train_vocabulary(kind, [TEXT], 300)
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    with pytest.raises(ValueError, match=message):
        read_vocabulary(tmp_path / "tokenizer", 300)


def test_the_split_pattern_of_gpt2(tmp_path: Path) -> None:
    source = save_model(tmp_path / "model", **GPT2)
    rust = AutoTokenizer.from_pretrained(source, trust_remote_code=False).backend_tokenizer
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.save(str(source / "tokenizer.json"))
    assert read_vocabulary(source, 300).pre == "gpt-2"
    assert f"its token ids are ours on all {len(TEXTS)} texts tried." in gguf(source, tmp_path / "model.gguf")


def test_tokens_that_only_the_model_has_are_unused(tmp_path: Path) -> None:
    tokenizer = ScratchGPTTokenizer.from_merges(train_bpe([TEXT], 280))
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    vocabulary = read_vocabulary(tmp_path / "tokenizer", 288)
    assert (len(vocabulary.tokens), len(vocabulary.merges), vocabulary.pre) == (288, 23, "dbrx")
    assert vocabulary.tokens[279:281] == ["<|endoftext|>", "[UNUSED280]"]
    assert vocabulary.types[278:281] == [1, 3, 5]
