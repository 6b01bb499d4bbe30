"""`python -m train.memorization`: the share of what a model writes that stands in its training text."""

import json
import shutil
from pathlib import Path

import pytest

from modeling.generation import SamplingSettings, stream
from modeling.loading import load_model
from storage.run_folder import RunFolder
from storage.shards import TokenSplit
from tests.train.conftest import with_fields
from tokenization import load_tokenizer
from train.config import Config
from train.evaluate import main as evaluate
from train.loop import train
from train.memorization.__main__ import main
from train.memorization.share import measure


def test_the_share_is_that_of_the_windows_of_the_texts(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(finished_run), "--texts", "3", "--tokens", "40", "--window", "2"])
    printed = json.loads(capsys.readouterr().out)
    folder = RunFolder(finished_run).checkpoint()
    split, model = TokenSplit.open(finished_run / "tokens", "train"), load_model(folder)
    end = model.config.eos_token_id
    corpus = split.read(0, len(split)).tolist()
    pairs = set(zip(corpus, corpus[1:], strict=False))
    windows = memorised = tokens = 0
    for seed in range(3):
        settings = SamplingSettings(max_new_tokens=40, seed=seed)
        ids = [step.token_id for step in stream(model, [end], settings, stop_token_ids=(end,))]
        written = list(zip(ids, ids[1:], strict=False))
        tokens, windows = tokens + len(ids), windows + len(written)
        memorised += sum(pair in pairs for pair in written)
    assert printed == {
        "texts": 3,
        "tokens": tokens,
        "windows": windows,
        "memorised": memorised,
        "share": memorised / windows,
    }


def test_a_passage_of_the_text_is_all_memorised(finished_run: Path) -> None:
    split = TokenSplit.open(finished_run / "tokens", "train")
    passage = split.read(10, 80).tolist()
    assert measure([passage, passage[:49]], split) == {
        "texts": 2,
        "tokens": 129,
        "windows": 31,
        "memorised": 31,
        "share": 1.0,
    }
    assert measure([passage[:49]], split)["share"] is None


def test_without_the_tokens_of_the_model_it_is_said(finished_run: Path, tiny: Config, tmp_path: Path) -> None:
    def refusal(*words: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, words)])
        return str(stopped.value)

    alone = shutil.copytree(RunFolder(finished_run).checkpoint(), tmp_path / "alone")
    assert refusal(alone) == (
        "error: --run: expected the run folder with the tokens that the model was trained on, got a model that lies in "
        "no run folder"
    )
    assert refusal(alone, "--run", tmp_path / "none") == (
        f"error: --run: expected the run folder with the tokens that the model was trained on, got no finished tokens/ "
        f"in {tmp_path / 'none'}"
    )
    other = train(
        with_fields(tiny, tokenizer__vocab_size=280, run__steps=1, run__dir=tmp_path / "other"),
        recipe="debug",
        quiet=True,
    )
    assert refusal(alone, "--run", other) == (
        f"error: --run {other}: expected tokens of the tokenizer of {alone}, got those of another"
    )


def test_a_number_below_one_is_a_wrong_flag(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(finished_run), "--window", "0"])
    assert stopped.value.code == 2
    assert "--window: expected 1 or more, got 0" in capsys.readouterr().err


def test_what_is_recorded_is_the_result_and_the_first_texts(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(shutil.copytree(finished_run, tmp_path / "run"))
    main([str(run.path), "--texts", "12", "--tokens", "20", "--window", "2", "--record"])
    printed = json.loads(capsys.readouterr().out)
    recorded = run.evaluations(run.checkpoint().name)
    assert recorded["memorization"] == printed | {"window": 2}
    model, tokenizer = load_model(run.checkpoint()), load_tokenizer(run.checkpoint())
    end = tokenizer.eos_token_id
    assert isinstance(end, int)
    assert [sample["seed"] for sample in recorded["seeded_samples"]] == list(range(10))
    for sample in recorded["seeded_samples"]:
        settings = SamplingSettings(max_new_tokens=20, seed=sample["seed"])
        ids = [step.token_id for step in stream(model, [end], settings, stop_token_ids=(end,))]
        assert sample["text"] == tokenizer.decode(ids, skip_special_tokens=True)
    text = tmp_path / "unseen.txt"
    text.write_text("The dog saw a cat in the garden. " * 40)
    evaluate([str(run.path), "--text", str(text), "--record"])
    recorded = run.evaluations(run.checkpoint().name)
    assert recorded["texts"] == {"unseen.txt": json.loads(capsys.readouterr().out)}
    assert recorded["memorization"] == printed | {"window": 2}
    alone = shutil.copytree(run.checkpoint(), tmp_path / "alone")
    with pytest.raises(SystemExit, match="--record: expected a run or one of its checkpoints, which keeps the result"):
        evaluate([str(alone), "--text", str(text), "--record"])
