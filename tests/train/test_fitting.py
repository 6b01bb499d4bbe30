"""A recipe on a text that is short for it."""

import re
from pathlib import Path
from typing import Any

import pytest

from storage.run_folder import RunFolder
from train.__main__ import main, parse
from train.checks import changed_fields, given_fields, kept_fields
from train.config import Config, replace_fields
from train.data import fitting
from train.data.batches import evaluation_batches, training_batches, training_evaluation_batches
from train.data.encoding import ShardEncoder
from train.data.fitting import fit_to_text
from train.data.prepare import prepare
from train.recipes import get_recipe
from train.run import Run

POEM = """The kettle hums, the window glows,
The cat has found the warmest chair,
And over all the garden rows
The rain is falling everywhere.

The road is long, the road is brown,
It winds below the windy hill,
And carts go slowly into town
With flour and barley from the mill.

My father mends the wooden gate,
My mother counts the silver spoons,
The clock upon the wall is late
By seven days and fourteen moons.

The dog is dreaming by the door
Of rabbits that he never caught,
The mice have danced across the floor
And taken more than what they ought.

So let it rain, and let it blow,
The lamp is lit, the bread is done,
And who has nowhere else to go
May stay with us till there is sun.
"""
SMALL = (
    "--model.hidden-size 16 --model.intermediate-size 32 --model.num-hidden-layers 1 --model.head-dim 8 "
    "--run.threads 1 --run.sample-tokens 4 --run.output-tokens 0 --run.max-seconds 0 --steps"
)


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    path = tmp_path / "poem.txt"
    path.write_text(POEM, encoding="utf-8")
    return path


def fitted_by(words: list[str]) -> tuple[Config, Config, list[str]]:
    """The config of a command line, what it becomes for its text, and the lines on that."""
    name, config = parse(words)
    return config, *fit_to_text(config, kept_fields(config, get_recipe(name), given_fields(words)))


def train_stories(poem: Path, run: Path, flags: str) -> RunFolder:
    main(["stories", "--corpus", str(poem), "--run-dir", str(run), *SMALL.split(), *flags.split()])
    return RunFolder(run)


def test_a_poem_of_twenty_lines_trains_and_each_change_is_said(poem: Path, tmp_path: Path) -> None:
    run = train_stories(poem, tmp_path / "run", "3")
    assert run.state["status"] == "finished"
    log = run.log.read_text()
    size = len(POEM)
    for what in (
        r"a vocabulary of 2\d\d, not 3,072 \(--tokenizer\.vocab-size\)",
        r"a context of \d\d, not 160 \(--model\.max-position-embeddings\)",
        r"windows in a batch: \d+, not 14 \(--data\.batch-size\)",
    ):
        assert len(re.findall(rf"^the text is short \({size} bytes\): {what}$", log, re.MULTILINE)) == 1, log
    recipe = run.recipe
    fitted = recipe["fitted"]
    assert {"tokenizer.vocab_size", "model.max_position_embeddings", "data.batch_size"} <= fitted.keys()
    assert fitted["model.max_position_embeddings"] == recipe["config"]["model"]["max_position_embeddings"]
    assert "the model will learn it by heart" not in log
    assert "by heart" in train_stories(poem, tmp_path / "long", "1000 --run.max-seconds 0.001").log.read_text()

    # The same command continues it, and so does its own recipe; neither fits anything anew.
    train_stories(poem, run.path, "4 --resume")
    main([str(run.recipe_file), "--run-dir", str(run.path), "--resume", "--steps", "5"])
    again = RunFolder(run.path)
    assert (again.state["step"], again.recipe["fitted"]) == (5, fitted)
    assert run.log.read_text().count("the text is short") == log.count("the text is short")
    # What is asked for beside its own recipe holds, also where it is what `stories` says, and not what was fitted.
    asked = ["--data.batch-size", str(get_recipe("stories").data.batch_size)]
    with pytest.raises(SystemExit, match=r"--data\.batch-size: the run has \d+, asked for 14\); go on with its own"):
        main([str(run.recipe_file), "--run-dir", str(run.path), "--resume", "--steps", "6", *asked])


def test_a_poem_that_has_grown_or_is_gone_is_noticed(poem: Path, tmp_path: Path) -> None:
    """What was fitted to it as it was is no reason to speak of other settings; nor is it fitted again."""
    run = train_stories(poem, tmp_path / "run", "2").path
    poem.write_text(POEM * 9)
    choices = r"Keep the old text, .*--keep-tokens .*Train anew on the text as it is now: another --run-dir"
    with pytest.raises(SystemExit, match=rf"error: .*has changed since: 1 file edited \(.*poem\.txt\)\. {choices}"):
        train_stories(poem, run, "3 --resume")
    assert RunFolder(run).state["step"] == 2
    assert train_stories(poem, run, "3 --resume --run.keep-tokens").state["step"] == 3
    poem.unlink()
    with pytest.raises(SystemExit, match=rf"poem\.txt: no such file or folder .*\. {choices}"):
        train_stories(poem, run, "4 --resume")


