"""A masked run: resume, what it reports and leaves, and that the numbers are those of their definitions."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForMaskedLM

from modeling.loading import load_model
from storage.records import read_jsonl
from storage.shards import TokenSplit
from tests.train.conftest import with_fields
from tests.train.test_loop import assert_accumulation_changes_nothing, assert_same_run, curve, resume_to_the_end
from tokenization import load_tokenizer, save_tokenizer
from tokenization.trainers import add_mask_token
from train.config import Config
from train.data.batches import IGNORED, evaluation_batches
from train.data.masking import Masking
from train.loop import train
from train.objective import MaskedObjective, ModelWithLoss, mean_loss
from train.run_log import draw_losses
from train.text_loss import evaluate_masked_text


@pytest.fixture(scope="module")
def config(tiny: Config) -> Config:
    """`tiny`, masked."""
    return with_fields(tiny, data__objective="masked", data__mask_rate=0.3)


@pytest.fixture(scope="module")
def tokenizer_folder(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of `tiny` with a mask token."""
    folder = tmp_path_factory.mktemp("tokenizers") / "tokenizer"
    save_tokenizer(add_mask_token(load_tokenizer(finished_run / "tokenizer")), folder)
    return folder


@pytest.fixture(scope="module")
def make_run_dir(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes run folders whose tokenizer is there already."""

    def make(name: str) -> Path:
        run_dir = tmp_path_factory.mktemp("masked") / name
        shutil.copytree(tokenizer_folder, run_dir / "tokenizer")
        return run_dir

    return make


@pytest.fixture(scope="module")
def masked_run(config: Config, make_run_dir: Callable[[str], Path]) -> Path:
    """An unbroken run; read it, do not change it."""
    return train(with_fields(config, run__dir=make_run_dir("unbroken")), recipe="debug")


@pytest.fixture(scope="module")
def validation(config: Config, masked_run: Path) -> TokenSplit:
    """Its held-out tokens."""
    return TokenSplit.open(masked_run / "tokens", "validation")


@pytest.mark.parametrize("windows", ["packed", "random"])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(
    config: Config,
    masked_run: Path,
    make_run_dir: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    windows: str,
) -> None:
    config = with_fields(config, data__windows=windows)
    unbroken = masked_run
    if windows == "random":
        unbroken = train(with_fields(config, run__dir=make_run_dir("unbroken")), recipe="debug")
    broken = make_run_dir("broken")
    resume_to_the_end(with_fields(config, run__dir=broken), [1, 10], monkeypatch)
    assert_same_run(broken, unbroken)


def test_accumulation_gives_the_gradients_of_the_whole_batch(
    config: Config, make_run_dir: Callable[[str], Path]
) -> None:
    """Also where micro-batches hold unequal numbers of blanks, or none."""
    config = with_fields(config, data__mask_rate=0.02, model__max_position_embeddings=16)
    assert_accumulation_changes_nothing(config, make_run_dir)


def test_what_a_masked_run_leaves(masked_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = json.loads((masked_run / "run.json").read_text())
    assert run["floor_bits_per_byte"] is None  # the floor is the entropy of a text read from one side
    evaluation = run["evaluation"]
    assert set(evaluation) == {"validation_loss", "masked_perplexity", "pseudo_perplexity", "train_eval_loss"}
    assert evaluation["masked_perplexity"] == pytest.approx(math.exp(evaluation["validation_loss"]))
    lines = read_jsonl(masked_run / "metrics.jsonl")
    assert {"step", "tokens_seen", "train_loss", "learning_rate"} <= lines[0].keys()
    assert set(evaluation) <= lines[-1].keys()
    assert not {"perplexity", "bits_per_byte"} & lines[-1].keys()
    said = (masked_run / "train.log").read_text()
    assert "nats per hidden token (30% hidden; masked perplexity" in said
    assert "pseudo-perplexity" in said
    assert "bits per byte" not in said
    assert (masked_run / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_numbers_are_those_of_their_definitions(config: Config, masked_run: Path, validation: TokenSplit) -> None:
    """Written out with all logits: the loss at the selected positions; and one token hidden in each window, alone."""
    folder = masked_run / "checkpoints/step-000012"
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer: Any = load_tokenizer(folder)
    masking = Masking.of(tokenizer, config.data.mask_rate)
    batches = evaluation_batches(
        validation, batch_size=3, length=32, windows=16, end_of_text=tokenizer.convert_tokens_to_ids("<|endoftext|>")
    )
    expected = {}
    for name, hidden in (("masked", masking.hide_fixed(batches)), ("pseudo", masking.hide_one(batches))):
        losses = []
        for batch in hidden:
            with torch.no_grad():
                logits = model(batch.input_BL).logits
            blanks_BL = batch.target_BL != IGNORED
            losses.append(functional.cross_entropy(logits[blanks_BL], batch.target_BL[blanks_BL], reduction="none"))
        expected[name] = torch.cat(losses).mean().item()
    evaluation = json.loads((masked_run / "run.json").read_text())["evaluation"]
    assert evaluation["validation_loss"] == pytest.approx(expected["masked"], rel=1e-5)
    assert evaluation["pseudo_perplexity"] == pytest.approx(math.exp(expected["pseudo"]), rel=1e-5)


def test_batches_without_a_target_are_left_out(masked_run: Path, validation: TokenSplit) -> None:
    model = AutoModelForMaskedLM.from_pretrained(masked_run / "checkpoints/step-000012")
    batches = evaluation_batches(validation, batch_size=2, length=32, windows=4, end_of_text=0)
    empty = type(batches[0])(batches[0].input_BL, torch.full_like(batches[0].input_BL, IGNORED))
    device = torch.device("cpu")
    module = ModelWithLoss(model)
    assert mean_loss(module, [empty, *batches], device) == mean_loss(module, batches, device)


def test_the_picture_names_what_it_shows(masked_run: Path, finished_run: Path) -> None:
    masked, causal = (read_jsonl(run / "metrics.jsonl") for run in (masked_run, finished_run))
    scale: Any = SimpleNamespace(loss_label=MaskedObjective.loss_label, floor=None, bits_per_byte=0.0)
    figure = draw_losses(masked, scale)
    (axes,) = figure.axes
    assert axes.get_ylabel() == "masked loss (nats per hidden token)"
    assert [line.get_label() for line in axes.lines] == ["training", "training, in evaluation mode", "validation"]
    assert not axes.child_axes  # no bits per byte
    scale = SimpleNamespace(loss_label="loss (nats per token)", floor=0.5, bits_per_byte=0.4)
    figure = draw_losses(causal, scale)
    (axes,) = figure.axes
    assert axes.get_ylabel() == "loss (nats per token)"
    assert axes.lines[-1].get_label() == "floor: the text's own entropy"
    assert axes.child_axes[0].get_ylabel() == "bits per byte"


def test_samples_are_filled_blanks(masked_run: Path) -> None:
    prompts = json.loads((masked_run / "prompts.json").read_text())
    samples = [line for line in read_jsonl(masked_run / "samples.jsonl") if line["step"] == 12]
    assert len(samples) == len(prompts[:4])
    for prompt, sample in zip(prompts, samples, strict=False):
        assert "<|mask|>" in sample["prompt"]
        assert "<|mask|>" not in sample["text"]
        whole, *rest = sample["prompt"].split("<|mask|>")
        assert prompt.startswith(whole)
        assert sample["text"].startswith(whole)
        assert rest


def test_a_masked_model_learns(config: Config, make_run_dir: Callable[[str], Path]) -> None:
    """Sixty steps are enough to see it."""
    config = with_fields(
        config, run__dir=make_run_dir("learns"), run__steps=60, run__evaluate_every=60, run__checkpoint_every=60,
        data__mask_rate=0.15, model__residual_dropout=0.0, model__num_hidden_layers=1,
    )  # fmt: skip
    lines = curve(train(config, recipe="debug"))
    assert lines[-1]["train_loss"] < 0.8 * lines[0]["train_loss"]


@pytest.mark.parametrize("kind", ["bpe", "characters", "wordpiece", "sentencepiece"])
def test_every_vocabulary_gets_a_mask_token(config: Config, tmp_path: Path, kind: str) -> None:
    """Trained, saved, and evaluated as the command does it."""
    config = with_fields(
        config, run__dir=tmp_path / "run", run__steps=2, run__checkpoint_every=2, run__evaluate_every=2,
        tokenizer__kind=kind, tokenizer__vocab_size=330, model__max_position_embeddings=16, corpus__stories=20,
    )  # fmt: skip
    folder = train(config, recipe="debug") / "checkpoints/step-000002"
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    assert tokenizer.mask_token == "<|mask|>"
    assert tokenizer.mask_token_id == len(tokenizer) - 1 == model.config.vocab_size - 1
    result = evaluate_masked_text(model, tokenizer, ["One morning a fox went to the market."], limit=4)
    assert result["tokens"] == 4
    assert 1 < result["pseudo_perplexity"] < 20 * len(tokenizer)
