"""Going on from a model (`--from`): what is kept, resume, what is recorded, refusals."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hub_export.card import render_card
from modeling import ScratchGPTConfig
from storage.records import read_json_object, write_json
from storage.run_folder import RunFolder
from storage.shards import tokenizer_hash
from tests.train.conftest import TEXT, with_fields
from tests.train.test_loop import assert_same_run, resume_to_the_end, stop_after
from tokenization import load_tokenizer, save_tokenizer
from tokenization.trainers import add_mask_token, train_own
from train.__main__ import main, parse
from train.base.base_model import start_from
from train.config import Config
from train.loop import Trainer, train
from train.recipes import get_recipe


@pytest.fixture(scope="module")
def config(going_on: Config) -> Config:
    """What these tests train by."""
    return going_on


def a_copy(finished_run: Path, to: Path) -> Path:
    """A checkpoint by itself, as a bundle is."""
    shutil.copytree(RunFolder(finished_run).checkpoint(), to)
    shutil.rmtree(to / "training")
    return to


def test_architecture_vocabulary_and_weights_are_kept(config: Config, finished_run: Path, tmp_path: Path) -> None:
    base = RunFolder(finished_run).checkpoint()
    trainer = Trainer(with_fields(config, run__dir=tmp_path / "new"), "debug", RunFolder(tmp_path / "new"), quiet=True)
    weights, before = trainer.unwrapped.state_dict(), load_file(base / "model.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.items())
    assert not any(optimizer.state for optimizer in trainer.inner_optimizers)
    trainer.run()
    run = RunFolder(tmp_path / "new")
    names = [field for field in read_json_object(base / "config.json") if field != "dtype"]
    made, old = (read_json_object(place / "config.json") for place in (run.checkpoint("latest"), base))
    assert {name: made[name] for name in names} == {name: old[name] for name in names}
    assert tokenizer_hash(run.tokenizer) == tokenizer_hash(base)
    assert str(tmp_path) not in (run.checkpoint("latest") / "config.json").read_text()
    assert run.state["base_model"] == {
        "name": f"unbroken, step {int(base.name[5:])}",
        "repository": None,
        "trained_on": "3 short English stories made by ScratchGPT's own generator",
    }
    assert "going on from unbroken, step" in run.log.read_text()
    assert "before the first step: validation loss" in run.log.read_text()


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(
    config: Config, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = a_copy(finished_run, tmp_path / "base")
    config = with_fields(config, run__base_model=str(base))
    unbroken = train(with_fields(config, run__dir=tmp_path / "unbroken"), recipe="debug")
    broken = with_fields(config, run__dir=tmp_path / "broken")
    with monkeypatch.context() as patch:
        stop_after(5, patch)
        train(broken, recipe="debug")
    base.rename(tmp_path / "gone")  # from its first checkpoint on a run does without
    resume_to_the_end(broken, [10], monkeypatch)
    assert_same_run(tmp_path / "broken", unbroken)
    states = [RunFolder(run).state["base_model"] for run in (unbroken, tmp_path / "broken")]
    assert states[0] == states[1] == {"name": "base", "repository": None, "trained_on": None}


def test_a_relative_path_to_what_is_gone_is_still_that_of_the_run(
    config: Config, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command with --resume, as a stopped run advises."""
    base = a_copy(finished_run, tmp_path / "base")
    config = with_fields(config, run__base_model=str(base), run__dir=tmp_path / "new", run__steps=1)
    train(config, recipe="debug", quiet=True)
    base.rename(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    assert parse(["debug", "--from", "base"])[1].run.base_model == "base"
    resumed = with_fields(config, run__base_model="base", run__resume=True, run__steps=2)
    train(resumed, recipe="debug", quiet=True)
    state = RunFolder(tmp_path / "new").state
    assert (state["step"], state["base_model"]["name"]) == (2, "base")


def test_scaled_positions_are_kept(config: Config, finished_run: Path, tmp_path: Path) -> None:
    base = a_copy(finished_run, tmp_path / "base")
    scaled = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16}
    AutoModelForCausalLM.from_pretrained(base, rope_parameters=scaled).save_pretrained(base)
    (base / "SHA256SUMS").unlink()
    config = with_fields(config, run__base_model=str(base), run__dir=tmp_path / "new", run__steps=1)
    run = RunFolder(train(config, recipe="debug", quiet=True))
    kept = ScratchGPTConfig.from_pretrained(run.checkpoint("latest")).rope_parameters
    assert kept == ScratchGPTConfig.from_pretrained(base).rope_parameters
    assert kept
    assert kept["factor"] == 2.0
    resumed = with_fields(config, run__resume=True, run__steps=2)
    train(resumed, recipe="debug", quiet=True)
    assert ScratchGPTConfig.from_pretrained(run.checkpoint("latest")).rope_parameters == kept