def test_a_text_that_grows_while_it_is_read_is_said(
    poem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = ShardEncoder.run

    def growing(encoder: ShardEncoder, *arguments: Any, **named: Any) -> None:
        encode(encoder, *arguments, **named)
        poem.write_text(POEM + "And more.\n")

    monkeypatch.setattr(ShardEncoder, "run", growing)
    run = train_stories(poem, tmp_path / "run", "2")
    said = "the text has changed while it was read (1 file edited ("
    assert said in run.log.read_text()
    with pytest.raises(SystemExit, match="has changed since: 1 file edited"):
        train_stories(poem, run.path, "3 --resume")


def test_what_the_command_line_says_is_kept(poem: Path) -> None:
    config, fitted, lines = fitted_by(["stories", "--corpus", str(poem), "--model.max-position-embeddings", "24"])
    assert fitted.model.max_position_embeddings == 24
    assert changed_fields(fitted, config).keys() == {"tokenizer.vocab_size"}
    assert len(lines) == 1


@pytest.mark.parametrize("batch", [13, 14, 15])
@pytest.mark.parametrize("context", [159, 160, 161])
def test_a_flag_with_the_value_of_the_recipe_is_kept_as_any_other(poem: Path, batch: int, context: int) -> None:
    recipe = get_recipe("stories")
    assert (recipe.data.batch_size, recipe.model.max_position_embeddings) == (14, 160)
    flags = f"--data.batch-size {batch} --model.max_position_embeddings={context}"
    _, fitted, lines = fitted_by(["stories", "--corpus", str(poem), *flags.split()])
    assert (fitted.data.batch_size, fitted.model.max_position_embeddings) == (batch, context)
    assert not [line for line in lines if "--data.batch-size" in line or "--model.max-position-embeddings" in line]


def test_a_program_keeps_what_differs_from_the_recipe(poem: Path, tmp_path: Path) -> None:
    changes = {"corpus.source": "local", "corpus.paths": (poem,), "model.max_position_embeddings": 24}
    config = replace_fields(get_recipe("debug"), changes)
    runs = [
        Run(config, "debug", RunFolder(tmp_path / f"{len(given)}"), given=given, quiet=True)
        for given in ([], ["tokenizer.vocab_size"])
    ]
    kept = [run.config.tokenizer.vocab_size == config.tokenizer.vocab_size for run in runs]
    assert kept == [False, True]
    assert [run.config.model.max_position_embeddings for run in runs] == [24, 24]


@pytest.mark.parametrize("size", [60, 150, 400, 900, 4000, 9000])
@pytest.mark.parametrize("flags", ["", "--data.split text", "--tokenizer.kind characters --data.split text"])
def test_a_fitted_recipe_suits_its_text(tmp_path: Path, size: int, flags: str) -> None:
    """The training text holds several windows, and the validation text one."""
    path = tmp_path / "text.txt"
    path.write_text((POEM * 10)[:size])
    _, config, lines = fitted_by(["stories", "--corpus", str(path), *flags.split()])
    prepared = prepare(config, RunFolder(tmp_path / "run"), lambda line: None)
    length = config.model.max_position_embeddings
    assert len(prepared.train) >= length + 2
    assert len(prepared.train) / length >= (4 if size > 100 else 1)
    assert not lines or config.data.batch_size * length <= len(prepared.train)
    sizes: dict[str, Any] = dict(batch_size=config.data.batch_size, length=length, end_of_text=prepared.end_of_text)
    batch = training_batches(prepared.train, config.data.windows, **sizes, seed=1).next()
    assert batch.input_BL.shape == (config.data.batch_size, length)
    assert evaluation_batches(prepared.validation, **sizes, windows=8)[0].input_BL.numel()
    assert training_evaluation_batches(prepared.train, prepared.validation, **sizes, windows=8)


def test_a_text_that_is_long_enough_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read only as far as it takes to see that."""
    read = []
    for number in range(100):
        (tmp_path / f"{number:03}.txt").write_text(f"{number} {POEM * 2}")
    real = fitting.read_corpus
    monkeypatch.setattr(fitting, "read_corpus", lambda corpus: (read.append(1) or each for each in real(corpus)))
    config, *fitted = fitted_by(["stories", "--corpus", str(tmp_path)])
    assert fitted == [config, []]
    assert 5 < len(read) < 20
    books, *fitted = fitted_by(["modern"])
    assert fitted == [books, []]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"poem\.txt: .*empty"),
        (" \n\n ", r"poem\.txt"),
        ("Alas!", r"the corpus is too short: expected at least 10 training tokens .* got a text of 5 bytes"),
    ],
)
def test_a_text_that_does_not_do(poem: Path, tmp_path: Path, text: str, message: str) -> None:
    poem.write_text(text)
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        train_stories(poem, tmp_path / "run", "2")
    assert not (tmp_path / "run/run.json").exists()