def test_dropout_is_the_models_unless_it_is_given(config: Config, tmp_path: Path) -> None:
    kept, _ = start_from(config, (), RunFolder(tmp_path))
    assert kept.model.residual_dropout == 0.1
    changed = with_fields(config, model__residual_dropout=0.3)
    given, _ = start_from(changed, ["model.residual_dropout"], RunFolder(tmp_path))
    assert given.model.residual_dropout == 0.3
    assert given.model.hidden_size == 16


@pytest.mark.parametrize("rate", ["0", "0.3"])
def test_dropout_can_be_switched_off(rate: str, config: Config, finished_run: Path, tmp_path: Path) -> None:
    """With the value of the recipe, too."""
    assert get_recipe("debug").model.residual_dropout == 0.0
    words = ["debug", "--from", str(finished_run), "--corpus", str(config.corpus.paths[0]), "--steps", "1"]
    words += ["--run-dir", str(tmp_path / "run"), "--model.residual-dropout", rate]
    for steps in (1, 2):  # and when it is resumed
        main([*words, "--steps", str(steps), "--resume"])
        assert RunFolder(tmp_path / "run").recipe["config"]["model"]["residual_dropout"] == float(rate)


def test_a_short_text_does_not_shorten_the_context(config: Config, tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text(TEXT[:340], encoding="utf-8")
    config = with_fields(config, corpus__paths=(text,), run__dir=tmp_path / "new", data__batch_size=8)
    trainer = Trainer(config, "debug", RunFolder(tmp_path / "new"), quiet=True)
    assert trainer.config.model.max_position_embeddings == 32
    assert trainer.config.data.batch_size < 8
    assert "windows in a batch" in RunFolder(tmp_path / "new").log.read_text()


def test_the_card_names_the_model(config: Config, finished_run: Path, tmp_path: Path) -> None:
    base = a_copy(finished_run, tmp_path / "base")
    (base / "README.md").write_text(
        "---\nscratchgpt:\n  repository: someone/lamps\n  trained_on: books about lamps\n---\n# lamps\n"
    )
    config = with_fields(config, run__base_model=str(base), run__dir=tmp_path / "new", run__steps=1)
    run = RunFolder(train(config, recipe="debug", quiet=True))
    checkpoint = run.checkpoint("latest")
    card = render_card(checkpoint, run, checkpoint, repo=None)
    assert "\nbase_model: someone/lamps\n" in card
    assert "It goes on from the model `someone/lamps`, which was trained from scratch on books about lamps" in card
    assert "| base model | `someone/lamps` |" in card
    assert str(tmp_path) not in card


def test_a_path_is_absolute_and_a_hub_id_stays(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished_run.parent)
    assert parse(["debug", "--from", finished_run.name])[1].run.base_model == str(finished_run.resolve())
    assert parse(["debug", "--from", "someone/lamps@v1"])[1].run.base_model == "someone/lamps@v1"
    with pytest.raises(ValueError, match="expected a model folder or a Hub id, got ~nosuch/lamps: "):
        parse(["debug", "--from", "~nosuch/lamps"])
    with pytest.raises(ValueError, match="expected the folder of a run, got ~nosuch/lamps: "):
        parse(["debug", "--data.replay", "~nosuch/lamps"])


def refusal(*words: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["debug", *words])
    return str(stopped.value)


def test_a_model_that_is_none_of_ours_is_refused(finished_run: Path, tmp_path: Path) -> None:
    flags = ("--run-dir", str(tmp_path / "new"))
    assert f"error: --from {tmp_path / 'none'}: there is no folder" in refusal("--from", str(tmp_path / "none"), *flags)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    write_json(foreign / "config.json", {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]})
    expected = (
        f"error: --from {foreign}: expected a model of ScratchGPT (model_type scratchgpt), got one of type gpt2; "
        "docs/finetune.md has a program"
    )
    assert expected in refusal("--from", str(foreign), *flags)
    masked = a_copy(finished_run, tmp_path / "masked")
    config = read_json_object(masked / "config.json")
    write_json(masked / "config.json", config | {"architectures": ["ScratchGPTForMaskedLM"]})
    assert f"--from {masked}: expected a causal model" in refusal("--from", str(masked), *flags)
    assert not (tmp_path / "new" / "tokenizer").exists()


def test_another_vocabulary_is_refused(finished_run: Path, tmp_path: Path) -> None:
    base = a_copy(finished_run, tmp_path / "base")
    save_tokenizer(add_mask_token(load_tokenizer(base)), base)
    (base / "SHA256SUMS").unlink()
    message = refusal("--from", str(base), "--run-dir", str(tmp_path / "new"))
    assert f"--from {base}: expected a tokenizer of 300 tokens, as the model has, got one of 301; put" in message
    broken = a_copy(finished_run, tmp_path / "broken")
    shutil.rmtree(broken / "slow")
    (broken / "tokenizer.json").write_text("{")
    (broken / "SHA256SUMS").unlink()
    message = refusal("--from", str(broken), "--run-dir", str(tmp_path / "new"))
    assert f"--from {broken}: expected a tokenizer beside the model, got none that can be loaded (" in message
    assert "); put the tokenizer of this model there, or give the run or the bundle that it is of" in message
    other = tmp_path / "other"
    save_tokenizer(train_own([TEXT], 300), other / "tokenizer")
    message = refusal("--from", str(finished_run), "--run-dir", str(other))
    assert f"{other / 'tokenizer'}: expected the vocabulary of --from {finished_run}, got another" in message


def test_ids_of_another_tokenizer_are_refused(finished_run: Path, tmp_path: Path) -> None:
    from tokenization.__main__ import main as tokenization

    text = tmp_path / "lamps.txt"
    text.write_text(TEXT, encoding="utf-8")
    save_tokenizer(train_own([TEXT], 300), tmp_path / "other")
    for name, tokenizer in (("same", finished_run / "tokenizer"), ("other", tmp_path / "other")):
        tokenization(["encode", str(tokenizer), str(text), "--out", str(tmp_path / f"{name}.npy")])
    flags = ("--from", str(finished_run), "--steps", "1", "--run-dir")
    message = refusal("--corpus", str(tmp_path / "other.npy"), *flags, str(tmp_path / "run"))
    assert "other.npy: expected ids of this run's tokenizer, got those of another" in message
    main(["debug", "--corpus", str(tmp_path / "same.npy"), *flags, str(tmp_path / "taken"), "--run.threads", "1"])
    assert RunFolder(tmp_path / "taken").state["status"] == "finished"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--model.hidden-size", "64"],
            "--model.hidden-size: expected none beside --from, which keeps the architecture",
        ),
        (["--tokenizer.vocab-size", "500"], "--tokenizer.vocab-size: expected none beside --from"),
        (["--data.objective", "masked"], "--data.objective: expected causal with --from"),
    ],
)
def test_what_it_keeps_cannot_be_given(finished_run: Path, tmp_path: Path, flags: list[str], message: str) -> None:
    assert message in refusal("--from", str(finished_run), "--run-dir", str(tmp_path / "new"), *flags)


def test_a_run_does_not_go_on_from_another_model(
    config: Config, finished_run: Path, fresh_run_dir: Callable[[str], Path], tmp_path: Path
) -> None:
    run_dir = train(with_fields(config, run__dir=tmp_path / "new", run__steps=1), recipe="debug", quiet=True)
    other = a_copy(finished_run, tmp_path / "other")
    with pytest.raises(ValueError, match=r"--run\.base-model: the run has '.*unbroken', asked for '.*other'"):
        train(with_fields(config, run__dir=run_dir, run__base_model=str(other), run__resume=True), recipe="debug")
    recorded = json.loads((run_dir / "recipe.json").read_text())["config"]
    assert recorded["run"]["base_model"] == str(finished_run)
    assert recorded["model"]["hidden_size"] == 16
